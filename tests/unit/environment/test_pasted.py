"""Tests of `prebuilt_spawner.environment.pasted`: what is read from texts as people paste them."""

from __future__ import annotations

import json
import time

import pytest

from prebuilt_spawner.environment.pasted import MAX_REQUEST_CHARACTERS, entries_of, rules_for_page
from prebuilt_spawner.environment.requirements import parse_requirements
from prebuilt_spawner.errors import MalformedRequest
from tests.messages import faults
from tests.pastes import ACCEPTED, REFUSED


@pytest.mark.parametrize(("text", "requirements"), ACCEPTED)
def test_what_people_paste_is_read(text, requirements):
    """As the requirements that the text means; also with other line ends, and with a comment after it."""
    assert parse_requirements(text) == requirements
    assert parse_requirements(text.replace("\r", "").replace("\n", "\r\n")) == requirements
    assert parse_requirements(f"{text}\n# later") == requirements


@pytest.mark.parametrize(("text", "entry", "words"), REFUSED)
def test_what_is_no_package_is_refused_and_named(text, entry, words):
    """The error carries the entry, and the message says what it is and what to do."""
    for request in (text, f"scikit-learn\n{text}"):
        with pytest.raises(MalformedRequest) as caught:
            parse_requirements(request)
        assert (caught.value.about, caught.value.entry) == ("packages", entry)
        assert words in caught.value.message
        assert set(faults(caught.value.message)) <= {"holds a path", "holds an address"}


def test_an_entry_is_as_it_was_written():
    """Without quotes and comments, and with one space where there was some."""
    written = "Pandas  >=2,  <3, 'foo[a]' # why\n%pip install -U Bar_Baz"
    assert [entry.text for entry in entries_of(written)] == ["Pandas >=2, <3", "foo[a]", "Bar_Baz"]


@pytest.mark.parametrize(
    "piece",
    [
        "a ",
        "a,",
        "'",
        '"',
        "[",
        "(",
        "a;",
        "&&",
        "pip install ",
        "/",
        "a/",
        "-a ",
        "$ ",
        "a=",
        "'a' ",
        ", <",
        "\\\n",
        "#",
    ],
)
@pytest.mark.parametrize("beginning", ["", "pip install ", "(a) a@b:", "sudo ", "import "])
def test_the_longest_texts_are_read_at_once(beginning, piece):
    """Two seconds are far more than any of them needs, and far less than quadratic work would take."""
    text = (beginning + piece * MAX_REQUEST_CHARACTERS)[:MAX_REQUEST_CHARACTERS]
    started = time.perf_counter()
    entries_of(text)
    assert time.perf_counter() - started < 2


def test_the_page_gets_the_rules_as_json():
    """Nothing in them is lost on the way."""
    assert json.loads(json.dumps(rules_for_page())) == rules_for_page()
