"""Where users read why their server did not start: each real failure in each place of a real JupyterHub."""

from __future__ import annotations

import asyncio
import html
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.failures import FAILURES, FailureCase, FailureWorld

from .doubles import ADMIN_TOKEN, Hub, field_value


def last_event(stream: str) -> Any:
    """The last event of a progress stream."""
    return json.loads([line for line in stream.splitlines() if line.startswith("data:")][-1].removeprefix("data:"))


async def failed_later(hub: Hub, user: str) -> str:
    """The whole progress stream of a start that JupyterHub has answered with 202 before it fails."""
    hub.app.tornado_application.settings["slow_spawn_timeout"] = 0
    hub.manager.gate = asyncio.Event()
    assert (await hub.start(user, {"packages": ["six"]})).status == 202
    headers = {"Authorization": f"token {ADMIN_TOKEN}"}
    async with hub.session.get(f"{hub.api}/users/{user}/server/progress", headers=headers) as viewer:
        seen = b""
        while b"Finding versions" not in seen:
            seen += await viewer.content.readany()
            assert not viewer.content.at_eof(), seen
        hub.manager.gate.set()
        return (await viewer.read()).decode()


@pytest.mark.parametrize("case", FAILURES.values(), ids=FAILURES)
async def test_the_sentence_is_in_every_place_and_nothing_else_is(
    hub: Hub,
    case: FailureCase,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the REST answer, on the form, in the progress of a start that fails later, and on its page after a reload;
    what is for the administrator is in the log alone, with the build's number and the cause."""
    async with FailureWorld(tmp_path) as world:
        error = hub.manager.error = await case.happen(world)
    error.detail += " detail-for-the-log"
    error.build_id = 170_017
    # JupyterHub 5's logger does not propagate.
    monkeypatch.setattr(hub.app.log, "handlers", [*hub.app.log.handlers, caplog.handler])

    rest = await hub.start("rest", {"packages": ["six"]})
    assert (rest.status, rest.message) == (case.status, error.message)

    browser = await hub.log_in("form")
    await browser.get("/spawn")
    form = await browser.post("/spawn", {"packages": "six"})
    assert form.status == case.status
    assert error.message in html.unescape(form.text)
    assert field_value(form.text, "packages") == "six"

    progress = await failed_later(hub, "page")
    event = last_event(progress)
    assert event["failed"] is True
    assert event["message"] == f"Spawn failed: {error.message}"
    assert html.unescape(event["html_message"]) == error.message

    page = await hub.log_in("page")
    for _ in range(2):
        reloaded = await page.get("/spawn-pending/page")
        assert error.message in html.unescape(reloaded.text)

    shown = (rest.text, form.text, progress, reloaded.text)
    assert [
        text
        for text in shown
        if any(word in text for word in ("detail-for-the-log", "170017", "Traceback", str(tmp_path)))
    ] == []
    for user in ("rest", "form", "page"):
        begin = f"while preparing the environment of {user} (build 170017, {error.cause}): {error.message}"
        # The same record may come twice: JupyterHub 6's logger does propagate.
        (record,) = {record for record in caplog.records if begin in record.getMessage()}
        assert record.getMessage().endswith("detail-for-the-log")
        assert record.levelno == (logging.ERROR if case.status >= 500 else logging.INFO)
