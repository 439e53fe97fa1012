"""Plans that tests ask for, and what holds for each."""

from collections.abc import Mapping, Sequence
from typing import Any

from prebuilt_spawner.environment.base import BaseProbe
from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.image.fragment import Fragment
from prebuilt_spawner.image.layer import ImagePlan
from prebuilt_spawner.image.plan import plan_image

from .wheels import SITE, entries, layer_bytes, make_base, make_lock, make_probe

IN_SITE = SITE[1:]
OWN = {"usr/local/share/prebuilt-spawner/Dockerfile": b"FROM x\n"}


def planned(
    fragments: Sequence[Fragment] = (),
    *,
    probe: BaseProbe | None = None,
    lock: Lock | None = None,
    own_files: Mapping[str, bytes] | None = None,
    **options: Any,
) -> ImagePlan:
    """A plan with these fragments; the lock is theirs unless given."""
    return plan_image(
        base=options.pop("base", None) or make_base(),
        probe=probe or make_probe(),
        lock=lock or make_lock(*(fragment.distribution for fragment in fragments)),
        fragments=fragments,
        own_files=OWN if own_files is None else own_files,
        labels={},
        environment={},
        digest="d" * 64,
        **options,
    )


def names(plan: ImagePlan) -> list[list[str]]:
    """The files of each layer."""
    return [[entry.name for entry in entries(layer_bytes(layer)) if entry.isfile()] for layer in plan.layers]


def check_layers(plan: ImagePlan) -> None:
    """What holds for each layer of any plan."""
    for layer in plan.layers:
        content = layer_bytes(layer)
        assert len(content) == layer.size_bytes
        assert content.endswith(bytes(1024))
        seen: set[str] = set()
        for entry in entries(content):
            assert entry.name not in seen, "no path twice"
            parent = entry.name.rpartition("/")[0]
            assert not parent or parent in seen, "folders before what they hold"
            assert entry.isfile() or entry.isdir()
            assert entry.mtime == 315532800
            seen.add(entry.name)
