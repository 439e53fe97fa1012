"""What a user sees in the browser while an environment is prepared."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from ..engine.hub import Hub
from .axe import violations
from .pages import open_form
from .scripted import SCRIPT, SETTINGS


@pytest.fixture(scope="module")
def hub(make_hub) -> Hub:
    hub = make_hub(settings=SETTINGS)
    hub.start()
    return hub


def _start(page: Page, hub: Hub, user: str, play: str) -> list[str]:
    """Start a server in the browser; the dialogs that open from now on."""
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    open_form(page, hub, user)
    page.get_by_label("Packages", exact=True).fill(play)
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(f"**/hub/spawn-pending/{user}**")
    return dialogs


def _memory_bytes(hub: Hub, what: str) -> int:
    assert hub._process is not None
    status = Path(f"/proc/{hub._process.pid}/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) * 1024


def _percent(page: Page) -> int:
    return int(page.locator("#progress-bar").get_attribute("aria-valuenow"))


def test_a_hostile_build_log_is_shown_as_text(page: Page, hub: Hub):
    """Markup, terminal sequences, bars, 200 MB, bytes that are not text, a line of 10 MB: the page gets a few lines."""
    user = hub.user("hostile")
    before = _memory_bytes(hub, "VmRSS")
    dialogs = _start(page, hub, user, "hostile")
    output = page.locator("#progress-message pre")
    expect(output).to_contain_text("last words", timeout=120_000)
    lines = output.text_content().strip().split("\n")
    assert lines[-6:] == [
        f"red {SCRIPT}",
        "100%",
        "caf\ufffd \ufffd\ufffd",
        "txt.exe",
        lines[-2],
        "last words",
    ]
    assert re.fullmatch(r"y{300} \[[\d,]+ more characters cut\]", lines[-2])
    expect(page.locator("#progress-message")).to_contain_text(f"Preparing {SCRIPT}")
    assert page.locator("img[src=x]").count() == 0
    assert dialogs == []
    assert len(page.content()) < 60_000
    grown = _memory_bytes(hub, "VmHWM") - before
    assert grown < 100e6, f"the hub grew by {grown / 1e6:.0f} MB"


def test_the_page_and_a_second_one_stay_small_and_show_the_same(page: Page, browser: Browser, hub: Hub):
    """A hundred counts are one line of the event log; a reload and a second tab show what the first page shows."""
    user = hub.user("counting")
    _start(page, hub, user, "counting")
    lengths = []
    while "7 of 7" not in (page.locator("#progress-message").text_content() or ""):
        lengths.append(_percent(page))
        page.wait_for_timeout(100)
    assert lengths == sorted(lengths)
    assert lengths[-1] > lengths[0]
    second = page.context.new_page()
    second.goto(page.url)
    for one in (page, second):
        expect(one.locator("#progress-message")).to_contain_text("Preparing packages: 7 of 7 (about")
        expect(one.locator("#progress-message pre")).to_contain_text("Installed requests in 119 ms")
        # "Server requested", and one for each step
        expect(one.locator("#progress-log > div")).to_have_count(4)
        assert one.locator("#progress-log pre").count() == 1
    page.reload()
    expect(page.locator("#progress-message")).to_contain_text("Preparing packages: 7 of 7 (about")
    assert abs(_percent(page) - _percent(second)) <= 2
    assert _percent(page) >= lengths[-1]


def test_a_build_that_fails_says_why_and_leaves_its_last_words(page: Page, hub: Hub):
    user = hub.user("failing")
    dialogs = _start(page, hub, user, "failing")
    expect(page.locator("#progress-bar")).to_have_class(re.compile("bg-danger"))
    expect(page.locator("#progress-message")).to_contain_text(f"Nothing fits {SCRIPT}.")
    expect(page.locator("#progress-log pre")).to_be_visible()
    expect(page.locator("#progress-log pre")).to_have_text(f"no solution for {SCRIPT}")
    assert dialogs == []


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_pending_page_has_no_barriers(browser: Browser, hub: Hub, width: int, theme: str):
    """Neither while something is done nor when it has failed: axe-core finds nothing, nothing is scrolled sideways."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=theme)
    page = context.new_page()
    _start(page, hub, hub.user(f"barrier-{theme}{width}"), "failing")
    for shown in (page.get_by_text("Choosing package versions").first, page.get_by_text("Change what you asked for")):
        expect(shown).to_be_visible()
        assert violations(page, ".container:has(#progress-bar)") == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


@pytest.mark.parametrize("proxy", ["goes too", "stays"])
def test_a_page_whose_hub_was_restarted_says_that_nothing_starts_any_more(page: Page, hub: Hub, proxy: str):
    """JupyterHub's own page would wait for ever: the start is lost, and no event tells of it."""
    user = hub.user("orphan" + proxy[0])
    _start(page, hub, user, "counting")
    expect(page.locator("#progress-message")).to_contain_text("Preparing packages: 7 of 7")
    assert hub._process is not None
    if proxy == "stays":
        os.kill(hub._process.pid, signal.SIGKILL)
        hub._process.wait(30)
        page.wait_for_timeout(4_000)  # the browser connects anew and is told 503
        hub.start()
    else:
        hub.stop(signal.SIGKILL)
        hub.start()
    expect(page.get_by_role("heading", name="Server not running")).to_be_visible(timeout=120_000)
    expect(page.get_by_role("button", name="Launch Server")).to_be_visible()
