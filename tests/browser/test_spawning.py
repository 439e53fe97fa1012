"""What a user does in the browser: choose, type, start, wait, work."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from ..engine.hub import Hub

PROFILES = """
c.PrebuiltSpawner.profile_list = [
    {"display_name": "Plain", "slug": "plain", "description": "Nothing but the base."},
    {"display_name": "Documents", "slug": "documents", "packages": ["xlsxwriter"]},
]
"""


@pytest.fixture(scope="module")
def hub(make_hub) -> Hub:
    hub = make_hub(settings=PROFILES)
    hub.start()
    return hub


def _open_form(page: Page, hub: Hub, user: str, query: str = "") -> None:
    page.goto(f"{hub.url}/hub/login?next=/hub/spawn{query}")
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password").fill("password-of-the-tests")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Server Options")).to_be_visible()


def test_the_default_profile_is_chosen_at_first(page: Page, hub: Hub):
    """A new user who only presses Start gets the default profile, and sees that beforehand."""
    _open_form(page, hub, hub.user("newcomer"))
    expect(page.get_by_label("Plain")).to_be_checked()
    expect(page.get_by_label("Plain")).to_have_accessible_description("Nothing but the base.")
    expect(page.get_by_label("Documents")).not_to_be_checked()


def test_a_user_picks_a_profile_types_a_package_and_works(page: Page, hub: Hub):
    """Choosing a profile and adding a package leads through the pending page into JupyterLab, which has both."""
    user = hub.user("clicker")
    _open_form(page, hub, user)
    page.get_by_label("Documents").check()
    page.get_by_label("Packages").fill("python-docx>=1")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(f"**/user/{user}/lab**", timeout=120_000)
    expect(page.locator("#jp-main-dock-panel")).to_be_visible(timeout=60_000)
    assert hub.python(user, "import xlsxwriter, docx; print('both')") == "both"


def test_a_mistake_comes_back_with_what_was_entered(page: Page, hub: Hub):
    """A refused list shows its reason on the form, which still holds the text and the choice."""
    user = hub.user("mistaken")
    _open_form(page, hub, user)
    page.get_by_label("Documents").check()
    page.get_by_label("Packages").fill("pandas\n-e .")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("'-e .'")).to_be_visible()
    expect(page.get_by_label("Packages")).to_have_value("pandas\n-e .")
    expect(page.get_by_label("Documents")).to_be_checked()
    assert not hub.runs(user)


def test_a_link_fills_in_the_form_and_starts_nothing(page: Page, hub: Hub):
    """A link with a profile and packages shows them on the form; the server starts only when the user says so."""
    user = hub.user("follower")
    _open_form(page, hub, user)
    page.goto(f"{hub.url}/hub/spawn?opt-profile=documents&opt-packages=python-docx")
    expect(page.get_by_label("Documents")).to_be_checked()
    expect(page.get_by_label("Packages")).to_have_value("python-docx")
    assert not hub.runs(user)


def test_hostile_text_is_shown_as_text(page: Page, hub: Hub):
    """Markup in a package name is shown as it was typed and runs nothing."""
    user = hub.user("hostile")
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    _open_form(page, hub, user)
    text = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    page.get_by_label("Packages").fill(text)
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_label("Packages")).to_have_value(text)
    assert page.locator("img[src=x]").count() == 0
    assert dialogs == []
