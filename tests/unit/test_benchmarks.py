"""The measurements cannot lie: what a contestant did not do, or what it took from another, is reported as invalid."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import mirror
from benchmarks.checks import flaw_of_downloads, flaw_of_report
from benchmarks.results import OURS, Row, Run, Sample, Target, markdown
from benchmarks.workloads import class_requests, draw_class
from prebuilt_spawner.environment.lock import Lock, LockedWheel


def wheel(name: str) -> LockedWheel:
    return LockedWheel(
        name=name,
        version="1.0",
        filename=f"{name}-1.0-py3-none-any.whl",
        url=f"https://example.org/{name}",
        sha256=name[0] * 64,
        size_bytes=1000,
    )


LOCK = Lock(wheels=(wheel("amber"), wheel("brass")))
REPORT = {
    "found": {"amber": "1.0", "brass": "1.0"},
    "imported": ["amber", "brass"],
    "failures": {},
    "sources": 100,
    "compiled": 100,
    "pip_check": ["whatever is wrong with the base"],
}


def flaw(*, bytecode: bool = True, **changes: object) -> str:
    usual = ["whatever is wrong with the base"]
    return flaw_of_report({**REPORT, **changes}, LOCK, bytecode=bytecode, usual_lines=usual)


def test_an_image_that_has_everything_is_valid():
    """Also where the base itself does not pass `pip check`."""
    assert flaw() == ""


def test_an_image_that_lacks_a_package_is_invalid():
    assert flaw(found={"amber": "1.0"}) == "brass 1.0 is not in it"


def test_an_image_with_another_version_is_invalid():
    assert flaw(found={"amber": "1.0", "brass": "2.0"}) == "brass is 2.0 instead of 1.0"


def test_an_image_in_which_something_cannot_be_imported_is_invalid():
    assert "cannot be imported" in flaw(failures={"brass": "ImportError: no"})
    assert flaw(imported=[]) == "nothing of it can be imported"


def test_an_image_that_pip_finds_broken_is_invalid():
    assert flaw(pip_check=["amber requires copper, which is not installed."]).startswith("pip check: amber")


def test_an_image_with_other_bytecode_than_was_agreed_is_invalid():
    assert "have bytecode" in flaw(compiled=50)
    assert "none should" in flaw(bytecode=False)
    assert flaw(bytecode=False, compiled=0) == ""


def test_a_contestant_that_took_anothers_cache_is_invalid():
    """What it was not sent by its own index, it had from somewhere else."""
    served = {"amber-1.0-py3-none-any.whl": 1000, "brass-1.0-py3-none-any.whl": 1000}
    assert flaw_of_downloads(served, LOCK, warm=()) == ""
    del served["brass-1.0-py3-none-any.whl"]
    assert "brass-1.0-py3-none-any.whl did not come from its index" in flaw_of_downloads(served, LOCK, warm=())
    # Metadata that is read out of the archive is not the archive.
    served["brass-1.0-py3-none-any.whl"] = 100
    assert "brass-1.0" in flaw_of_downloads(served, LOCK, warm=())


def test_a_contestant_that_was_not_as_warm_as_is_said_is_invalid():
    warm = {"a" * 64}
    assert flaw_of_downloads({"brass-1.0-py3-none-any.whl": 1000}, LOCK, warm=warm) == ""
    assert "amber-1.0-py3-none-any.whl was fetched again" in flaw_of_downloads(
        {"amber-1.0-py3-none-any.whl": 1000, "brass-1.0-py3-none-any.whl": 1000}, LOCK, warm=warm
    )


def test_one_invalid_measurement_takes_the_contestants_result_away():
    """In the table it is invalid, with the reason, and no target counts as met by it."""
    row = Row(key="B2", title="W1", state="Cold.", targets=(Target(against="pip", at_most=0.5),))
    for sample in (Sample(value=1.0), Sample(value=0.1, flaw="brass 1.0 is not in it")):
        row.add(OURS, sample)
    row.add("pip", Sample(value=10.0))
    assert row.median(OURS) is None
    assert row.reached(row.targets[0]) is None
    text = markdown(Run(machine={}, load_before=0, rows=[row]))
    assert "| invalid |" in text
    assert "ours is invalid: brass 1.0 is not in it" in text
    assert "yes" not in text


def test_a_target_is_met_by_the_ratio_of_medians():
    row = Row(key="B2", title="W1", state="Cold.", store="overlay2", targets=(Target(against="pip", at_most=0.5),))
    for value in (1.0, 2.0, 9.0):
        row.add(OURS, Sample(value=value, disk_bytes=int(value)))
        row.add("pip", Sample(value=2 * value, disk_bytes=10))
    assert row.reached(row.targets[0]) == (0.5, True)
    assert row.reached(Target(against="pip", at_most=0.1)) == (0.5, False)
    assert row.reached(Target(against="pip", at_most=0.1, of="disk ratio")) == (0.2, False)
    assert row.reached(Target(against="", at_most=2.0, of="value")) == (2.0, True)
    assert json.dumps(Run(machine={}, load_before=0, rows=[row]).as_json())


def test_the_class_in_the_repository_is_the_one_that_its_seed_draws():
    assert class_requests() == draw_class()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[mirror.Mirror]:
    """A mirror that has a page and a wheel already, of an index that does not answer."""
    sha256 = "a" * 64
    page = {"name": "amber", "files": [{"filename": "amber-1.0-py3-none-any.whl", "hashes": {"sha256": sha256}}]}
    page["files"][0]["url"] = "nowhere"
    for path, content in {
        "pages/amber.json": json.dumps(page).encode(),
        f"files/aa/{sha256}/amber-1.0-py3-none-any.whl": b"x" * 1000,
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    monkeypatch.setattr(mirror, "usual_index", lambda: "http://127.0.0.1:9/simple")
    with mirror.Mirror(tmp_path) as index:
        yield index


def get(url: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*url.removeprefix("http://").partition("/")[0].split(":"), timeout=20)
    try:
        connection.request("GET", "/" + url.removeprefix("http://").partition("/")[2])
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_index_knows_what_it_sent_to_whom(index: mirror.Mirror):
    """Each contestant is sent the same file under its own address, and only its own account says so."""
    status, page = get(f"{index.index_url('one')}amber/")
    url = json.loads(page)["files"][0]["url"]
    assert status == 200
    assert "/fast/one/" in url
    assert get(url) == (200, b"x" * 1000)
    assert index.served("other") == {}
    assert index.served("one") == {"amber-1.0-py3-none-any.whl": 1000}
    assert index.served("one") == {}, "since it was asked last"


def test_the_index_fetches_nothing_once_it_is_frozen(index: mirror.Mirror):
    index.freeze()
    assert get(f"{index.index_url('one')}amber/")[0] == 200
    assert get(f"{index.index_url('one')}brass/")[0] == 404


def test_a_wheel_without_a_size_has_to_be_sent_too():
    unsized = Lock(wheels=(replace(wheel("amber"), size_bytes=None),))
    assert "did not come" in flaw_of_downloads({}, unsized, warm=())
