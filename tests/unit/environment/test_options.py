"""Tests of `prebuilt_spawner.environment.options` and of how offenders are quoted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prebuilt_spawner.environment.options import UserOptions, choice_digest, parse_user_options, without_refresh
from prebuilt_spawner.environment.quoting import named_character, quoted
from prebuilt_spawner.errors import MalformedRequest


def refusal(options) -> str:
    with pytest.raises(MalformedRequest) as caught:
        parse_user_options(options)
    message = caught.value.message
    assert len(message) < 400
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ({}, UserOptions()),
        ({"profile": None, "packages": None, "image": None, "refresh": None}, UserOptions()),
        ({"profile": "", "packages": "", "image": ""}, UserOptions()),
        ({"packages": []}, UserOptions()),
        ({"packages": " \n# nothing\n"}, UserOptions()),
        ({"packages": ["xlsxwriter", "python-docx>=1"]}, UserOptions(packages=("python-docx>=1", "xlsxwriter"))),
        ({"packages": "Python_DOCX >= 1.0\nXlsxWriter"}, UserOptions(packages=("python-docx>=1", "xlsxwriter"))),
        (
            {"profile": "stats", "image": "GPU image (big)", "refresh": True},
            UserOptions(profile="stats", image="GPU image (big)", refresh=True),
        ),
        ({"refresh": False}, UserOptions()),
    ],
)
def test_options_are_read(options, read):
    """All are optional, and null is as good as absent."""
    assert parse_user_options(options) == read


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pakages": ["x"]}, "'pakages'"),
        ({"Packages": ["x"]}, "'Packages'"),
        ({"user_options": {}}, "'user_options'"),
        ({"x" * 100_000: 1}, "'xxx"),
        ({"a\nb\x00": 1}, r"'a\nb\x00'"),
        ({7: 1}, "a number"),
        ({"profile": 7}, "profile must be text, not a number"),
        ({"profile": ["x"]}, "profile must be text, not a list"),
        ({"profile": "a\nb"}, r"'a\nb'"),
        ({"profile": "x" * 100_000}, "profile"),
        ({"image": False}, "image must be text, not true or false"),
        ({"image": {"x": 1}}, "image must be text, not an object"),
        ({"refresh": "true"}, "'true'"),
        ({"refresh": 1}, "refresh must be true or false, not a number"),
        ({"refresh": []}, "refresh must be true or false, not a list"),
        ({"packages": 7}, "a number"),
        ({"packages": False}, "true or false"),
        ({"packages": {}}, "an object"),
        ({"packages": [["pandas"]]}, "a list"),
        ({"packages": ["../x"]}, "'../x'"),
        ({"packages": ["-e ."]}, "'-e .'"),
    ],
)
def test_what_is_no_option_is_refused_and_named(options, words):
    """With a status of 400."""
    assert words in refusal(options)
    assert MalformedRequest.status == 400


@pytest.mark.parametrize(
    ("options", "about", "entry"),
    [
        ({"pakages": ["x"]}, "", ""),
        ({"profile": 7}, "profile", ""),
        ({"profile": "a\nb"}, "profile", ""),
        ({"image": 7}, "image", ""),
        ({"refresh": 1}, "refresh", ""),
        ({"packages": 7}, "packages", ""),
        ({"packages": ["x", 7]}, "packages", ""),
        ({"packages": ["a"] * 1001}, "packages", ""),
        ({"packages": "a" * 100_000}, "packages", ""),
        ({"packages": [" ../x "]}, "packages", "../x"),
        ({"packages": "numpy, foo==abc"}, "packages", "foo==abc"),
        ({"packages": "foo; os_name ~= 'x'"}, "packages", "foo; os_name ~= 'x'"),
        ({"packages": "foo>2,<1"}, "packages", "foo>2,<1"),
        ({"packages": "Foo>2 foo<1"}, "packages", "foo<1"),
        ({"packages": ["foo" + ",".join(f"!={number}" for number in range(30))]}, "packages", "foo"),
    ],
)
def test_an_error_says_which_option_and_which_entry_it_is_about(options, about, entry):
    """For whoever shows the message beside it."""
    with pytest.raises(MalformedRequest) as caught:
        parse_user_options(options)
    assert (caught.value.about, caught.value.entry) == (about, entry)


@pytest.mark.parametrize("options", [None, [], "x", 7])
def test_options_are_an_object(options):
    """REST may bring anything."""
    assert "must be an object" in refusal(options)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"packages": ["NumPy", "python_docx >= 1.0"]}, {"packages": "python-docx>=1.0\nnumpy"}),
        ({"packages": ["numpy"], "refresh": True}, {"packages": ["numpy"], "refresh": False}),
        ({"profile": "data", "image": "", "packages": None}, {"profile": "data"}),
    ],
)
def test_options_that_choose_the_same_have_one_digest(first, second):
    assert choice_digest(first) == choice_digest(second) != ""


def test_options_that_choose_otherwise_have_digests_of_their_own():
    options: list[dict] = [
        {"packages": ["numpy"]},
        {"packages": ["numpy>=2"]},
        {"profile": "numpy"},
        {"image": "numpy"},
        {"profile": "numpy", "packages": ["numpy"]},
        {"unknown": "numpy"},
    ]
    assert len({choice_digest(one) for one in options}) == len(options)


@pytest.mark.parametrize("options", [{}, {"refresh": True}, {"packages": " \n", "profile": "", "image": None}])
def test_options_that_choose_nothing_have_no_digest(options):
    assert choice_digest(options) == ""


def test_a_refresh_is_taken_out_of_what_is_stored():
    """Whatever its value; the options that were given stay as they are."""
    options = {"packages": ["x"], "refresh": "nonsense"}
    assert without_refresh(options) == {"packages": ["x"]}
    assert without_refresh({}) == {}
    assert options == {"packages": ["x"], "refresh": "nonsense"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["profile", "packages", "image", "refresh", "x"]), json_values) | json_values)
def test_any_json_value_is_read_or_refused(options):
    """Nothing but options or a MalformedRequest comes out."""
    try:
        read = parse_user_options(options)
    except MalformedRequest:
        return
    assert isinstance(read.refresh, bool)
    assert read.profile is None or read.profile
    assert parse_user_options({"packages": list(read.packages)}).packages == read.packages


@given(st.text())
def test_a_quoted_text_is_short_and_prints(text):
    """It can be logged, encoded and shown."""
    shown = quoted(text)
    assert shown.isprintable()
    assert len(shown) <= 60 * 10 + 3
    shown.encode()


def test_what_does_not_print_is_written_as_an_escape():
    """As people know it from Python and JSON."""
    assert quoted("a\n\x00\x1b\u2028\ud83d\U000e0001") == r"'a\n\x00\x1b\u2028\ud83d\U000e0001'"
    assert quoted("x" * 61) == f"'{'x' * 60}…'"
    assert named_character("é") == "'é' (U+00E9)"
    assert named_character("\x00") == "U+0000"
