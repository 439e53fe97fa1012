"""Plans: which layers, what is in them, and what cannot be planned."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prebuilt_spawner.environment.base import BaseProbe, FolderEntry, InstalledDistribution
from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.errors import UnbuildableEnvironment
from prebuilt_spawner.image import plan as planning
from prebuilt_spawner.image.archive import layer_digest
from prebuilt_spawner.image.fragment import Fragment
from prebuilt_spawner.image.layer import FileRange, ImagePlan, Layer
from prebuilt_spawner.image.plan import Contents, contents, plan_image
from prebuilt_spawner.image.stacking import Stack, StackedLayer

from .wheels import SITE, Member, entries, fragment_of, layer_bytes, make_base, make_distribution, make_lock, make_probe

IN_SITE = SITE[1:]
OWN = {"usr/local/share/prebuilt-spawner/Dockerfile": b"FROM x\n"}
PROGRAM = 0o100755


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


# -- which layers -----------------------------------------------------------------------------------------------------


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


# -- what is replaced -------------------------------------------------------------------------------------------------


def whiteouts(probe: BaseProbe, *locked: str) -> set[str]:
    """What the whiteout layer deletes; relative to `SITE` where it is below."""
    plan = planned(probe=probe, lock=make_lock(*locked), own_files={})
    check_layers(plan)
    found = {name.replace("/.wh.", "/") for layer in names(plan) for name in layer}
    return {name.removeprefix(f"{IN_SITE}/") for name in found}


def test_what_is_replaced_goes_with_its_bytecode_and_metadata() -> None:
    """Files of RECORD, what was compiled of them, the metadata folder as one; scripts and conda's record too."""
    record = "/opt/env/conda-meta/demo-0.9-py_0.json"
    probe = make_probe(
        make_distribution(
            "demo", "demo/__init__.py", "demo/__pycache__/other.pyc", "demo/x.so", "/opt/env/bin/demo", record
        ),
        make_distribution("other", "other.py"),
    )
    compiled = {f"demo/__pycache__/__init__.cpython-311{tag}.pyc" for tag in ("", ".opt-1", ".opt-2")}
    assert whiteouts(probe, "demo", "new") == {
        "demo/__init__.py",
        "demo/x.so",
        "demo/__pycache__/other.pyc",
        *compiled,
        "demo-0.9.dist-info",
        "opt/env/bin/demo",
        record[1:],
    }
    assert whiteouts(probe, "new") == set()


def test_whiteouts_make_no_folder() -> None:
    """What RECORD lists in folders that the base does not have is left alone; so is bytecode where there is none."""
    probe = make_probe(make_distribution("demo", "demo/__init__.py", "gone/x.py"))
    folders = {path: entry for path, entry in probe.folders.items() if not path.endswith("/gone")}
    probe = replace(probe, folders=folders)
    assert whiteouts(probe, "demo") == {"demo/__init__.py", "demo-0.9.dist-info"}
    plan = planned(probe=probe, lock=make_lock("demo"), own_files={})
    assert {f"/{entry.name}" for entry in entries(layer_bytes(plan.layers[0])) if entry.isdir()} <= folders.keys()


def test_what_is_shared_with_one_that_stays_stays() -> None:
    """The `__init__` of an old namespace package, and its bytecode, are not deleted."""
    probe = make_probe(
        make_distribution("ns-a", "ns/__init__.py", "ns/__pycache__/__init__.cpython-311.pyc", "ns/a.py"),
        make_distribution("ns-b", "ns/__init__.py", "ns/b.py"),
    )
    gone = whiteouts(probe, "ns-a")
    assert "ns/a.py" in gone
    assert not any("__init__" in path for path in gone)
    assert "ns/__init__.py" in whiteouts(probe, "ns-a", "ns-b")


def test_a_shared_init_may_be_brought_again(tmp_path: Path) -> None:
    """The new version of a namespace package has the `__init__` that its old one shared."""
    probe = make_probe(make_distribution("ns-a", "ns/__init__.py"), make_distribution("ns-b", "ns/__init__.py"))
    fragment = fragment_of(tmp_path, "ns-a", {"ns/__init__.py": b""})
    check_layers(planned([fragment], probe=probe))
    with pytest.raises(UnbuildableEnvironment, match=r"server \(ns-b\)"):
        planned([fragment], probe=probe, protected=frozenset({"ns-b"}))


def test_links_of_the_base_are_followed() -> None:
    """RECORD may name a file through a symlinked folder; the whiteout is where the file is."""
    probe = make_probe(make_distribution("demo", "demo/x.py", "/opt/env/lib64link/python3.11/site-packages/demo/y.py"))
    probe = replace(probe, links={"/opt/env/lib64link": "/opt/env/lib"})
    assert {"demo/x.py", "demo/y.py"} <= whiteouts(probe, "demo")


def test_one_that_cannot_be_removed_is_shadowed_or_refused(tmp_path: Path) -> None:
    """Without RECORD: left alone in another folder, refused in the folder of new packages, naming it."""
    elsewhere = make_distribution("demo", files=None, location="/usr/lib/python3/dist-packages")
    assert whiteouts(make_probe(elsewhere), "demo") == set()
    here = make_distribution("demo", files=None)
    with pytest.raises(UnbuildableEnvironment, match=r"demo 0\.9 .*cannot be replaced") as caught:
        planned(probe=make_probe(here), lock=make_lock("demo"))
    assert SITE not in caught.value.message
    planned(probe=make_probe(here))


def test_files_outside_of_the_scheme_are_never_deleted() -> None:
    """A RECORD that names a file of the system: refused, or shadowed where the distribution is elsewhere as a whole."""
    probe = make_probe(make_distribution("demo", "demo.py", "/etc/passwd"))
    with pytest.raises(UnbuildableEnvironment, match=r"demo 0\.9 .*cannot be replaced"):
        planned(probe=probe, lock=make_lock("demo"))
    system = make_distribution(
        "demo", "/usr/lib/python3/dist-packages/demo.py", location="/usr/lib/python3/dist-packages"
    )
    assert whiteouts(make_probe(system), "demo") == set()


def test_metadata_that_is_a_file_goes_too() -> None:
    """An egg-info can be a file."""
    probe = make_probe(
        InstalledDistribution(
            name="demo",
            version="1",
            location=SITE,
            metadata_directory="demo-1.egg-info",
            files=(f"{SITE}/demo.py", f"{SITE}/demo-1.egg-info"),
        )
    )
    assert whiteouts(probe, "demo") == {"demo.py", "demo-1.egg-info"}


# -- conflicts --------------------------------------------------------------------------------------------------------


def test_equal_files_of_two_wheels_are_kept_once(tmp_path: Path) -> None:
    """Same bytes and mode: in the first by name; the later one goes on without it."""
    one = fragment_of(tmp_path, "one", {"ns/__init__.py": b"same", "ns/one.py": b"1"})
    two = fragment_of(tmp_path, "two", {"a.py": b"a", "ns/__init__.py": b"same", "ns/two.py": b"2"})
    plan = planned([two, one])
    check_layers(plan)
    found = names(plan)[0]
    assert found.count(f"{IN_SITE}/ns/__init__.py") == 1
    assert {f"{IN_SITE}/{name}" for name in ("a.py", "ns/one.py", "ns/two.py")} <= set(found)
    assert len([part for part in plan.layers[0].parts if isinstance(part, FileRange)]) == 5
    with tarfile.open(fileobj=io.BytesIO(layer_bytes(plan.layers[0]))) as archive:
        stream = archive.extractfile(f"{IN_SITE}/ns/two.py")
        assert stream is not None
        assert stream.read() == b"2"


CONFLICTS: dict[str, tuple[dict[str, bytes | Member], dict[str, bytes | Member], str]] = {
    "content": ({"x.py": b"1"}, {"x.py": b"2"}, "x.py"),
    "mode": ({"x.py": b"1"}, {"x.py": Member(b"1", PROGRAM)}, "x.py"),
    "case": ({"Crypto/x.py": b"1"}, {"crypto/x.py": b"1"}, "rypto/x.py"),
    "file and folder": ({"x": b"1"}, {"x/y.py": b"1"}, "/x"),
    "folder and file": ({"x/y/z.py": b"1"}, {"x": b"1"}, "/x"),
    "script": ({"one-1.0.data/scripts/run": b"1"}, {"two-1.0.data/scripts/run": b"2"}, "bin/run"),
}


@pytest.mark.parametrize("what", CONFLICTS)
def test_two_wheels_that_want_different_things_are_refused(tmp_path: Path, what: str) -> None:
    """The message names both and the file, whichever comes first."""
    first, second, file = CONFLICTS[what]
    fragments = [fragment_of(tmp_path, "one", first), fragment_of(tmp_path, "two", second)]
    for order in (fragments, fragments[::-1]):
        with pytest.raises(UnbuildableEnvironment, match=r"one.*two|two.*one") as caught:
            planned(order)
        assert file in caught.value.message


def test_a_file_of_the_base_is_not_overwritten(tmp_path: Path) -> None:
    """One that stays keeps its files: refused naming both, in other words where it is the server's."""
    probe = make_probe(make_distribution("notebook", "notebook/app.py", "single"))
    for files in ({"notebook/app.py": b""}, {"single/x.py": b""}):
        fragment = fragment_of(tmp_path, "demo", files)
        with pytest.raises(UnbuildableEnvironment, match=r"demo .* belongs to notebook in the base"):
            planned([fragment], probe=probe)
        with pytest.raises(UnbuildableEnvironment, match=r"demo .* belongs to the server \(notebook\)"):
            planned([fragment], probe=probe, protected=frozenset({"notebook"}))


def test_a_file_of_what_is_replaced_may_be_overwritten(tmp_path: Path) -> None:
    """Also by another distribution: a module that moved from one to the other."""
    probe = make_probe(make_distribution("demo", "demo.py", "moved.py"))
    fragments = [fragment_of(tmp_path, "demo", {"demo.py": b"new"}), fragment_of(tmp_path, "other", {"moved.py": b""})]
    plan = planned(fragments, probe=probe)
    check_layers(plan)
    assert {f"{IN_SITE}/demo.py", f"{IN_SITE}/moved.py"} <= set(names(plan)[1])


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"linked/x.py": b""}, "link"),
        ({"linked": b""}, "folder of the base"),
        ({"present": b""}, "folder of the base"),
        ({"demo-1.0.data/data/lib/python3.11/os.py": b""}, "Python's own library"),
        ({"demo-1.0.data/data/lib/python3.11/EXTERNALLY-MANAGED": b""}, "notes about the image"),
    ],
)
def test_places_where_no_file_can_go(tmp_path: Path, files: dict[str, bytes], word: str) -> None:
    """Symlinked folders, present folders, the standard library and our own files: refused, naming wheel and file."""
    probe = make_probe()
    probe = replace(
        probe,
        folders={**probe.folders, f"{SITE}/present": FolderEntry(mode=0o755, uid=0, gid=0)},
        links={f"{SITE}/linked": "/srv/elsewhere"},
    )
    own_files = {"opt/env/lib/python3.11/EXTERNALLY-MANAGED": b""}
    with pytest.raises(UnbuildableEnvironment, match=rf"demo has a file .*{word}"):
        planned([fragment_of(tmp_path, "demo", files)], probe=probe, own_files=own_files)


def test_our_files_go_where_a_linked_folder_points() -> None:
    """A base whose share folder is a link gets the files at the link's target."""
    probe = replace(make_probe(), links={"/usr/local/share": "/srv/share"})
    assert names(planned(probe=probe)) == [["srv/share/prebuilt-spawner/Dockerfile"]]


def executables(*paths: str) -> dict[str, str]:
    """Programs on the base's PATH."""
    return {path.rpartition("/")[2]: path for path in paths}


@pytest.mark.parametrize("present", ["/usr/bin/run", "/opt/env/bin/run"])
def test_a_command_does_not_take_the_place_of_the_bases(tmp_path: Path, present: str) -> None:
    """One that is on the PATH, at that place or another: refused naming the distribution, the command and its owner."""
    run = fragment_of(tmp_path, "demo", {}, entry_points="[console_scripts]\nrun = demo:main\n")
    probe = make_probe(executables=executables(present))
    with pytest.raises(UnbuildableEnvironment, match=r'demo .*"run".*base image'):
        planned([run], probe=probe)
    owned = make_probe(make_distribution("tool", present), executables=executables(present))
    with pytest.raises(UnbuildableEnvironment, match=r"demo .*run.*tool"):
        planned([run], probe=owned)
    with pytest.raises(UnbuildableEnvironment, match=r"demo .*run.*server"):
        planned([run], probe=owned, protected=frozenset({"tool"}))
    in_data = fragment_of(tmp_path, "other", {"other-1.0.data/data/bin/run": Member(b"", PROGRAM)})
    with pytest.raises(UnbuildableEnvironment, match=r"other .*run"):
        planned([in_data], probe=probe)


def test_the_interpreter_cannot_be_replaced(tmp_path: Path) -> None:
    """A wheel with a file `bin/python3`, executable or not."""
    for mode in (PROGRAM, 0o100644):
        evil = fragment_of(tmp_path, "evil", {"evil-1.0.data/data/bin/python3": Member(b"", mode)})
        with pytest.raises(UnbuildableEnvironment, match=r"evil .*python3"):
            planned([evil])


def test_a_command_of_what_is_replaced_may_be_replaced(tmp_path: Path) -> None:
    """At the same place, at another one, and where the old version is Debian's without a list of files."""
    run = fragment_of(tmp_path, "demo", {}, entry_points="[console_scripts]\nrun = demo:main\n")
    same = make_probe(make_distribution("demo", "/opt/env/bin/run"), executables=executables("/opt/env/bin/run"))
    check_layers(planned([run], probe=same))
    system = "/usr/lib/python3/dist-packages"
    for files in (None, ("/usr/bin/run", f"{system}/demo.py")):
        debian = make_distribution("demo", files=files, location=system)
        check_layers(planned([run], probe=make_probe(debian, executables=executables("/usr/bin/run"))))
    taken = make_probe(
        make_distribution("demo", files=None, location=system),
        make_distribution("tool", "/usr/bin/run"),
        executables=executables("/usr/bin/run"),
    )
    with pytest.raises(UnbuildableEnvironment, match=r"demo .*run.*tool"):
        planned([run], probe=taken)


def test_a_file_that_is_no_command_hides_none(tmp_path: Path) -> None:
    """A module, or a data file, may be called as a program is."""
    fragment = fragment_of(tmp_path, "demo", {"sh": Member(b"", PROGRAM), "demo-1.0.data/data/share/sh": b""})
    check_layers(planned([fragment]))
