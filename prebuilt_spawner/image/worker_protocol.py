"""What the hub and a install worker say to each other: one JSON object on a line for a job, one for its answer.

Light to import: the hub uses this without what the worker needs.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

from ..environment.base import BaseProbe, InstallScheme
from ..errors import PrebuiltError, StorageFailure, UnbuildableEnvironment

Outcome = Literal["done", "unbuildable", "storage", "internal"]
_FAILURES = ("unbuildable", "storage", "internal")


@dataclass(frozen=True, kw_only=True)
class InstallJob:
    """A wheel whose files are wanted as tar entries.

    Attributes:
        wheel: The wheel on the hub's disk, under its own file name.
        wheel_sha256: 64 hex digits; checked by whoever put it there.
        scheme: Where its files go.
        interpreter: What its scripts name.
        body: Where the tar entries go.
        index: Where their index goes, last: where it is, the body is whole.
    """

    wheel: Path
    wheel_sha256: str
    scheme: InstallScheme
    interpreter: str
    body: Path
    index: Path


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a job ended.

    Attributes:
        outcome: `done`, or whose fault it was: the wheel's, the disk's or ours.
        message: For the user; "" when done.
        detail: For the log.
    """

    outcome: Outcome
    message: str = ""
    detail: str = ""


def worker_command() -> list[str]:
    """How a worker is started."""
    return [sys.executable, "-m", "prebuilt_spawner.image.worker"]


def job_for(*, wheel: Path, wheel_sha256: str, probe: BaseProbe, body: Path, index: Path) -> InstallJob:
    """The job of installing a wheel for this base."""
    return InstallJob(
        wheel=wheel,
        wheel_sha256=wheel_sha256,
        scheme=probe.scheme,
        interpreter=probe.interpreter,
        body=body,
        index=index,
    )


def encode_job(job: InstallJob) -> bytes:
    """One line, newline included."""
    document = {
        "wheel": str(job.wheel),
        "wheel_sha256": job.wheel_sha256,
        "scheme": asdict(job.scheme),
        "interpreter": job.interpreter,
        "body": str(job.body),
        "index": str(job.index),
    }
    return json.dumps(document).encode() + b"\n"


def decode_job(line: bytes) -> InstallJob:
    """The job that `encode_job` wrote.

    Raises:
        ValueError: It is not one.
    """
    try:
        document = json.loads(line)
        return InstallJob(
            wheel=Path(document["wheel"]),
            wheel_sha256=document["wheel_sha256"],
            scheme=InstallScheme(**document["scheme"]),
            interpreter=document["interpreter"],
            body=Path(document["body"]),
            index=Path(document["index"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a job: {error!r}") from error


def encode_answer(answer: Answer) -> bytes:
    """One line, newline included."""
    if answer.outcome == "done":
        return b'{"ok": true}\n'
    document = {"ok": False, "kind": answer.outcome, "message": answer.message, "detail": answer.detail}
    return json.dumps(document).encode() + b"\n"


def decode_answer(line: bytes) -> Answer:
    """The answer that `encode_answer` wrote. Anything else (a worker that died) is an `internal` failure."""
    try:
        document = json.loads(line)
        if document["ok"] is True:
            return Answer(outcome="done")
        if document["kind"] in _FAILURES:
            kind = cast("Outcome", document["kind"])
            return Answer(outcome=kind, message=str(document["message"]), detail=str(document["detail"]))
    except (ValueError, KeyError, TypeError):
        pass
    return Answer(
        outcome="internal",
        message="A package could not be prepared. Try again, and tell the administrator if it happens again.",
        detail=f"the install worker said {line[:2000]!r}",
    )


def raise_for(answer: Answer) -> None:
    """Nothing where the job is done.

    Raises:
        UnbuildableEnvironment: The wheel cannot be installed.
        StorageFailure: The hub's disk is full, or cannot be written.
        PrebuiltError: Something of ours failed.
    """
    if answer.outcome == "done":
        return
    classes: dict[str, type[PrebuiltError]] = {"unbuildable": UnbuildableEnvironment, "storage": StorageFailure}
    raise classes.get(answer.outcome, PrebuiltError)(answer.message, detail=answer.detail)
