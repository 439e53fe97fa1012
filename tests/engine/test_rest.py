"""REST as administrators and scripts use it, on every supported JupyterHub."""

from __future__ import annotations

import pytest
import requests

from .hub import READER_TOKEN, STARTER_TOKEN, TEST_LABEL, Hub, changed_base

PROFILES = """
c.PrebuiltSpawner.profile_list = [
    {"display_name": "Plain", "slug": "plain"},
    {"display_name": "Documents", "slug": "documents", "packages": ["xlsxwriter"]},
    {"display_name": "Sealed", "slug": "sealed", "packages": ["xlsxwriter"], "allow_extra_packages": False},
]
"""


@pytest.fixture(scope="module")
def profiles_hub(make_hub) -> Hub:
    hub = make_hub(settings=PROFILES)
    hub.start()
    return hub


def test_a_service_starts_another_users_servers_with_packages(hub: Hub):
    """A token with the scope `servers` starts a user's default and named server, each with its own packages."""
    user = hub.user("served")
    assert hub.start_server(user, {"packages": ["xlsxwriter"]}, token=STARTER_TOKEN).ready
    assert hub.start_server(user, {"packages": ["python-docx"]}, name="lab", token=STARTER_TOKEN).ready
    assert hub.version_in(user, "xlsxwriter")
    assert hub.version_in(user, "python-docx", name="lab")
    assert hub.execute(user, "python", "-c", "import docx")[0] != 0


def test_a_token_without_the_scope_starts_nothing(hub: Hub):
    """Without the scope `servers` the answer is 403 and no server is there."""
    user = hub.user("unserved")
    outcome = hub.start_server(user, {"packages": ["xlsxwriter"]}, token=READER_TOKEN)
    assert (outcome.status, outcome.ready) == (403, False)
    assert not hub.runs(user)


def test_an_empty_body_starts_what_was_stored(hub: Hub):
    """`{}` and no body at all start the last accepted options."""
    user = hub.user("repeater")
    assert hub.start_server(user, {"packages": ["xlsxwriter"]}).ready
    for body in ({}, None):
        hub.stop_server(user)
        assert hub.start_server(user, body=body).ready
        assert hub.version_in(user, "xlsxwriter")


def test_empty_options_start_the_base(hub: Hub):
    """`{"user_options": {}}` forgets what was stored: without profiles the server has no packages of ours."""
    user = hub.user("forgetter")
    assert hub.start_server(user, {"packages": ["xlsxwriter"]}).ready
    hub.stop_server(user)
    assert hub.start_server(user, body={"user_options": {}}).ready
    assert hub.execute(user, "python", "-c", "import xlsxwriter")[0] != 0
    assert hub.stored_options(user) == {}


def test_empty_options_start_the_default_profile(profiles_hub: Hub):
    """With profiles, `{"user_options": {}}` is the default profile, here the first."""
    user = profiles_hub.user("forgetter")
    assert profiles_hub.start_server(user, {"profile": "documents"}).ready
    profiles_hub.stop_server(user)
    assert profiles_hub.start_server(user, body={"user_options": {}}).ready
    assert profiles_hub.execute(user, "python", "-c", "import xlsxwriter")[0] != 0


def test_packages_add_to_a_profile(profiles_hub: Hub):
    """Packages are added to the profile's where that is allowed, and are a 403 where it is not."""
    user = profiles_hub.user("adder")
    assert profiles_hub.start_server(user, {"profile": "documents", "packages": ["python-docx"]}).ready
    assert profiles_hub.python(user, "import xlsxwriter, docx; print('both')") == "both"
    outcome = profiles_hub.start_server(profiles_hub.user("sealed"), {"profile": "sealed", "packages": ["python-docx"]})
    assert (outcome.status, outcome.ready) == (403, False)


def test_a_flat_body_is_taken_as_options(hub: Hub):
    """The body form of JupyterHub 5, where the body is the options, works on 6 as well."""
    user = hub.user("flat")
    assert hub.start_server(user, body={"packages": ["xlsxwriter"]}).ready
    assert hub.version_in(user, "xlsxwriter")


def test_a_wrapped_body_is_taken_as_options(hub: Hub):
    """The body form of JupyterHub 6 names a display name and the options."""
    user = hub.user("wrapped")
    body = {"display_name": "Mine", "user_options": {"packages": ["xlsxwriter"]}}
    assert hub.start_server(user, body=body, name="mine").ready
    assert hub.version_in(user, "xlsxwriter", name="mine")


BAD_PACKAGES = {
    "url": ("https://example.org/x.whl", "example.org"),
    "direct-reference": ("x @ https://example.org/x.whl", "example.org"),
    "local-path": ("./x", "./x"),
    "parent-path": ("../x", "../x"),
    "editable": ("-e .", "-e"),
    "index-option": ("--index-url=https://example.org/simple", "--index-url"),
    "requirements-file": ("-r other.txt", "-r"),
    "shell": ("x;$(reboot)", "reboot"),
    "newline": ("xlsx\nwriter", "xlsx"),
    "variable": ("${HOME}", "HOME"),
    "nul": ("xlsx\0writer", "xlsx"),
    "emoji": ("xlsx\N{SNAKE}", "xlsx"),
    "a-megabyte": ("x" * 1_000_000, "1,000,000 characters"),
}


@pytest.fixture(scope="module")
def quiet_hub(make_hub) -> Hub:
    """A hub on which nothing is ever resolved or built."""
    hub = make_hub(settings=PROFILES)
    hub.start()
    return hub


def _refused(hub: Hub, user: str, options: dict, offender: str) -> None:
    outcome = hub.start_server(user, options)
    assert outcome.status == 400, outcome
    assert offender in outcome.message, outcome.message
    assert len(outcome.message) < 600
    assert not hub.runs(user)
    assert "Resolving " not in hub.log()
    assert "Building " not in hub.log()


@pytest.mark.parametrize("case", BAD_PACKAGES)
@pytest.mark.parametrize("form", ["list", "text"])
def test_a_bad_requirement_is_a_400_that_names_it(quiet_hub: Hub, case: str, form: str):
    """Each is refused before anything is resolved, in a list and in text."""
    text, offender = BAD_PACKAGES[case]
    if (case, form) == ("newline", "text"):
        pytest.skip("in text a newline ends a requirement")
    user = quiet_hub.user("bad")
    _refused(quiet_hub, user, {"packages": [text] if form == "list" else text}, offender)


@pytest.mark.parametrize(
    ("options", "offender"),
    [
        ({"packages": [f"name{number}" for number in range(10_000)]}, "10"),
        ({"packages": 7}, "packages"),
        ({"packages": {"xlsxwriter": "*"}}, "packages"),
        ({"packages": [["xlsxwriter"]]}, "package list"),
        ({"package": ["xlsxwriter"]}, "package"),
        ({"profile": "no-such-profile"}, "no-such-profile"),
        ({"profile": ["plain"]}, "profile"),
        ({"image": "somebody/else:1"}, "somebody/else:1"),
        ({"refresh": "yes"}, "refresh"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_bad_options_are_a_400_that_names_them(quiet_hub: Hub, options: dict, offender: str):
    """Wrong types, unknown keys, unknown profiles and foreign images are refused before anything is resolved."""
    _refused(quiet_hub, quiet_hub.user("bad"), options, offender)


@pytest.fixture(scope="module")
def open_hub(make_hub, light_base: str) -> Hub:
    """One on which users may choose any image as their base."""
    hub = make_hub(base=light_base, settings='c.PrebuiltSpawner.allowed_images = "*"\n')
    hub.start()
    return hub


def test_nobody_starts_anothers_derived_image_by_name(hub: Hub, open_hub: Hub):
    """A derived image is no base under any name, tag or ID that the engine knows it by, whatever `allowed_images`
    admits."""
    owner = hub.user("owner")
    assert hub.start_server(owner, {"packages": ["xlsxwriter"]}).ready
    tag, image_id = hub.tag(owner), hub.image(owner)["Id"]
    other = f"{hub.repository}-other"
    hub.client.tag(image_id, other, "1")
    short = image_id.removeprefix("sha256:")[:12]
    names = (tag, f"docker.io/{tag}", f"{tag} ", image_id, image_id.removeprefix("sha256:"), short, f"sha256:{short}")
    for image in (*names, f"{hub.repository}@{image_id}", f"{other}:1"):
        for one in (hub, open_hub):
            outcome = one.start_server(one.user("thief"), {"image": image})
            assert (outcome.status, outcome.ready) == (400, False), (image, outcome)


def test_a_base_that_was_published_as_one_of_ours_is_refused(open_hub: Hub):
    """Labels that its publisher forged do not get an image in: neither as a base, nor as an environment."""
    name = f"{open_hub.repository}-forged:1"
    forged = {"prebuilt_spawner.digest": "a" * 64, "prebuilt_spawner.base_digest": "b" * 64, TEST_LABEL: open_hub.run}
    changed_base(open_hub.client, open_hub.base, name, "true", open_hub.run, changes={"Labels": forged})
    for options in ({"image": name}, {"image": name, "packages": ["xlsxwriter"]}):
        outcome = open_hub.start_server(open_hub.user("believer"), options)
        assert (outcome.status, outcome.ready) == (400, False), outcome
        assert "prepared environment" in outcome.message


def test_a_refused_request_leaves_the_stored_options(hub: Hub):
    """After a 400 a plain start has the packages of the last accepted request."""
    user = hub.user("keeper")
    assert hub.start_server(user, {"packages": ["xlsxwriter"]}).ready
    hub.stop_server(user)
    assert hub.start_server(user, {"packages": ["-e ."]}).status == 400
    assert hub.stored_options(user) == {"packages": ["xlsxwriter"]}
    assert hub.start_server(user, body={}).ready
    assert hub.version_in(user, "xlsxwriter")


@pytest.mark.parametrize("query", ["packages=xlsxwriter", "opt-packages=xlsxwriter", "profile=documents"])
def test_a_link_starts_nothing(profiles_hub: Hub, query: str):
    """A link that another site makes a logged-in browser follow starts no server."""
    user = profiles_hub.user("linked")
    browser = requests.Session()
    login = browser.get(f"{profiles_hub.url}/hub/login")
    assert login.ok
    answer = browser.post(
        f"{profiles_hub.url}/hub/login",
        data={"username": user, "password": "password-of-the-tests", "_xsrf": browser.cookies["_xsrf"]},
        allow_redirects=False,
    )
    assert answer.status_code == 302, answer.text
    answer = browser.get(
        f"{profiles_hub.url}/hub/spawn?{query}",
        headers={"Referer": "https://elsewhere.example/", "Sec-Fetch-Site": "cross-site"},
    )
    assert "spawn-pending" not in answer.url
    assert not profiles_hub.runs(user)
    assert not profiles_hub.stored_options(user)
