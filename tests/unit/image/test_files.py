"""Our own files in an image."""

from typing import Any

import pytest

from prebuilt_spawner.environment.lock import Lock, LockedSource, built_wheel, parse_pylock
from prebuilt_spawner.image import files

from .wheels import make_base, make_distribution, make_lock, make_probe

SHARE = "usr/local/share/prebuilt-spawner"
NOTICE = "opt/env/lib/python3.11/EXTERNALLY-MANAGED"
TRY = f"{SHARE}/bin/prebuilt-try"


def own_files(**changes: Any) -> dict[str, bytes]:
    """Our files on a base that says `User: jovyan`; mutable ones are asked for by name."""
    return files.own_files(**{"base": make_base(), "immutable": True, "version": "1", **changes})


def test_only_immutable_images_bring_files_for_sessions() -> None:
    """The others have the lock and the Dockerfile, and nothing else of ours."""
    both = {f"{SHARE}/pylock.toml", f"{SHARE}/Dockerfile"}
    found = own_files(lock=make_lock("demo"), probe=make_probe())
    assert own_files(lock=make_lock("demo"), probe=make_probe(), immutable=False).keys() == both
    assert {NOTICE, TRY, f"{SHARE}/pip-advice", f"{SHARE}/notice.txt"} < found.keys()


def test_the_lock_can_be_read_back() -> None:
    """pylock.toml has the wheels of the image."""
    lock = make_lock("demo", "other")
    text = own_files(lock=lock, probe=make_probe(), immutable=False)[f"{SHARE}/pylock.toml"].decode()
    assert parse_pylock(text, make_probe()) == lock


def test_the_dockerfile_needs_a_base_and_keeps_its_user() -> None:
    """`ARG BASE`, an installation as root with the base's interpreter, the base's user last, and the base's digest."""
    probe = make_probe(make_distribution("pip", "pip/__init__.py"), interpreter="/opt/my env/bin/python3")
    lines = own_files(lock=make_lock("demo"), probe=probe)[f"{SHARE}/Dockerfile"].decode().splitlines()
    instructions = [line for line in lines if line and not line.startswith(("#", " "))]
    assert [line.split()[0] for line in instructions] == ["ARG", "FROM", "USER", "COPY", "RUN", "ENV", "USER"]
    assert instructions[0] == "ARG BASE"
    assert instructions[1] == "FROM ${BASE}"
    assert instructions[-1] == "USER jovyan"
    assert "'/opt/my env/bin/python3' -m pip" in instructions[4]
    assert any("b" * 64 in line for line in lines if line.startswith("#"))


def test_the_dockerfile_says_what_it_builds_from_source() -> None:
    """And nothing of the kind where there is nothing to build."""
    wheel = make_lock("demo").wheels[0]
    source = LockedSource(
        name="demo", version="1.0", filename="demo-1.0.tar.gz", url=wheel.url, sha256="a" * 64, base_digest="b" * 64
    )
    lock = Lock(wheels=(built_wheel(source, filename=wheel.filename, size_bytes=1),))
    dockerfile = own_files(lock=lock, probe=make_probe())[f"{SHARE}/Dockerfile"].decode()
    comments = [line for line in dockerfile.splitlines() if line.startswith("#")]
    assert any(line.endswith("demo==1.0") for line in comments)
    assert b"source" not in own_files(lock=make_lock("demo"), probe=make_probe())[f"{SHARE}/Dockerfile"]


def test_a_base_with_uv_alone_installs_with_uv() -> None:
    """uv reads locks by itself."""
    probe = make_probe(make_distribution("uv", "uv/__init__.py"))
    dockerfile = own_files(lock=make_lock("demo"), probe=probe)[f"{SHARE}/Dockerfile"]
    assert b"RUN uv pip install" in dockerfile
    assert b"-m pip" not in dockerfile


def test_an_empty_lock_installs_nothing() -> None:
    """The environment of the empty lock is the base: its Dockerfile only brings the lock."""
    dockerfile = own_files(lock=make_lock(), probe=make_probe())[f"{SHARE}/Dockerfile"]
    assert b"RUN" not in dockerfile
    assert b"COPY pylock.toml" in dockerfile


@pytest.mark.parametrize(
    ("config", "user"), [({"User": "1000"}, "1000"), ({"User": "1000:100"}, "1000:100"), ({}, "root")]
)
def test_the_dockerfile_ends_with_the_user_that_the_base_says(config: dict[str, str], user: str) -> None:
    """Its configuration's words, whatever the account is called; root where it says nothing, as engines take it."""
    found = own_files(base=make_base(config=config), lock=make_lock(), probe=make_probe())
    assert found[f"{SHARE}/Dockerfile"].decode().endswith(f"USER {user}\n")


def test_the_dockerfile_hides_the_users_own_packages_where_the_image_does() -> None:
    """As the image itself: in immutable ones only."""
    for immutable in (True, False):
        dockerfile = own_files(lock=make_lock(), probe=make_probe(), immutable=immutable)[f"{SHARE}/Dockerfile"]
        assert (b"\nENV PYTHONNOUSERSITE=1\n" in dockerfile) is immutable
