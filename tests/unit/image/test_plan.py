"""Plans: which layers, and what is in them."""

import io
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prebuilt_spawner.environment.base import BaseProbe, FolderEntry
from prebuilt_spawner.errors import UnbuildableEnvironment
from prebuilt_spawner.image import plan as planning
from prebuilt_spawner.image.archive import layer_digest
from prebuilt_spawner.image.fragment import Fragment
from prebuilt_spawner.image.layer import FileRange, ImagePlan, Layer
from prebuilt_spawner.image.plan import Contents, contents
from prebuilt_spawner.image.stacking import Stack, StackedLayer

from .plans import IN_SITE, OWN, check_layers, names, planned
from .wheels import SITE, Member, entries, fragment_of, layer_bytes, make_base, make_distribution, make_lock, make_probe


def test_an_empty_lock_adds_our_files_only() -> None:
    """There is one layer, with one entry for each folder; without files of ours there is none."""
    plan = planned()
    check_layers(plan)
    assert names(plan) == [list(OWN)]
    assert planned(own_files={}).layers == ()


def test_the_order_of_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whiteouts, heavy wheels from the largest on, all light ones by name, our files."""
    monkeypatch.setattr(planning, "HEAVY_FRAGMENT_BYTES", 50_000)
    fragments = [
        fragment_of(tmp_path, "a-light", {"a.py": b"a"}),
        fragment_of(tmp_path, "b-heavy", {"b.py": bytes(60_000)}),
        fragment_of(tmp_path, "c-heavier", {"c.py": bytes(90_000)}),
        fragment_of(tmp_path, "d-light", {"d.py": b"d"}),
    ]
    probe = make_probe(make_distribution("d-light", "old_d.py"))
    plan = planned(fragments, probe=probe)
    check_layers(plan)
    assert [layer.comment for layer in plan.layers] == [
        "without the base's d-light",
        "c-heavier==1.0",
        "b-heavy==1.0",
        "a-light==1.0 d-light==1.0",
        "what this image is made of",
    ]
    assert all("/.wh." in name for name in names(plan)[0])
    assert [f"{IN_SITE}/a.py", f"{IN_SITE}/d.py"] == [name for name in names(plan)[3] if name.endswith(".py")]
    again = planned(list(reversed(fragments)), probe=probe)
    assert [layer_bytes(layer) for layer in again.layers] == [layer_bytes(layer) for layer in plan.layers]


def test_the_number_of_layers_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most so many heavy wheels have a layer, fewer on a base that is deep already; the others share one."""
    monkeypatch.setattr(planning, "HEAVY_FRAGMENT_BYTES", 1)
    fragments = [fragment_of(tmp_path, f"p{number}", {f"p{number}.py": bytes(600 * number)}) for number in range(25)]
    plan = planned(fragments)
    check_layers(plan)
    assert len(plan.layers) == planning.MAX_HEAVY_LAYERS + 2
    assert plan.layers[0].comment == "p24==1.0"
    deep = make_base(diff_ids=tuple(f"sha256:{number:064}" for number in range(110)))
    assert len(planned(fragments, base=deep).layers) == 7 + 2
    full = make_base(diff_ids=tuple(f"sha256:{number:064}" for number in range(119)))
    assert len(planned(fragments, base=full).layers) == 2


def test_a_whole_fragment_is_one_range(tmp_path: Path) -> None:
    """Nothing is copied: a layer is its folders, a range for each fragment, and the end."""
    fragments = [fragment_of(tmp_path, name, {f"{name}/x.py": b"x", f"{name}/y.py": b"y"}) for name in ("a", "b")]
    ranges = [part for part in planned(fragments).layers[0].parts if isinstance(part, FileRange)]
    assert ranges == [
        FileRange(path=body, offset_bytes=0, length_bytes=body.stat().st_size)
        for fragment in fragments
        for body in dict.fromkeys(file.body for file in fragment.files)
    ]


def test_folders_are_as_the_base_has_them(tmp_path: Path) -> None:
    """Mode and owner of present folders are kept; new ones are root's."""
    probe = make_probe()
    folders = {**probe.folders, SITE: FolderEntry(mode=0o2775, uid=1000, gid=100)}
    plan = planned([fragment_of(tmp_path, "a", {"a/b/x.py": b""})], probe=replace(probe, folders=folders))
    found = {entry.name: (entry.mode, entry.uid, entry.gid) for entry in entries(layer_bytes(plan.layers[0]))}
    assert found["opt"] == (0o755, 0, 0)
    assert found[IN_SITE] == (0o2775, 1000, 100)
    assert found[f"{IN_SITE}/a/b"] == (0o755, 0, 0)
    assert found[f"{IN_SITE}/a/b/x.py"] == (0o644, 0, 0)


@settings(max_examples=30, deadline=None)
@given(
    contents=st.dictionaries(
        st.sampled_from(["alpha", "beta", "gamma", "delta"]),
        st.dictionaries(
            st.sampled_from(["x.py", "p/__init__.py", "p/q/r.py", "p/q", "z"]), st.sampled_from([b"", b"1"])
        ),
        max_size=4,
    ),
    replaced=st.sets(st.sampled_from(["alpha", "beta"])),
)
def test_any_plan_that_is_made_keeps_the_rules(
    contents: dict[str, dict[str, bytes]], replaced: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the wheels hold, either the plan is refused or no layer has a path twice and all files are there."""
    folder = tmp_path_factory.mktemp("plan")
    probe = make_probe(*(make_distribution(name, f"{name}.py", "p/__init__.py") for name in replaced))
    try:
        fragments = [fragment_of(folder, name, files) for name, files in contents.items()]
        plan = planned(fragments, probe=probe)
    except UnbuildableEnvironment:
        return
    check_layers(plan)
    wanted = {file.path for fragment in fragments for file in fragment.files}
    added = [name for layer in names(plan) for name in layer if "/.wh." not in name]
    assert len(added) == len(set(added))
    assert set(added) == wanted | set(OWN)


# -- on what is there already ------------------------------------------------------------------------------------------


def stack_of(plan: ImagePlan, *, digest: str = "s" * 64) -> Stack:
    """What the ledger remembers of an image on the base alone: all layers but the notes."""
    return Stack(
        digest=digest,
        layers=tuple(StackedLayer(diff_id=layer_digest(layer), wheels=layer.wheels) for layer in plan.layers[:-1]),
    )


def tree_of(layers: Sequence[Layer]) -> dict[str, tuple[int, int, bytes]]:
    """What a container sees: (mode, time, content) by path, whiteouts applied. The base is taken for empty."""
    found: dict[str, tuple[int, int, bytes]] = {}
    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(layer_bytes(layer))) as archive:
            for entry in archive:
                stream = archive.extractfile(entry)
                found[entry.name] = (entry.mode, int(entry.mtime), b"" if stream is None else stream.read())
                folder, _, name = entry.name.rpartition("/")
                if name.startswith(".wh."):
                    gone = f"{folder}/{name[4:]}"
                    for path in [path for path in found if path == gone or path.startswith(f"{gone}/")]:
                        del found[path]
    return found


def checked(fragments: Sequence[Fragment], probe: BaseProbe, own: bytes = b"") -> Contents:
    lock = make_lock(*(fragment.distribution for fragment in fragments))
    return contents(base=make_base(), probe=probe, lock=lock, fragments=fragments, own_files={"usr/notes": own})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    below=st.sets(st.sampled_from(["alpha", "beta", "gamma", "delta"]), min_size=1),
    wanted=st.sets(st.sampled_from(["alpha", "beta", "gamma", "delta"]), min_size=1),
    popular=st.dictionaries(st.sampled_from("0123"), st.integers(0, 3)),
    heavy=st.sampled_from([1, 3000, 10**9]),
)
def test_the_files_are_the_same_whatever_the_plan(
    below: set[str], wanted: set[str], popular: dict[str, int], heavy: int, tmp_path: Path, monkeypatch: Any
) -> None:
    """On the base or on another image's layers, whatever is popular and heavy: content, mode, time, nothing more.

    Two wheels share a file, and one replaces a package of the base that shares a folder with another wheel.
    """
    monkeypatch.setattr(planning, "HEAVY_FRAGMENT_BYTES", heavy)
    files: dict[str, dict[str, bytes | Member]] = {
        "alpha": {"ns/__init__.py": b"same", "ns/alpha.py": b"a"},
        "beta": {"ns/__init__.py": b"same", "ns/beta.py": bytes(5000)},
        "gamma": {"gamma/x.py": b"new", "gamma/data/y": b"y"},
        "delta": {"delta.py": b"d"},
    }
    fragments = {
        name: replace(fragment_of(tmp_path, name, files[name]), wheel_sha256=str(number))
        for number, name in enumerate(sorted(files))
    }
    probe = make_probe(make_distribution("gamma", "gamma/x.py", "gamma/old.py", "ns/old.py"))
    settings: dict[str, Any] = {"labels": {}, "environment": {}, "digest": "d" * 64}
    other = checked([fragments[name] for name in below], probe, b"of the other").plan(**settings)
    what = checked([fragments[name] for name in wanted], probe, b"own")
    alone = what.plan(**settings)
    stacks = what.stacks([stack_of(other)])
    if not stacks:
        assert alone.lower.diff_ids == make_base().diff_ids
        return
    (usable,) = stacks
    stacked = what.plan(**settings, below=(usable, "sha256:other"), popularity=popular)
    check_layers(stacked)
    assert stacked.lower.image_id == "sha256:other"
    assert stacked.lower.diff_ids == (*make_base().diff_ids, *(layer.diff_id for layer in usable.layers))
    assert not {wheel for layer in stacked.layers for wheel in layer.wheels} & usable.wheels
    with_lower = [*other.layers[: len(usable.layers)], *stacked.layers]
    visible = {path: entry for path, entry in tree_of(with_lower).items() if "/.wh." not in path}
    assert visible == {path: entry for path, entry in tree_of(alone.layers).items() if "/.wh." not in path}


def test_a_package_is_taken_from_the_base_above_what_is_there(tmp_path: Path) -> None:
    """The whiteouts of one that only the new environment replaces come first, and spare what lies below."""
    probe = make_probe(make_distribution("old", "old.py"))
    keep = replace(fragment_of(tmp_path, "keep", {"keep.py": b""}), wheel_sha256="k")
    new = replace(fragment_of(tmp_path, "old", {"old.py": b"new"}), wheel_sha256="o")
    settings: dict[str, Any] = {"labels": {}, "environment": {}, "digest": "d" * 64}
    what = checked([keep, new], probe)
    (usable,) = what.stacks([stack_of(checked([keep], probe).plan(**settings))])
    plan = what.plan(**settings, below=(usable, "sha256:other"))
    assert [layer.comment for layer in plan.layers] == [
        "without the base's old",
        "old==1.0",
        "what this image is made of",
    ]


def test_popular_wheels_lie_low(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before larger ones; equally popular ones by size."""
    monkeypatch.setattr(planning, "HEAVY_FRAGMENT_BYTES", 1)
    fragments = [
        replace(fragment_of(tmp_path, name, {f"{name}.py": bytes(size)}), wheel_sha256=name)
        for name, size in (("large", 9000), ("small", 10), ("middle", 5000))
    ]
    what = checked(fragments, make_probe())
    plan = what.plan(labels={}, environment={}, digest="d" * 64, popularity={"small": 7, "other": 9})
    assert [layer.comment for layer in plan.layers[:-1]] == ["small==1.0", "large==1.0", "middle==1.0"]
