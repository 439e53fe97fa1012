"""What the browser tests do on the hub's pages."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from ..engine.hub import Hub


def open_form(page: Page, hub: Hub, user: str, query: str = "") -> None:
    """Log in, and come to the spawn form."""
    log_in(page, hub, user, f"/hub/spawn{query}")
    expect(page.get_by_role("heading", name="Server Options")).to_be_visible()


def log_in(page: Page, hub: Hub, user: str, path: str) -> None:
    """Log in, and come to this page."""
    page.goto(f"{hub.url}/hub/login")
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password").fill("password-of-the-tests")
    page.get_by_role("button", name="Sign in").click()
    # The page that the login leads to, not the login's own; it is complete then.
    page.wait_for_url(lambda url: "/hub/login" not in url)
    page.goto(f"{hub.url}{path}")


def start(page: Page) -> None:
    """Press Start."""
    page.get_by_role("button", name="Start").click()


def fails(page: Page) -> str:
    """Wait until the start has failed, on whichever of JupyterHub's pages that shows; which one it is.

    The form where it fails within a second, the pending page later, and, just between, one that says no more than that.
    """
    shown = {
        "form": page.locator("#prebuilt-packages-reason"),
        "pending": page.get_by_role("link", name="Change what you asked for"),
        "failed": page.get_by_role("button", name="Relaunch Server"),
    }
    expect(shown["form"].or_(shown["pending"]).or_(shown["failed"])).to_be_visible(timeout=60_000)
    return next(name for name, what in shown.items() if what.is_visible())


def back_to_form(page: Page, failed_on: str) -> None:
    """From where a start has failed to the form."""
    if failed_on == "pending":
        page.get_by_role("link", name="Change what you asked for").click()
    elif failed_on == "failed":
        page.get_by_role("button", name="Relaunch Server").click()
    expect(page.locator("#prebuilt-packages-reason")).to_be_visible()


def works_in_lab(page: Page, user: str, server: str = "") -> None:
    """The page becomes JupyterLab of this server."""
    page.wait_for_url(f"**/user/{user}/{server and server + '/'}lab**", timeout=120_000)
    expect(page.locator("#jp-main-dock-panel")).to_be_visible(timeout=60_000)


def chips(page: Page) -> list[str]:
    """The packages in the list, as they are shown."""
    return page.get_by_role("list", name="Packages in the list").locator("li button:first-child").all_text_contents()


def card(page: Page, name: str) -> Locator:
    """The card of a profile."""
    return page.locator(".prebuilt-profile", has=page.get_by_label(name, exact=True))


def picture(page: Page, name: str, folder: Path | None) -> None:
    """Keep a screenshot for the documentation where somebody has said where to, without the bar that names the user."""
    if folder is not None:
        page.locator(".container:has(#prebuilt-spawner, #progress-bar)").screenshot(path=folder / f"{name}.png")
