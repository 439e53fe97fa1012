"""Bases as they come: pulled, many-layered, flattened; on every engine and store, by archive and by the builder."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from prebuilt_spawner.adapters.docker_engine import DockerEngine
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.environment.digest import runtime_config
from prebuilt_spawner.image.layer import LowerLayers
from prebuilt_spawner.image.names import STEP_LABEL

from .plans import plan_of
from .private_engine import PrivateEngine
from .small_bases import SmallBase, unique
from .test_saving import saved_diff_ids

KINDS = ["pulled", "many-layered", "flattened"]


@pytest.fixture
def named(request: pytest.FixtureRequest, small: SmallBase) -> Callable[[PrivateEngine, str], str]:
    """Has a base of this kind ready for an engine, and returns its name."""

    def ready(engine: PrivateEngine, kind: str) -> str:
        if kind == "pulled":
            return request.getfixturevalue("published")
        if kind == "many-layered":
            return request.getfixturevalue("many_layered")(engine)
        name = f"{kind}:1"
        if not engine.has(name):
            engine.client.import_image_from_data(
                unique(small.rootfs), repository=kind, tag="1", changes=small.changes()
            )
        return name

    return ready


@pytest.mark.parametrize(("kind", "handover"), [*((kind, "archive") for kind in KINDS), ("pulled", "build")])
async def test_an_image_is_stacked_on_any_kind_of_base(
    private: PrivateEngine, connected: Callable[..., DockerEngine], named, small: SmallBase, kind: str, handover: str
):
    """It runs, is configured as its base, has what was removed removed, and can be stacked on and saved whole."""
    engine = connected(private, handover=handover)
    base = await engine.resolve_base(named(private, kind))
    assert len(base.diff_ids) == {"pulled": 3, "many-layered": 60, "flattened": 1}[kind]
    assert base.config == runtime_config(small.config)
    site = small.purelib.strip("/")
    module = b"import old_demo_single; where = 'above'\n"
    plan = plan_of(
        base,
        {f"{site}/first.py": module, f"{site}/old_demo_single.py": b"y = 2\n"},
        {f"{site}/second.py": b""},
        removed=[f"{site}/old_demo", f"{site}/old_demo_single.py"],
        environment={"ADDED": "it's"},
    )
    image = await engine.assemble(plan, report=ignore)
    program = (
        "import first, os, second; from importlib.util import find_spec; "
        "print(first.where, first.old_demo_single.y, find_spec('old_demo'), os.environ['ADDED'], os.getuid())"
    )
    assert private.python(image.image_id, program) == "above 2 None it's 1000"
    found = private.client.inspect_image(image.image_id)
    found["Config"]["Labels"].pop(STEP_LABEL, None)  # the builder's
    assert runtime_config(found["Config"]) == {
        **base.config,
        "Env": [*base.config["Env"], "ADDED=it's"],
        "Labels": {**base.config["Labels"], **plan.labels},
    }
    lower = LowerLayers(image_id=image.image_id, diff_ids=image.diff_ids[:-1])
    plan = plan_of(base, {f"{site}/third.py": b"# " + secrets.token_hex(8).encode()}, lower=lower)
    above = await engine.assemble(plan, report=ignore)
    assert above.diff_ids[:-1] == image.diff_ids[:-1]
    assert (
        private.python(above.image_id, "import importlib.util, first, third; print(importlib.util.find_spec('second'))")
        == "None"
    )
    assert saved_diff_ids(private.client, above.image_id) == above.diff_ids
    for one in (above, image):
        await engine.discard(one)
    assert not private.has(image.image_id)
