"""What every failure is called, which package it names, and what its message holds; each made to happen."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tornado import web

from prebuilt_spawner.build.failure import Kind, failure_of
from prebuilt_spawner.errors import StorageFailure
from prebuilt_spawner.hub.errors import errors_for_users
from tests.failures import FAILURES, FailureCase, FailureWorld
from tests.messages import faults


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[FailureWorld]:
    async with FailureWorld(tmp_path) as world:
        yield world


@pytest.mark.parametrize("case", FAILURES.values(), ids=FAILURES)
async def test_a_failure_names_its_cause_its_package_and_what_to_try(world: FailureWorld, case: FailureCase) -> None:
    error = await case.happen(world)
    assert (error.cause, error.package, error.status) == (case.kind, case.package, case.status), error.message
    named = [case.package] if case.status == 422 else []
    assert [word for word in (*case.words, *named) if word not in error.message] == [], error.message
    assert failure_of(error).kind is case.kind
    # What the user typed is repeated, quoted, whatever it was; but for credentials.
    assert faults(re.sub(r"'[^']*'", "'…'", error.message) if error.cause == Kind.MALFORMED else error.message) == []
    assert str(world.folder) not in error.message
    assert "s3cret" not in error.message


# Secrets


MARKER = "s3cret-m4rker"


def everything_said(error: BaseException) -> str:
    """What a log would hold that writes an error with all that led to it, and what it carries."""
    return "".join(traceback.format_exception(error)) + repr(vars(error))


async def _in_the_url(folder: Path) -> FailureWorld:
    return FailureWorld(folder, user="me", password=MARKER)


async def _as_a_token_in_the_url(folder: Path) -> FailureWorld:
    return FailureWorld(folder, user=MARKER, password="")


async def _in_the_query(folder: Path) -> FailureWorld:
    return FailureWorld(folder, query=f"?token={MARKER}")


async def _in_netrc(folder: Path) -> FailureWorld:
    (folder / "netrc").write_text(f"machine 127.0.0.1 login me password {MARKER}\n")
    (folder / "netrc").chmod(0o600)
    return FailureWorld(folder, {"NETRC": str(folder / "netrc")})


async def _in_the_proxy(folder: Path) -> FailureWorld:
    return FailureWorld(folder, {"HTTP_PROXY": f"http://me:{MARKER}@127.0.0.1:1"})


OF_THE_INDEX = [name for name, case in FAILURES.items() if case.kind.value.startswith(("index", "hash", "file-"))]


@pytest.mark.parametrize("hidden", [_in_the_url, _as_a_token_in_the_url, _in_the_query, _in_netrc, _in_the_proxy])
async def test_no_credential_is_in_a_message_a_detail_a_traceback_or_the_log(
    hidden: Callable[[Path], Awaitable[FailureWorld]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever the credential comes from, and whatever fails."""
    caplog.set_level(logging.DEBUG, logger="prebuilt_spawner")
    for number, name in enumerate(OF_THE_INDEX):
        (tmp_path / str(number)).mkdir()
        async with await hidden(tmp_path / str(number)) as world:
            error = await FAILURES[name].happen(world)
            log = logging.getLogger("prebuilt_spawner")
            with pytest.raises(web.HTTPError), errors_for_users(log, "testing", settings={}):
                raise error
            assert MARKER not in everything_said(error), name
    assert "Error while testing" in caplog.text
    assert MARKER not in caplog.text


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB of its own."""
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    with image.open("wb") as stream:
        stream.truncate(2 * 1024**2)
    folder.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
@pytest.mark.parametrize("act", ["resolve", "download", "install"])
async def test_a_full_disk_is_said_to_be_full_and_works_again_when_there_is_room(small_disk: Path, act: str) -> None:
    content = {"alpha/random.bin": os.urandom(300_000)}
    if act == "install":  # the wheel itself fits, but not what is in it
        content["alpha/zeros.bin"] = bytes(2_500_000)
    async with FailureWorld(small_disk) as world:
        file = world.index.add_wheel("alpha", "1.0", files=content)
        filler = small_disk / "filler"
        if act != "install":
            with suppress(OSError), filler.open("wb", buffering=0) as stream:
                while True:
                    stream.write(bytes(4096))
        with pytest.raises(StorageFailure) as caught:
            await (world.resolve("alpha") if act == "resolve" else world.install(file))
        assert "disk is full" in caught.value.message
        assert faults(caught.value.message) == []
        if act != "install":
            assert caught.value.cause == Kind.DISK_FULL
            filler.unlink()
            assert await (world.resolve("alpha") if act == "resolve" else world.install(file))
