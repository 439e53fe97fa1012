"""The worker process and what is said to it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from prebuilt_spawner.errors import PrebuiltError, StorageFailure, UnbuildableEnvironment
from prebuilt_spawner.image.fragment import installed_from_json
from prebuilt_spawner.image.worker import answer
from prebuilt_spawner.image.worker_protocol import (
    Answer,
    InstallJob,
    decode_answer,
    decode_job,
    encode_answer,
    encode_job,
    job_for,
    raise_for,
    worker_command,
)

from .wheels import installed_wheel, make_probe, make_wheel


def job_of(wheel: Path, folder: Path) -> InstallJob:
    """A job whose results go into this folder."""
    return job_for(
        wheel=wheel, wheel_sha256="0" * 64, probe=make_probe(), body=folder / "body.tar", index=folder / "index.json"
    )


def test_jobs_and_answers_survive_the_way(tmp_path: Path) -> None:
    """What is encoded, on one line, is decoded as it was."""
    job = job_of(tmp_path / "a\nb-ü.whl", tmp_path)
    assert encode_job(job).count(b"\n") == 1
    assert decode_job(encode_job(job)) == job
    for outcome in ("unbuildable", "storage", "internal"):
        said = Answer(outcome=outcome, message="two\nlines", detail="ü")  # type: ignore[arg-type]
        assert encode_answer(said).count(b"\n") == 1
        assert decode_answer(encode_answer(said)) == said
    assert decode_answer(encode_answer(Answer(outcome="done"))) == Answer(outcome="done")


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"Killed\n", b"[]", b"{}", b'{"ok": false}', b'{"ok": 1}', b'{"ok": false, "kind": "x"}']
)
def test_anything_else_than_an_answer_is_our_own_failure(line: bytes) -> None:
    """A worker that died or babbles has failed, whatever it said; the user is not shown it."""
    said = decode_answer(line)
    assert said.outcome == "internal"
    assert "Killed" not in said.message


@pytest.mark.parametrize(
    ("outcome", "error"),
    [("unbuildable", UnbuildableEnvironment), ("storage", StorageFailure), ("internal", PrebuiltError)],
)
def test_failures_become_the_errors_that_callers_know(outcome: str, error: type[PrebuiltError]) -> None:
    """Whose fault it was decides the class; message and detail are kept."""
    with pytest.raises(error, match="why") as caught:
        raise_for(Answer(outcome=outcome, message="why", detail="more"))  # type: ignore[arg-type]
    assert type(caught.value) is error
    assert caught.value.detail == "more"
    raise_for(Answer(outcome="done"))


def test_a_worker_answers_job_after_job(tmp_path: Path) -> None:
    """Good and bad jobs in one process: an answer for each, in order; it ends when its input ends, and is niced."""
    good = make_wheel(tmp_path, {"demo.py": b"x"})
    bad = tmp_path / "bad_pkg-1.0-py3-none-any.whl"
    bad.write_bytes(b"nothing")
    missing = tmp_path / "missing_pkg-1.0-py3-none-any.whl"
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder in folders:
        folder.mkdir()
    jobs = [encode_job(job_of(wheel, folder)) for wheel, folder in zip((good, bad, missing), folders, strict=True)]
    done = subprocess.run(worker_command(), input=b"".join([*jobs, b"junk\n"]), capture_output=True, check=True)
    said = [decode_answer(line) for line in done.stdout.splitlines()]
    assert [one.outcome for one in said] == ["done", "unbuildable", "internal", "internal"]
    assert "bad_pkg" in said[1].message
    assert "Traceback" in said[2].detail
    assert "Traceback" not in said[2].message
    assert str(tmp_path) not in said[1].message + said[2].message
    found = installed_from_json((folders[0] / "index.json").read_bytes(), body=folders[0] / "body.tar")
    expected = installed_wheel(good, tmp_path)
    assert found == replace(
        expected, body=found.body, files=tuple(replace(file, body=found.body) for file in expected.files)
    )
    assert found.body.read_bytes() == expected.body.read_bytes()
    assert list(folders[1].iterdir()) == []


def test_what_libraries_print_is_not_taken_for_answers(tmp_path: Path) -> None:
    """Standard output of the process belongs to the protocol alone."""
    wheel = make_wheel(tmp_path, {"demo.py": b"x"})
    program = (
        "import prebuilt_spawner.image.worker as worker\n"
        "install = worker.install_wheel\n"
        "worker.install_wheel = lambda *args, **options: (print('babble'), install(*args, **options))[1]\n"
        "worker.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=encode_job(job_of(wheel, tmp_path)), capture_output=True, check=True
    )
    assert done.stdout == encode_answer(Answer(outcome="done"))


def test_a_worker_that_is_interrupted_leaves_no_traceback() -> None:
    """A hub that goes away takes its workers along quietly."""
    process = subprocess.Popen(worker_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"junk\n")
    process.stdin.flush()
    assert b'"internal"' in process.stdout.readline()  # it runs
    assert os.getpriority(os.PRIO_PROCESS, process.pid) >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)
    process.send_signal(2)
    _, errors = process.communicate()
    assert errors == b""


@pytest.mark.parametrize("number", [28, 122, 30], ids=["ENOSPC", "EDQUOT", "EROFS"])
def test_a_full_disk_is_the_administrators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """No space, no quota, read-only: the disk's fault, and the message says so without a path."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    said = answer(encode_job(job_of(make_wheel(tmp_path, {"demo.py": b"x"}), tmp_path)))
    assert said.outcome == "storage"
    assert str(tmp_path) not in said.message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_fills_up_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error at the last flush is found too, and the temporary file goes."""

    def full(*_: object, **__: object) -> tuple[int, str]:
        (tmp_path / "temporary").touch()
        return os.open("/dev/full", os.O_WRONLY), str(tmp_path / "temporary")

    monkeypatch.setattr("tempfile.mkstemp", full)
    wheel = make_wheel(tmp_path, {"demo.py": b"x"})
    assert answer(encode_job(job_of(wheel, tmp_path))).outcome == "storage"
    assert sorted(path.name for path in tmp_path.iterdir()) == [wheel.name]
