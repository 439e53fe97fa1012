"""The spawn form in a real browser, with what follows from it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from ..engine.hub import Hub
from .axe import violations
from .pages import back_to_form, card, chips, fails, log_in, open_form, picture, start, works_in_lab

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"' {{7*7}}"

SETTINGS = f"""
HOSTILE = {HOSTILE!r}

def profiles(spawner):
    if "hostile" in spawner.user.name:
        return [
            {{"display_name": HOSTILE, "slug": "one", "description": HOSTILE, "allow_extra_packages": True}},
            {{"display_name": "Other", "slug": "two"}},
        ]
    if "free" in spawner.user.name:
        return []
    return [
        {{"display_name": "Plain", "slug": "plain", "description": "Nothing but the base."}},
        {{"display_name": "Documents", "slug": "documents", "description": "Reading and writing Word files.",
          "packages": ["python-docx", "xlsxwriter", "six"]}},
        {{"display_name": "Closed", "slug": "closed", "allow_extra_packages": False}},
    ]

c.PrebuiltSpawner.profile_list = profiles
c.PrebuiltSpawner.allow_custom_packages = lambda spawner: "closed" not in spawner.user.name
"""


@pytest.fixture(scope="module")
def hub(make_hub) -> Hub:
    hub = make_hub(settings=SETTINGS)
    hub.start()
    return hub


@pytest.fixture(scope="module")
def pictures() -> Path | None:
    """Where screenshots for the documentation go; None keeps none."""
    folder = os.environ.get("PREBUILT_SPAWNER_PICTURES")
    return Path(folder) if folder else None


@pytest.fixture
def plain_page(browser: Browser):
    """A browser without JavaScript."""
    context = browser.new_context(java_script_enabled=False)
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


def _load_until(page: Page, address: str) -> None:
    """Without a script, the pending page is loaded again by hand."""
    for _ in range(600):
        if re.search(address, page.url):
            return
        page.wait_for_timeout(100)
        page.reload()
    raise AssertionError(page.url)


def test_the_default_profile_is_chosen_at_first(page: Page, hub: Hub):
    """A new user who only presses Start gets the default profile, and sees that beforehand."""
    open_form(page, hub, hub.user("newcomer"))
    expect(page.get_by_label("Plain")).to_be_checked()
    expect(page.get_by_label("Plain")).to_have_accessible_description("Nothing but the base.")
    expect(page.get_by_label("Documents")).not_to_be_checked()


def test_a_profile_is_built_once_and_then_ready(page: Page, hub: Hub, pictures: Path | None):
    """A new user watches a profile being built and works with it; for the next user it starts at once."""
    first = hub.user("first")
    open_form(page, hub, first)
    expect(card(page, "Documents")).to_contain_text("Builds first")
    expect(card(page, "Documents")).to_contain_text("python-docx, six, xlsxwriter")
    page.get_by_label("Documents").check()
    expect(page.locator("#prebuilt-outlook")).to_have_text("Builds first.")
    picture(page, "form", pictures)
    start(page)
    page.wait_for_url("**/spawn-pending/**")
    expect(page.locator("#progress-message")).to_contain_text("built first")
    expect(page.locator("#progress-message")).to_contain_text("adds 3 packages")
    picture(page, "pending", pictures)
    works_in_lab(page, first)
    assert hub.python(first, "import docx, xlsxwriter; print('both')") == "both"
    builds = len(hub.ledger("SELECT id FROM builds"))
    page.context.clear_cookies()
    second = hub.user("second")
    open_form(page, hub, second)
    expect(card(page, "Documents")).to_contain_text("Ready")
    page.get_by_label("Documents").check()
    expect(page.locator("#prebuilt-outlook")).to_have_text("Starts at once.")
    start(page)
    works_in_lab(page, second)
    assert len(hub.ledger("SELECT id FROM builds")) == builds


def test_a_messy_paste_is_told_about_mended_and_remembered(page: Page, hub: Hub, pictures: Path | None):
    """A pasted install line becomes chips; a name that does not exist is told about beside the list, with the one that
    was meant; after the start and a stop the list is there."""
    user = hub.user("messy")
    open_form(page, hub, user)
    box = page.get_by_label("Packages", exact=True)
    box.focus()
    page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.setData("text/plain", "%pip install -U 'attrs >= 23' ,sixx  # for later\\n");
          const paste = new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true});
          document.activeElement.dispatchEvent(paste);
        }"""
    )
    assert chips(page) == ["attrs>=23", "sixx"]
    start(page)
    back_to_form(page, fails(page))
    assert chips(page) == ["attrs>=23", "sixx"]
    reason = page.locator("#prebuilt-packages-reason")
    expect(reason).to_contain_text("sixx is not in the package index. Did you mean six?")
    expect(page.locator(".prebuilt-wrong")).to_have_count(1)
    picture(page, "mistake", pictures)
    page.get_by_role("button", name="Remove sixx").click()
    box.fill("six")
    start(page)
    works_in_lab(page, user)
    assert hub.python(user, "import attr, six; print('both')") == "both"
    hub.stop_server(user)
    page.goto(f"{hub.url}/hub/spawn")
    assert chips(page) == ["attrs>=23", "six"]
    expect(page.locator("#prebuilt-outlook")).to_have_text("Starts at once.")
    expect(page.locator(".prebuilt-recent")).to_contain_text("attrs>=23, six")


def test_a_failure_comes_back_with_reason_and_text(page: Page, hub: Hub):
    """The form says why, with what was entered, and says it again when it is loaded anew."""
    user = hub.user("failing")
    open_form(page, hub, user)
    page.get_by_label("Documents").check()
    page.get_by_role("button", name="Edit as text").click()
    page.get_by_label("Packages", exact=True).fill("six\n-e .")
    start(page)
    for _ in range(2):
        expect(page.locator("#prebuilt-packages-reason")).to_contain_text("'-e .'")
        expect(page.get_by_label("Documents")).to_be_checked()
        assert chips(page) == ["six", "-e ."]
        page.goto(f"{hub.url}/hub/spawn")
    assert not hub.runs(user)


def test_mistakes_are_marked_as_they_are_typed(page: Page, hub: Hub):
    """In the server's words, and what it is sure to refuse is not sent."""
    open_form(page, hub, hub.user("typing"))
    box = page.get_by_label("Packages", exact=True)
    for text in ("six", "Six", "../evil"):
        box.fill(text)
        box.press("Enter")
    expect(page.locator(".prebuilt-wrong")).to_have_count(2)
    expect(page.locator("#prebuilt-packages-section")).to_contain_text("'../evil' is a file or a folder.")
    start(page)
    assert page.url.endswith("/hub/spawn")
    page.get_by_role("button", name="Remove ../evil").click()
    expect(page.locator(".prebuilt-wrong")).to_have_count(1)


def test_what_is_typed_is_not_lost_when_something_is_clicked(page: Page, hub: Hub):
    """Removing or changing a package, or switching to text, takes what is in the box along; in text too mistakes are
    shown, and a text that is too long."""
    open_form(page, hub, hub.user("clicking"))
    box = page.get_by_label("Packages", exact=True)
    box.fill("six,")
    box.press_sequentially("attrs")
    page.get_by_role("button", name="Remove six").click()
    expect(box).to_have_value("attrs")
    box.press("Enter")
    box.press_sequentially("six")
    page.get_by_role("list", name="Packages in the list").get_by_title("Change").first.click()
    assert chips(page) == ["six"]
    expect(box).to_have_value("attrs")
    page.get_by_role("button", name="Edit as text").click()
    expect(box).to_have_value("six\nattrs")
    box.fill("six\n../evil")
    expect(page.get_by_text("'../evil' is a file or a folder.")).to_be_visible()
    box.fill("six " * 1001)
    expect(page.get_by_text("at most 1,000 are read")).to_be_visible()
    box.fill("six")
    page.get_by_role("button", name="Edit as chips").click()
    assert chips(page) == ["six"]


def test_a_profile_without_packages_starts_whatever_is_in_its_hidden_box(page: Page, hub: Hub):
    """Also where a mistake is in the box, and where a link has put something there."""
    user = hub.user("hidden")
    open_form(page, hub, user)
    box = page.get_by_label("Packages", exact=True)
    box.fill("../evil")
    box.press("Enter")
    page.get_by_label("Closed").check()
    start(page)
    page.wait_for_url(f"**/{user}/**")
    expect(page.locator(".spawn-error-msg")).to_have_count(0)


def test_the_list_can_be_used_with_the_keyboard_alone(page: Page, hub: Hub):
    """Enter adds, Backspace takes back, Tab reaches each package's buttons."""
    open_form(page, hub, hub.user("keys"))
    box = page.get_by_label("Packages", exact=True)
    box.focus()
    page.keyboard.type("six,attrs>=20,<99")
    page.keyboard.press("Enter")
    assert chips(page) == ["six", "attrs>=20,<99"]
    page.keyboard.press("Backspace")
    expect(box).to_have_value("attrs>=20,<99")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("button", name="Remove attrs>=20,<99")).to_be_focused()
    page.keyboard.press("Enter")
    assert chips(page) == ["six"]


def test_everything_works_without_a_script(plain_page: Page, hub: Hub):
    """Choosing a profile, typing a list, being told of a mistake, mending it, and finding the list again."""
    page, user = plain_page, hub.user("plain")
    open_form(page, hub, user)
    page.get_by_label("Documents").check()
    box = page.get_by_label("Packages", exact=True)
    box.fill("%pip install attrs\nnot a / package")
    start(page)
    expect(page.locator("#prebuilt-packages-reason")).to_be_visible()
    expect(page.get_by_label("Documents")).to_be_checked()
    expect(box).to_have_value("%pip install attrs\nnot a / package")
    page.goto(f"{hub.url}/hub/spawn")
    expect(page.locator("#prebuilt-packages-reason")).to_be_visible()
    box.fill("%pip install attrs")
    start(page)
    _load_until(page, f"/user/{user}/")
    assert hub.python(user, "import docx, attr; print('both')") == "both"
    hub.stop_server(user)
    page.goto(f"{hub.url}/hub/spawn")
    expect(box).to_have_value("%pip install attrs")
    page.get_by_label("Plain").check()
    box.fill("")
    page.locator(".prebuilt-recent a").first.click()
    expect(page.get_by_label("Documents")).to_be_checked()
    expect(box).to_have_value("attrs")


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_form_and_pending_page_have_no_barriers(
    browser: Browser, hub: Hub, width: int, theme: str, pictures: Path | None
):
    """axe-core finds nothing, and nothing has to be scrolled sideways."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=theme)
    page = context.new_page()
    user = hub.user(f"barrier-{theme}{width}")
    open_form(page, hub, user)
    box = page.get_by_label("Packages", exact=True)
    for text in ("six>=1.16,<2", "../evil", "a-package-with-a-rather-long-name-that-does-not-fit-on-a-telephone>=1.0"):
        box.fill(text)
        box.press("Enter")
    picture(page, f"form-{theme}-{width}", pictures)
    assert violations(page, "main, .prebuilt-spawner") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="Edit as text").click()
    box.fill("no-such-package-of-the-tests\nsix")
    start(page)
    failed_on = fails(page)
    if failed_on == "pending":
        picture(page, f"failed-{theme}-{width}", pictures)
        assert violations(page, ".container:has(#progress-bar)") == []
    back_to_form(page, failed_on)
    picture(page, f"reason-{theme}-{width}", pictures)
    assert violations(page, ".prebuilt-spawner") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_the_form_asks_no_other_host(page: Page, hub: Hub):
    """Everything comes from the hub."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_form(page, hub, hub.user("hosts"))
    assert [url for url in asked if not url.startswith((f"{hub.url}/", "data:"))] == []


def test_hostile_texts_are_shown_as_text(page: Page, hub: Hub):
    """Of profiles, packages and errors, on the form and on the pages that follow."""
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    user = hub.user("hostile")
    open_form(page, hub, user)
    expect(card(page, HOSTILE)).to_contain_text(HOSTILE)
    page.get_by_role("button", name="Edit as text").click()
    page.get_by_label("Packages", exact=True).fill(HOSTILE)
    start(page)
    expect(page.locator("#prebuilt-packages-reason")).to_be_visible()
    assert "49" not in page.locator(".prebuilt-spawner").inner_text()
    assert page.locator("img[src=x]").count() == 0
    assert dialogs == []


def test_named_servers_and_other_peoples_servers_get_what_was_chosen(page: Page, hub: Hub):
    """A named server has its own list; an administrator who starts it sees and starts the user's."""
    user = hub.user("owner")
    log_in(page, hub, user, f"/hub/spawn/{user}/second")
    page.get_by_label("Packages", exact=True).fill("six")
    start(page)
    works_in_lab(page, user, "second")
    hub.stop_server(user, "second")
    page.context.clear_cookies()
    log_in(page, hub, f"{hub.run}admin", f"/hub/spawn/{user}/second")
    expect(page.get_by_text(f"Spawning server for {user}")).to_be_visible()
    assert chips(page) == ["six"]
    page.get_by_label("Packages", exact=True).fill("attrs")
    start(page)
    # The user's own page asks the administrator first whether to go in.
    page.wait_for_url(re.compile(rf"oauth2/authorize|/user/{user}/second/"), timeout=120_000)
    assert hub.python(user, "import six, attr; print('both')", name="second") == "both"


def test_where_packages_may_not_be_added_there_is_no_box(page: Page, hub: Hub):
    """Neither for a user nor for a profile, and sending some by hand is refused."""
    user = hub.user("closed")
    open_form(page, hub, user)
    assert "prebuilt-packages" not in page.locator(".prebuilt-spawner").inner_html()
    assert hub.start_server(user, {"profile": "plain", "packages": ["six"]}).status == 403
    page.context.clear_cookies()
    open_form(page, hub, hub.user("open"))
    page.get_by_label("Closed").check()
    expect(page.get_by_label("Packages", exact=True)).to_be_hidden()
    page.get_by_label("Plain").check()
    expect(page.get_by_label("Packages", exact=True)).to_be_visible()


def test_a_link_fills_in_the_form_and_starts_nothing(page: Page, hub: Hub):
    """A link with a profile and packages shows them on the form; the server starts only when the user says so."""
    user = hub.user("follower")
    open_form(page, hub, user, "?opt-profile=documents&opt-packages=attrs")
    expect(page.get_by_text("This link has filled in the form")).to_be_visible()
    expect(page.locator(".spawn-error-msg")).to_have_count(0)
    expect(page.get_by_label("Documents")).to_be_checked()
    assert chips(page) == ["attrs"]
    assert not hub.runs(user)
