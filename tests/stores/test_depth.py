"""Many wheels, small and heavy, on a base of many layers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.environment.base import BaseProbe
from prebuilt_spawner.environment.lock import Lock, LockedWheel
from prebuilt_spawner.image import plan
from prebuilt_spawner.image.bytecode import with_bytecode
from prebuilt_spawner.image.fragment import Fragment
from prebuilt_spawner.image.install import install_wheel
from prebuilt_spawner.image.names import BASE_DIGEST_LABEL, DIGEST_LABEL

from ..crafted_wheels import build_wheel
from .private_engine import PrivateEngine

SMALL, HEAVY = 130, 30
HEAVY_BYTES = 100_000
DIGEST = "d" * 64


def wheels() -> dict[str, tuple[str, bytes]]:
    """File name and content of each by its distribution's name."""
    found = {f"small-{number}": build_wheel(f"small-{number}", "1.0") for number in range(SMALL)}
    for number in range(HEAVY):
        files = {f"heavy_{number}/__init__.py": "", f"heavy_{number}/data": b"%04d" % number * (HEAVY_BYTES // 4)}
        found[f"heavy-{number}"] = build_wheel(f"heavy-{number}", "1.0", files=files)
    return {name: (filename, content) for name, (filename, content, _) in found.items()}


def locked(name: str, filename: str, content: bytes) -> LockedWheel:
    sha256 = hashlib.sha256(content).hexdigest()
    return LockedWheel(name=name, version="1.0", filename=filename, url=f"https://files.example/{name}", sha256=sha256)


def fragment(wheel: LockedWheel, content: bytes, probe: BaseProbe, folder: Path) -> Fragment:
    (folder / wheel.filename).write_bytes(content)
    installed = install_wheel(
        folder / wheel.filename,
        wheel_sha256=wheel.sha256,
        scheme=probe.scheme,
        interpreter=probe.interpreter,
        body=folder / f"{wheel.name}.tar",
    )
    return with_bytecode(installed, {}, body=folder / f"{wheel.name}.compiled.tar")


async def test_many_wheels_on_a_base_of_sixty_layers_start_and_the_depth_is_bounded(
    private: PrivateEngine, connected, many_layered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(plan, "HEAVY_FRAGMENT_BYTES", HEAVY_BYTES // 2)
    engine = connected(private)
    base = await engine.resolve_base(many_layered(private))
    probe = await engine.probe(base)
    contents = wheels()
    lock = Lock(wheels=tuple(locked(name, *wheel) for name, wheel in sorted(contents.items())))
    fragments = [fragment(wheel, contents[wheel.name][1], probe, tmp_path) for wheel in lock.wheels]
    planned = plan.plan_image(
        base=base,
        probe=probe,
        lock=lock,
        fragments=fragments,
        own_files={"opt/notes": b"notes"},
        labels={DIGEST_LABEL: DIGEST, BASE_DIGEST_LABEL: base.digest},
        environment={},
        digest=DIGEST,
    )
    image = await engine.assemble(planned, report=ignore)
    # The whole base, the largest of the heavy ones, the others together, our notes.
    assert len(image.diff_ids) == 60 + plan.MAX_HEAVY_LAYERS + 1 + 1
    assert len(image.diff_ids) <= plan.MAX_LAYERS
    modules = ", ".join(name.replace("-", "_") for name in contents)
    assert private.python(image.image_id, f"import {modules}; print('all')") == "all"
    await engine.discard(image)
