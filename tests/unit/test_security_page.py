"""The security page's promises and the tests that hold them match one to one."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/security.md").read_text("utf-8")

WHOLE_FILES = (
    "tests/engine/test_malicious_wheels.py",
    "tests/engine/test_secrets.py",
    "tests/hub/test_names.py",
    "tests/hub/test_privacy.py",
)
"""Files of tests that hold promises and do nothing else."""


def promises() -> list[tuple[str, str]]:
    """(promise, what stands in the column of tests) of each row, without the rows that are headings."""
    section = re.search(r"^## What we promise\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    assert section
    rows = re.findall(r"^\| (.+?) \| ?(.*?) ?\|$", section[1], re.MULTILINE)
    return [(promise, test) for promise, test in rows[2:] if not re.fullmatch(r"\*\*.*\*\*", promise)]


def names_of_tests(file: Path) -> set[str]:
    tree = ast.parse(file.read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_")}


def test_the_table_is_read() -> None:
    assert len(promises()) > 30


@pytest.mark.parametrize(("promise", "test"), promises(), ids=lambda value: value[:60])
def test_a_promise_names_a_test_that_exists(promise: str, test: str) -> None:
    """One, by its file and name; the promise is a sentence."""
    assert promise.endswith(".")
    match = re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", test)
    assert match, test
    assert match[2] in names_of_tests(ROOT / match[1]), test


def test_no_test_holds_two_promises_and_no_promise_is_made_twice() -> None:
    for column in zip(*promises(), strict=True):
        assert [text for text, count in Counter(column).items() if count > 1] == []


@pytest.mark.parametrize("file", WHOLE_FILES)
def test_a_test_of_a_promise_is_on_the_page(file: str) -> None:
    named = {test for _, test in promises()}
    assert {f"`{file}::{name}`" for name in names_of_tests(ROOT / file)} <= named
