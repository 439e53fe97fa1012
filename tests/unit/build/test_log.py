"""Tests of `prebuilt_spawner.build.log` and `prebuilt_spawner.build.output`."""

from __future__ import annotations

import sys
import time
import tracemalloc
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prebuilt_spawner.build.events import BuildEvent, Phase
from prebuilt_spawner.build.log import HEAD_CHARACTERS, TAIL_CHARACTERS, BuildLog
from prebuilt_spawner.build.output import LINE_LIMIT, OutputLines, plain

NINE = datetime(2026, 1, 31, 9, tzinfo=timezone.utc)

# Mostly what terminal sequences are made of.
terminal_text = st.text(
    st.sampled_from("\x1b\x1b[]P;?0123mK (\\\x07\x9b\x9d\x9c\r\n\n\tabc\x00é\ud800\u202e") | st.characters(),
    max_size=60,
)


def build_log(**arguments) -> BuildLog:
    return BuildLog(now=lambda: NINE, **arguments)


def said(message: str, phase: Phase = Phase.RESOLVING, done: int = 0, total: int = 0) -> BuildEvent:
    return BuildEvent(phase=phase, message=message, done=done, total=total)


def printed(output: str, phase: Phase = Phase.RESOLVING) -> BuildEvent:
    return BuildEvent(phase=phase, output=output)


def lines_of(*pieces: str) -> list[str]:
    output = OutputLines()
    return [line for piece in pieces for line in output.feed(piece)] + list(output.end())


def test_a_log_says_what_happened_when_and_what_tools_printed():
    times = iter(NINE + timedelta(seconds=number) for number in range(10))
    log = BuildLog(now=lambda: next(times))
    log.add(said("Choosing package versions"))
    log.add(printed("Resolved 3 pack"))
    log.add(printed("ages\nUsing "))
    log.add(said("Downloading six", Phase.DOWNLOADING, 0, 10))
    log.add(said("Downloading six", Phase.DOWNLOADING, 10, 10))
    log.add(said("Preparing packages", Phase.PREPARING))
    assert log.text() == (
        "2026-01-31T09:00:00Z resolving: Choosing package versions\n"
        "    Resolved 3 packages\n"
        "    Using \n"
        "2026-01-31T09:00:02Z downloading: Downloading six [10/10]\n"
        "2026-01-31T09:00:03Z preparing: Preparing packages\n"
    )
    assert log.tail(1) == ("2026-01-31T09:00:03Z preparing: Preparing packages",)


def test_what_has_begun_is_in_the_text_and_goes_on_afterwards():
    log = build_log()
    log.add(printed("half a "))
    assert log.text() == "    half a \n"
    log.add(printed("line\n"))
    assert log.text() == "    half a line\n"
    log.add(said("Downloading", Phase.DOWNLOADING, 1, 3))
    assert log.tail(1)[0].endswith("downloading: Downloading [1/3]")
    log.add(said("Downloading", Phase.DOWNLOADING, 2, 3))
    assert log.text().count("Downloading") == 1


def test_a_log_that_nothing_was_added_to_is_empty():
    assert build_log().text() == ""
    assert build_log().tail(5) == ()


def test_a_long_log_keeps_both_ends_and_says_what_is_missing():
    log = build_log(head=30, tail=30)
    for number in range(100):
        log.add(printed(f"line {number:02}\n"))
    # Each line has 12 characters with its indent and its end.
    assert log.text().splitlines() == [
        "    line 00",
        "    line 01",
        "[… 96 lines with 1,152 characters cut …]",
        "    line 98",
        "    line 99",
    ]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("\x1b[31mred\x1b[0m\n", ["red"]),
        ("\x1b[38;5;196;1mred\x1b[K\n", ["red"]),
        ("\x9b31mred\n", ["red"]),
        ("\x1b]0;title\x07shown\n", ["shown"]),
        ("\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\\n", ["link"]),
        ("\x1b]0;no end\nnext\n", ["", "next"]),
        ("\x1b(B\x1bMtext\x1b7\n", ["text"]),
        ("\x1bPdevice\x1b\\text\n", ["text"]),
        ("10%\r50%\r100%\n", ["100%"]),
        ("10%\r100%\r\nnext\r\n", ["100%", "next"]),
        ("one\n\ntwo", ["one", "", "two"]),
        ("a\x00b\x07c\x08d\x7f\n", ["abcd"]),
        ("\u202egnp.exe\u2066\n", ["gnp.exe"]),
        (b"caf\xe9 \xff\n".decode("utf-8", "surrogateescape"), ["caf\ufffd \ufffd"]),
        ("<script>alert(1)</script>\n", ["<script>alert(1)</script>"]),
        ("\ttab\n", ["\ttab"]),
    ],
)
def test_output_becomes_plain_lines(text, lines):
    """Whole, and one character at a time."""
    assert lines_of(text) == lines
    assert lines_of(*text) == lines


def test_of_a_long_line_the_first_characters_are_kept():
    (line,) = lines_of("x" * 10_000_000 + "\n")
    assert line == "x" * LINE_LIMIT + " [9,998,000 more characters cut]"
    assert lines_of("x" * LINE_LIMIT + "\n") == ["x" * LINE_LIMIT]
    assert lines_of("x" * 5000 + "\rshort\n") == ["short"]


def test_a_long_message_is_cut_too():
    log = build_log()
    log.add(said("x" * 1_000_000))
    assert len(log.text()) < LINE_LIMIT + 100


@given(st.lists(terminal_text, max_size=8))
def test_where_the_output_is_cut_into_pieces_makes_no_difference(pieces):
    assert lines_of(*pieces) == lines_of("".join(pieces)) == lines_of(*"".join(pieces))


@given(st.lists(terminal_text, max_size=8))
def test_lines_hold_nothing_that_a_terminal_a_page_or_a_database_could_trip_over(pieces):
    for line in lines_of(*pieces):
        assert not set(line) & {*map(chr, range(9)), *map(chr, range(10, 32)), *map(chr, range(127, 160)), "\u202e"}
        line.encode()
    assert plain("".join(pieces)).isprintable() or not plain("".join(pieces)).isascii()


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), max_size=50))
def test_ordinary_text_stays_as_it_is(text):
    assert lines_of(text + "\n") == [text]


@given(
    st.lists(
        st.builds(
            BuildEvent,
            phase=st.sampled_from(Phase),
            message=terminal_text,
            output=terminal_text,
            done=st.integers(0, 3),
            total=st.integers(0, 3),
        ),
        max_size=30,
    )
)
def test_a_log_is_never_longer_than_its_bounds(events):
    log = build_log(head=100, tail=200)
    for event in events:
        log.add(event)
        text = log.text()
        # Both ends, the line between them, and what has begun: a line that is printed, and a count.
        assert len(text) <= 100 + 200 + 60 + 2 * (LINE_LIMIT + 50)
        assert log.tail(3) == tuple(text.removesuffix("\n").split("\n")[-3:] if text else ())


@pytest.mark.parametrize(
    "piece",
    ["x" * 10_000_000, "y\n" * 100_000, "\n" * 200_000, "50%\r" * 2_500_000, "\x1b]" + "z" * 9_999_998],
    ids=["one line", "short lines", "empty lines", "bars", "an open title"],
)
def test_memory_is_bounded_whatever_is_printed(piece):
    """Many times what is kept, in pieces of up to 10 MB."""
    log = build_log()
    tracemalloc.start()
    try:
        for _ in range(2):
            log.add(printed(piece))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12_000_000
    assert len(log.text()) < HEAD_CHARACTERS + TAIL_CHARACTERS + LINE_LIMIT + 200


@pytest.mark.parametrize(
    "text", ["\x1b[0", "\x1b]0;", "\x1b[" + "0" * 63, "\x1b", "\r", "\x9b;", "\x1b]\x1b", "a\r\x1b[K"]
)
def test_time_grows_with_the_length_and_no_faster(text):
    """What would make a backtracking pattern slow takes less than 5 µs for a character."""
    size = 300_000
    began = time.process_time()
    lines_of(text * (size // len(text)))
    lines_of(*(text * (size // 10 // len(text))))
    assert time.process_time() - began < size * 5e-6 * (3 if sys.gettrace() else 1)
