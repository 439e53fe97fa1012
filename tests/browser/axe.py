"""Looks for barriers in a page with axe-core, which `make setup` gets from npm."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

from playwright.sync_api import Page

_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]


@cache
def _script() -> str:
    proxy = shutil.which("configurable-http-proxy")
    assert proxy, "configurable-http-proxy is not installed: run the tests with `make test`"
    return (Path(proxy).parent.parent / "axe-core" / "axe.min.js").read_text("utf-8")


def violations(page: Page, selector: str) -> list[str]:
    """What is wrong with this part of the page: rule, element and axe's words for each."""
    page.evaluate(_script())
    found = page.evaluate(
        "([selector, rules]) => axe.run(selector, {runOnly: rules}).then(result => result.violations)",
        [selector, _RULES],
    )
    return [
        f"{violation['id']}: {node['html'][:200]}: {node['failureSummary']}"
        for violation in found
        for node in violation["nodes"]
    ]
