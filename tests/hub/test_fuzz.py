"""Whatever is sent to the hub's handlers is started as it was read, or refused with a 4xx."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import jupyterhub
import pytest
from hypothesis import assume, example, given

from prebuilt_spawner.environment.requirements import requirement_name
from tests.fuzzing import BODIES, FORMS, fuzzed
from tests.injections import ALL, FORGED

from .doubles import ADMIN_TOKEN, REPOSITORY, Browser, Hub, run_hub

CANONICAL = re.compile(r"[a-z0-9][a-z0-9-]*(?:\[[a-z0-9,-]+\])?[<>=!~A-Za-z0-9._+!*,-]*(?:; [\x20-\x7e]+)?")
IMAGE = re.compile(re.escape(REPOSITORY) + ":[0-9a-f]{64}")
DENIED = {"torch": "not here", "acme-*": ""}
SETTINGS = {
    "denied_packages": DENIED,
    "max_packages": 3,
    "allowed_images": {"Big": "example/big:2"},
    "profile_list": [
        {"display_name": "Plain", "slug": "plain"},
        {"display_name": "Maths", "slug": "maths", "packages": ["numpy"]},
    ],
}
PARTS = ("<script>alert", "<img src=x", "<svg onload", "</textarea><scr")
"""What of the injections would be a part of the page."""


class LogLines(logging.Handler):
    """Every line that the log has got."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += record.getMessage().splitlines()


class Target:
    """A hub that runs while synchronous tests send it things."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self._running = asynccontextmanager(run_hub)(settings=SETTINGS)
        self.hub: Hub = self.run(self._running.__aenter__())
        self.log = LogLines()
        self.hub.app.log.addHandler(self.log)
        self.run(self.hub.call("POST", "/users/ada"))
        self.browser: Browser = self.run(self.hub.log_in("ada"))
        self.run(self.browser.get("/spawn"))

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.hub.app.log.removeHandler(self.log)
        self.run(self._running.__aexit__(None, None, None))
        self.run(self.loop.shutdown_asyncgens())
        self.loop.close()
        asyncio.set_event_loop(None)

    async def post_body(self, body: bytes) -> tuple[int, str]:
        url = f"{self.hub.api}/users/ada/server"
        async with self.hub.session.post(url, data=body, headers={"Authorization": f"token {ADMIN_TOKEN}"}) as answer:
            return answer.status, await answer.text()

    async def post_form(self, fields: Mapping[str, str]) -> tuple[int, str]:
        session = self.browser.session
        xsrf = next(cookie.value for cookie in session.cookie_jar if cookie.key == "_xsrf")
        url = f"{self.hub.pages}/spawn/ada?_xsrf={xsrf}"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        async with session.post(url, data=urlencode(fields), headers=headers, allow_redirects=False) as answer:
            return answer.status, await answer.text()

    def check(self, status: int, text: str) -> None:
        """What the answer says, and what has come of it; ends the server."""
        manager, docker = self.hub.manager, self.hub.docker
        assert 200 <= status < 500, text
        if status >= 400:
            assert docker.containers == {}
            assert manager.requests == []
        for request in manager.requests:
            names = {requirement_name(requirement) for requirement in request.own_requirements}
            assert len(names) <= 3
            assert not any(name == "torch" or name.startswith("acme-") for name in names)
            assert all(map(CANONICAL.fullmatch, request.requirements)), request.requirements
            assert request.base in ("example/base:1", "example/big:2")
            assert request.policy is not None
        for container in docker.containers.values():
            created = container["created"]
            assert IMAGE.fullmatch(container["Config"]["Image"])
            assert FORGED not in repr({key: created[key] for key in created if key != "environment"})
            assert FORGED not in repr(sorted(created["environment"].items()))
        assert not [line for line in self.log.lines if line.startswith(("CRITICAL", "[C 2030"))]
        self.log.lines.clear()
        if docker.containers:
            self.run(self.hub.stop("ada"))
            docker.containers.clear()
        manager.requests.clear()


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    target = Target()
    yield target
    target.close()


@fuzzed(usually=150, long=10_000)
@given(BODIES)
@example(b"[]")
@example(b'"six"')
@example(b"null")
@example(b"{")
@example(b'{"user_options": []}')
@example(b'{"packages": ["\\ud800"]}')
def test_every_body_starts_what_was_read_or_is_refused(target: Target, body: bytes) -> None:
    # JupyterHub 5 itself answers what is no UTF-8 with a 500, and hands us nothing of it.
    assume(jupyterhub.version_info[0] >= 6 or body.decode(errors="replace").encode() == body)
    status, text = target.run(target.post_body(body))
    target.check(status, text)


@fuzzed(usually=100, long=5_000)
@given(FORMS)
def test_every_form_starts_what_was_read_or_is_shown_again(target: Target, fields: dict[str, str]) -> None:
    """What was entered is shown as text, and never as a part of the page."""
    status, text = target.run(target.post_form(fields))
    assert not any(part in text for part in PARTS)
    target.check(status, text)


@pytest.mark.parametrize("text", [text for text in ALL if text.encode("utf-8", "replace").decode() == text])
def test_no_injection_gets_anywhere(target: Target, text: str) -> None:
    """By a form and as a link, which starts nothing."""
    status, page = target.run(target.post_form({"packages": text, "profile": "plain"}))
    assert not any(part in page for part in PARTS)
    target.check(status, page)
    link = target.run(target.browser.get("/spawn/ada?" + urlencode({"opt-packages": text, "opt-profile": text})))
    assert link.status == 200
    assert target.hub.docker.containers == {}
    assert not any(part in link.text for part in PARTS)
