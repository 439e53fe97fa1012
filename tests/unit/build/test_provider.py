"""What the provider asks of an image's plan."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.provider import Provider
from prebuilt_spawner.errors import UnbuildableEnvironment

from ..image.wheels import fragment_of, make_base, make_distribution, make_lock, make_probe


class NoEngine:
    """Holds any base, and is asked for nothing else."""

    def hold(self, image_id: str) -> Any:
        class Held:
            async def __aenter__(self) -> None: ...
            async def __aexit__(self, *error: object) -> None: ...

        return Held()


async def test_what_the_server_needs_is_protected_as_the_server_is(tmp_path: Path) -> None:
    """A wheel with a file of a package that jupyterhub depends on, at second hand, is refused."""
    probe = make_probe(
        make_distribution("jupyterhub", "jupyterhub/__init__.py", requires=("kit",)),
        make_distribution("kit", "kit.py", requires=("Tool_Box>1",)),
        make_distribution(
            "tool-box", files=("/usr/lib/python3/dist-packages/box.py",), location="/usr/lib/python3/dist-packages"
        ),
    )
    fragment = fragment_of(tmp_path, "demo", {"box.py": b""})

    async def nothing(*_: object, **__: object) -> None: ...

    async def fragments(*_: object, **__: object) -> object:
        return (fragment,)

    store: Any = SimpleNamespace(fetch=nothing, fragments=fragments)
    engine: Any = NoEngine()
    provider = Provider(engine=engine, wheel_store=store, repository="env", protected=frozenset({"jupyterhub"}))
    environment = provider.name(base=make_base(), probe=probe, lock=make_lock("demo"))
    with pytest.raises(UnbuildableEnvironment, match=r"demo .*server \(tool-box\)"):
        await provider.make(environment, report=ignore)
