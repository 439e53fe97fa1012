"""What users see when a start fails, and what they never see."""

from __future__ import annotations

import asyncio
import logging

import pytest

from prebuilt_spawner import errors
from prebuilt_spawner.hub.errors import GENERIC_MESSAGE, errors_for_users

from .doubles import Hub

STATUSES = [
    (errors.MalformedRequest, 400),
    (errors.PolicyRefusal, 403),
    (errors.UnresolvableRequest, 422),
    (errors.UnbuildableEnvironment, 422),
    (errors.QueueFull, 429),
    (errors.EngineUnavailable, 503),
    (errors.EngineFailure, 503),
    (errors.BaseImageUnavailable, 503),
    (errors.IndexUnavailable, 503),
    (errors.StorageFailure, 503),
    (errors.BuildTimeout, 504),
]


async def test_every_error_has_its_status_and_its_sentence_over_rest(hub: Hub) -> None:
    """100 % of the message arrives, with its percent sign; the detail stays in the log."""
    for error, status in STATUSES:
        hub.manager.error = error("Sorry: 100 % of it <failed>.", detail="/var/secret")
        answer = await hub.start("ada", {"packages": ["six"]})
        assert answer.status == status, error
        assert answer.json == {"status": status, "message": "Sorry: 100 % of it <failed>."}


async def test_an_unexpected_exception_shows_nothing_of_itself(hub: Hub) -> None:
    """Neither over REST nor in the progress of the failed start."""
    hub.manager.error = RuntimeError("password=hunter2")
    answer = await hub.start("ada", {"packages": ["six"]})
    assert (answer.status, answer.message) == (500, GENERIC_MESSAGE)
    progress = await hub.call("GET", "/users/ada/server/progress")
    assert '"failed": true' in progress.text
    assert GENERIC_MESSAGE in progress.text
    assert "hunter2" not in progress.text


async def test_progress_ends_with_the_message_of_a_failed_start(hub: Hub) -> None:
    hub.manager.error = errors.UnresolvableRequest("There is no package <b>.")
    await hub.start("ada", {"packages": ["b"]})
    progress = await hub.call("GET", "/users/ada/server/progress")
    assert "There is no package <b>." in progress.text
    assert "There is no package &lt;b&gt;." in progress.text


async def test_the_form_shows_the_sentence_and_keeps_what_was_entered(hub: Hub) -> None:
    hub.manager.error = errors.UnresolvableRequest("There is no package <b>nope</b>.")
    browser = await hub.log_in("ada")
    await browser.get("/spawn")
    answer = await browser.post("/spawn", {"packages": "nope\n# comment"})
    assert answer.status == 422
    assert "There is no package &lt;b&gt;nope&lt;/b&gt;." in answer.text
    assert "<b>nope</b>" not in answer.text
    assert "# comment" in answer.text
    assert "SpawnRefused" not in answer.text


async def test_the_pending_page_of_a_failed_start_shows_the_sentence(hub: Hub) -> None:
    hub.manager.error = errors.QueueFull("Many builds wait. Try again in a minute.")
    await hub.start("ada")
    browser = await hub.log_in("ada")
    answer = await browser.get("/spawn-pending/ada")
    assert answer.status == 429
    assert "Many builds wait." in answer.text


async def test_users_errors_do_not_count_as_the_hubs(hub: Hub) -> None:
    """JupyterHub ends itself after so many failures in a row: five users who fail five times each do not end it."""
    hub.configure(consecutive_failure_limit=5)
    refusals = [error for error, status in STATUSES if status < 500]
    for user in ("ada", "bob", "eve", "joe", "mia"):
        for number in range(5):
            hub.manager.error = refusals[number % len(refusals)]("No.")
            assert (await hub.start(user, {"packages": ["six"]})).status < 500
        assert (await hub.start(user, {"packages": ["-e ."]})).status == 400
    assert hub.app.tornado_application.settings.get("failure_count", 0) == 0
    hub.manager.error = RuntimeError("ours")
    assert (await hub.start("ada", {"packages": ["six"]})).status == 500
    assert hub.app.tornado_application.settings["failure_count"] == 1, "what is the hub's own fault counts"


async def test_an_engine_that_is_gone_is_a_503_and_the_next_start_works(hub: Hub) -> None:
    """Also when it goes between preparing and starting; the socket's path is not shown."""
    hub.docker.down = True
    answer = await hub.start("ada", {"packages": ["six"]})
    assert answer.status == 503
    assert "engine cannot be reached" in answer.message
    assert "sock" not in answer.text
    hub.docker.down = False
    assert (await hub.start("ada")).status == 201


async def test_preparing_has_a_time_of_its_own(hub: Hub) -> None:
    """After `build_timeout` it is a 504, and the wait is given up."""
    hub.manager.gate = asyncio.Event()
    hub.configure(build_timeout=1)
    answer = await hub.start("ada", {"packages": ["six"]})
    assert answer.status == 504
    assert "1 seconds" in answer.message
    assert hub.manager.cancelled == 1


async def test_preparing_does_not_count_toward_the_start_timeout(hub: Hub) -> None:
    """JupyterHub's `start_timeout` of 1 s is shorter than what is prepared here."""
    hub.manager.gate = asyncio.Event()
    hub.configure(start_timeout=1)
    asyncio.get_running_loop().call_later(1.3, hub.manager.gate.set)
    assert (await hub.start("ada", {"packages": ["six"]})).status == 201


async def test_cancelling_a_pending_start_cancels_the_wait_and_a_new_start_works(hub: Hub) -> None:
    hub.manager.gate = asyncio.Event()
    pending = asyncio.create_task(hub.start("ada", {"packages": ["six"]}))
    await hub.manager.reached.wait()
    stopped = await hub.stop("ada")
    assert stopped.status in (202, 204)
    assert hub.manager.cancelled == 1
    # Before tornado 6.6 JupyterHub lets this request wait for its `slow_spawn_timeout`, though the start has ended.
    pending.cancel()
    await asyncio.wait([pending])
    assert hub.docker.containers == {}
    hub.manager.gate = None
    assert (await hub.start("ada")).status == 201


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt])
def test_what_ends_a_task_passes(error: type[BaseException]) -> None:
    with pytest.raises(error), errors_for_users(logging.getLogger("test"), "testing", settings={}):
        raise error
