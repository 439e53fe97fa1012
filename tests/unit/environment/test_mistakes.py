"""Tests of `prebuilt_spawner.environment.mistakes`: the table of what is refused, for server and page."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from packaging.requirements import InvalidRequirement, Requirement

from prebuilt_spawner.environment.mistakes import (
    CONTROL_IN_LINE,
    MISTAKES,
    NOT_A_REQUIREMENT,
    TOO_LONG,
    TOO_MANY,
    filled,
    mistake_in,
)
from prebuilt_spawner.environment.pasted import rules_for_page
from prebuilt_spawner.environment.quoting import quoted
from tests.messages import faults

VALUES = {"quoted": "'thing'", "count": "1,001", "character": "U+0000", "package": "'thing'", "limit": "1,000"}


def patterns(rules) -> list[str]:
    """Every pattern that the page gets."""
    table = [*rules["mistakes"], rules["text"]["control"]]
    texts = [value for value in rules["text"].values() if isinstance(value, str)]
    return [*texts, *(mistake["pattern"] for mistake in table), rules["quoting"]["userinfo"]]


@pytest.mark.parametrize("message", [*(m.message for m in (*MISTAKES, CONTROL_IN_LINE)), TOO_LONG, TOO_MANY])
def test_every_message_is_a_sentence_that_says_what_to_do(message):
    """As those that stand in the code."""
    assert faults(filled(message, VALUES)) == []


@pytest.mark.parametrize("source", patterns(rules_for_page()))
def test_patterns_are_what_python_and_javascript_mean_alike(source):
    """No class that knows other characters there, no end that also stands before a line break, no named group."""
    rest = source.replace(r"[\s\S]", "")
    assert re.findall(r"\\[^\\nrtxu.{}()\[\]+*?^$/|]", rest) == []
    assert re.findall(r"\(\?(?![:=!])", rest) == []
    assert "$" not in re.sub(r"\[[^\]]*\]", "", rest)


def test_what_a_value_holds_is_no_place_of_a_template():
    assert filled("{quoted} {count}", {"quoted": "{count}", "count": "1"}) == "{count} 1"


parts = st.sampled_from(
    [
        *(
            "foo",
            "a-b",
            "A.b_c",
            "1",
            " ",
            "\t",
            "[",
            "]",
            "a,b",
            ",",
            "(",
            ")",
            ">=",
            "==",
            "===",
            "~=",
            "!=",
            "<",
            "=",
            "2",
        ),
        *(
            "1.0",
            "1.*",
            "1!2",
            "1+a-b",
            "; ",
            "os_name == 'nt'",
            "os_name in 'nt'",
            "(os_name != 'a')",
            " and ",
            "'a' > os_name",
        ),
    ]
)


@given(st.lists(parts, max_size=8).map("".join))
def test_what_packaging_reads_has_no_mistake_but_one_of_ours(text):
    """The table's last patterns, which say what a requirement looks like, let through all that is one."""
    text = text.strip(" \t")
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return
    # `===` compares with any text; what is asked for by it here looks like a version.
    texts = [specifier.version for specifier in requirement.specifier if specifier.operator == "==="]
    assume(all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!*-]*", text) for text in texts))
    mistake = mistake_in(text)
    assert mistake != filled(NOT_A_REQUIREMENT, {"quoted": quoted(text)})
    assert "single '='" not in mistake
    assert "has a ';'" not in mistake
