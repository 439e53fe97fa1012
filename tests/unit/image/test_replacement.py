"""What goes from a base when its packages are replaced, and what cannot be replaced."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prebuilt_spawner.environment.base import BaseProbe, CondaPackage, FolderEntry, InstalledDistribution
from prebuilt_spawner.errors import UnbuildableEnvironment
from prebuilt_spawner.image.emptied import source_of
from prebuilt_spawner.image.paths import parents
from prebuilt_spawner.image.replacement import replacement

from .plans import IN_SITE, check_layers, names, planned
from .wheels import SITE, entries, fragment_of, layer_bytes, make_distribution, make_lock, make_probe

SYSTEM = "/usr/lib/python3/dist-packages"


def base(
    *distributions: InstalledDistribution,
    folders: Iterable[str] = (),
    compiled: Mapping[str, Collection[str]] | None = None,
    occupied: Collection[str] = (),
    **changes: Any,
) -> BaseProbe:
    """A base with these distributions and more folders; paths that are not absolute are below `SITE`."""
    probe = make_probe(*distributions, **changes)
    entry = FolderEntry(mode=0o755, uid=0, gid=0)
    more = [*folders, *(compiled or {}), *occupied]
    return replace(
        probe,
        folders={**{_absolute(folder): entry for folder in more}, **probe.folders},
        compiled={_absolute(folder): tuple(found) for folder, found in (compiled or {}).items()},
        occupied=frozenset(map(_absolute, occupied)),
    )


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"{SITE}/{path}"


def removed(probe: BaseProbe, *locked: str, incoming: Collection[str] = ()) -> set[str]:
    """What goes when these are installed; relative to `SITE` where it is below."""
    paths = {_absolute(path)[1:] for path in incoming}
    found = replacement(probe, make_lock(*locked), incoming=paths).removed
    return {path.removeprefix(f"{IN_SITE}/") for path in found}


# -- files and folders ------------------------------------------------------------------------------------------------


def test_what_is_replaced_goes_with_its_folders_and_metadata() -> None:
    """Emptied folders and the metadata folder go as one path each, files in the scheme's own folders by themselves."""
    probe = base(
        make_distribution(
            "demo", "demo/__init__.py", "demo/a/b/x.so", "single.py", "/opt/env/bin/demo", "/opt/env/share/demo/x"
        ),
        make_distribution("other", "other.py"),
    )
    assert removed(probe, "demo", "new") == {
        "demo",
        "single.py",
        "demo-0.9.dist-info",
        "opt/env/bin/demo",
        "opt/env/share",
    }
    assert removed(probe, "new") == set()


def test_folders_with_something_left_stay() -> None:
    """Files of another distribution or of nobody, in a folder or below it, keep it; what is beside them goes."""
    probe = base(
        make_distribution("demo", "ns/demo/x.py", "ns/demo.py", "kept/x.py", "kept/deep/y.py", "kept/sub/z.py"),
        make_distribution("other", "ns/other/x.py"),
        folders=["kept/deep/cache"],
        occupied=["kept/deep/cache", "kept/deep", "kept"],
    )
    assert removed(probe, "demo") == {
        "ns/demo",
        "ns/demo.py",
        "kept/x.py",
        "kept/deep/y.py",
        "kept/sub",
        "demo-0.9.dist-info",
    }
    assert removed(probe, "demo", "other") == {"ns", "demo-0.9.dist-info", "other-0.9.dist-info"} | {
        "kept/x.py",
        "kept/deep/y.py",
        "kept/sub",
    }


def test_folders_without_any_file_go_with_their_package() -> None:
    """An empty folder could be imported as a namespace; one of nobody's elsewhere is no matter."""
    probe = base(make_distribution("demo", "demo/x.py"), folders=["demo/empty", "demo/empty/deep", "elsewhere"])
    assert removed(probe, "demo") == {"demo", "demo-0.9.dist-info"}
    assert removed(probe, "demo", incoming=["demo/y.py"]) == {"demo/x.py", "demo/empty", "demo-0.9.dist-info"}


def test_a_folder_with_new_files_keeps_its_place() -> None:
    """What is in it goes one by one, and folders in it that get nothing new as one."""
    probe = base(make_distribution("demo", "demo/x.py", "demo/old/a.py", "demo/old/b/c.py", "demo/new/d.py"))
    gone = {"demo/x.py", "demo/old", "demo/new/d.py", "demo-0.9.dist-info"}
    assert removed(probe, "demo", incoming=["demo/new/e.py"]) == gone
    assert removed(probe, "demo", incoming=["demo.py"]) == {"demo", "demo-0.9.dist-info"}
    assert removed(probe, "demo", incoming=["demo"]) == {"demo", "demo-0.9.dist-info"}


def test_a_file_may_come_where_a_folder_was(tmp_path: Any) -> None:
    """And a folder where a file was, which it covers without a whiteout."""
    probe = base(make_distribution("demo", "data/x", "thing"))
    plan = planned([fragment_of(tmp_path, "demo", {"data": b"", "thing/x": b""})], probe=probe)
    check_layers(plan)
    assert set(names(plan)[0]) == {f"{IN_SITE}/.wh.data", f"{IN_SITE}/.wh.demo-0.9.dist-info"}
    assert {f"{IN_SITE}/data", f"{IN_SITE}/thing/x"} <= set(names(plan)[1])


def test_a_plan_asks_with_the_paths_of_all_wheels(tmp_path: Any) -> None:
    """A folder that another wheel than the replaced one writes to is not deleted as a whole."""
    probe = base(make_distribution("demo", "ns/demo.py"))
    fragments = [fragment_of(tmp_path, "demo", {"demo.py": b""}), fragment_of(tmp_path, "other", {"ns/other.py": b""})]
    plan = planned(fragments, probe=probe)
    check_layers(plan)
    assert set(names(plan)[0]) == {f"{IN_SITE}/ns/.wh.demo.py", f"{IN_SITE}/.wh.demo-0.9.dist-info"}


def test_the_schemes_own_folders_stay_if_they_are_empty() -> None:
    """The folders of packages, headers, programs and data, and all above them."""
    platlib = "/opt/env/lib64/python3.11/site-packages"
    files = ("x.py", "/opt/env/bin/demo", "/opt/env/include/site/python3.11/demo/demo.h", f"{platlib}/x.so")
    assert removed(base(make_distribution("demo", *files)), "demo") == {
        "x.py",
        "opt/env/bin/demo",
        "opt/env/include/site/python3.11/demo",
        "opt/env/lib64/python3.11/site-packages/x.so",
        "demo-0.9.dist-info",
    }


def test_what_is_shared_with_one_that_stays_stays() -> None:
    """The `__init__` of an old namespace package, and its bytecode, are not deleted, listed or not."""
    probe = base(
        make_distribution("ns-a", "ns/__init__.py", "ns/__pycache__/__init__.cpython-311.pyc", "ns/a.py"),
        make_distribution("ns-b", "ns/__init__.py", "ns/b.py"),
        compiled={"ns/__pycache__": ["__init__.cpython-311.opt-1.pyc", "a.cpython-311.pyc"]},
    )
    assert removed(probe, "ns-a") == {"ns/a.py", "ns/__pycache__/a.cpython-311.pyc", "ns_a-0.9.dist-info"}
    assert removed(probe, "ns-a", "ns-b") == {"ns", "ns_a-0.9.dist-info", "ns_b-0.9.dist-info"}


def test_links_of_the_base_are_followed() -> None:
    """RECORD may name a file through a symlinked folder; the whiteout is where the file is."""
    probe = base(
        make_distribution("demo", "demo/x.py", "/opt/env/lib64link/python3.11/site-packages/demo/y.py"),
        make_distribution("other", "demo/z.py"),
        links={"/opt/env/lib64link": "/opt/env/lib"},
    )
    assert removed(probe, "demo") == {"demo/x.py", "demo/y.py", "demo-0.9.dist-info"}


def test_whiteouts_make_no_folder() -> None:
    """What RECORD lists in folders that the base does not have is left alone."""
    probe = base(make_distribution("demo", "demo/__init__.py", "gone/x.py"))
    folders = {path: entry for path, entry in probe.folders.items() if not path.endswith("/gone")}
    probe = replace(probe, folders=folders)
    assert removed(probe, "demo") == {"demo", "demo-0.9.dist-info"}
    plan = planned(probe=probe, lock=make_lock("demo"), own_files={})
    assert {f"/{entry.name}" for entry in entries(layer_bytes(plan.layers[0])) if entry.isdir()} <= folders.keys()


def test_metadata_that_is_a_file_goes_too() -> None:
    """An egg-info can be a file."""
    egg_info = make_distribution("demo", metadata_directory="demo-0.9.egg-info", files=(f"{SITE}/demo.py",))
    assert removed(base(egg_info), "demo") == {"demo.py", "demo-0.9.egg-info"}


def test_metadata_that_new_files_go_to_is_deleted_file_by_file() -> None:
    """Otherwise whiteouts that come above the new files, where images are stacked, would hide them."""
    probe = base(make_distribution("demo", "demo.py"))
    info = "demo-0.9.dist-info"
    gone = removed(probe, "demo", incoming=[f"{info}/METADATA", f"{info}/RECORD"])
    assert gone == {"demo.py", f"{info}/METADATA", f"{info}/RECORD"}


def test_programs_of_entry_points_go() -> None:
    """Also where no list names them."""
    demo = make_distribution("demo", "demo.py", scripts=("/opt/env/bin/demo",))
    assert removed(base(demo), "demo") == {"demo.py", "opt/env/bin/demo", "demo-0.9.dist-info"}


PATHS = st.lists(st.sampled_from(["a", "b", "c.py", "d.py"]), min_size=1, max_size=4).map("/".join)


@settings(max_examples=200, deadline=None)
@given(
    owners=st.dictionaries(PATHS, st.sets(st.sampled_from(["one", "two", "three"]), max_size=2), max_size=12),
    locked=st.sets(st.sampled_from(["one", "two", "new"])),
    incoming=st.sets(PATHS, max_size=4),
)
def test_whatever_is_shared_with_whom(owners: dict[str, set[str]], locked: set[str], incoming: set[str]) -> None:
    """There go exactly the files that only replaced distributions list, and each folder that has no other file."""
    owners = {
        path: names for path, names in owners.items() if not any(other.startswith(f"{path}/") for other in owners)
    }
    listed = {name: [path for path, names in owners.items() if name in names] for name in ("one", "two", "three")}
    probe = base(
        *(make_distribution(name, *paths) for name, paths in listed.items()),
        folders=[folder for path in owners for folder in parents(path)],
        occupied=[folder for path, names in owners.items() if not names for folder in parents(path)],
    )
    gone = removed(probe, *locked, incoming=incoming)

    def is_gone(path: str) -> bool:
        return path in gone or any(folder in gone for folder in parents(path))

    going = {path for path, names in owners.items() if names and names <= locked}
    covered = {folder for path in incoming for folder in parents(path)}
    assert {path for path in owners if is_gone(path)} == going - covered
    assert not any(folder in gone for path in gone for folder in parents(path)), "no path below another"
    for folder in {folder for path in going for folder in parents(path)}:
        is_held = any(path.startswith(f"{folder}/") for path in (*(owners.keys() - going), *incoming))
        assert is_gone(folder) != is_held


# -- bytecode ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("a/__pycache__/x.cpython-311.pyc", "a/x.py"),
        ("a/__pycache__/x.cpython-311.opt-2.pyc", "a/x.py"),
        ("a/__pycache__/x.y.pypy39.pyc", "a/x.y.py"),
        ("a/x.pyc", "a/x.py"),
        ("a/x.pyo", "a/x.py"),
        ("a/x.py", None),
        ("a/__pycache__/x.so", None),
    ],
)
def test_bytecode_tells_its_source(path: str, source: str | None) -> None:
    """As PEP 3147 and PEP 488 name it, and as Python 2 did."""
    assert source_of(path) == source


def test_bytecode_goes_with_its_source_whoever_made_it() -> None:
    """Of other interpreters, of all optimisations, beside the source, and of sources that were gone before; that of
    what stays stays. So nothing is left of the folder."""
    probe = base(
        make_distribution("demo", "demo/__init__.py", "one.py"),
        make_distribution("other", "two.py"),
        compiled={
            "demo/__pycache__": ["__init__.cpython-311.pyc", "__init__.pypy39.pyc", "gone.cpython-311.opt-2.pyc"],
            "demo": ["__init__.pyc"],
            "__pycache__": ["one.cpython-311.pyc", "two.cpython-311.pyc", "lost.cpython-311.pyc"],
        },
    )
    assert removed(probe, "demo") == {
        "demo",
        "one.py",
        "__pycache__/one.cpython-311.pyc",
        "__pycache__/lost.cpython-311.pyc",
        "demo-0.9.dist-info",
    }


def test_only_bytecode_that_is_there_is_deleted() -> None:
    """A source that was never compiled makes no whiteout but its own."""
    probe = base(make_distribution("demo", "a.py", "b.py"), compiled={"__pycache__": ["b.cpython-311.pyc"]})
    assert removed(probe, "demo") == {"a.py", "b.py", "__pycache__", "demo-0.9.dist-info"}


# -- several copies ---------------------------------------------------------------------------------------------------


def test_all_copies_of_a_distribution_go() -> None:
    """Two versions in one folder, or in the two folders of packages: none stays to be seen."""
    old = make_distribution("demo", "demo.py", "old.py", metadata_directory="demo-0.8.dist-info", version="0.8")
    platlib = make_distribution("demo", location="/opt/env/lib64/python3.11/site-packages")
    probe = base(make_distribution("demo", "demo.py"), copies=(old, platlib))
    assert removed(probe, "demo") == {
        "demo.py",
        "old.py",
        "demo-0.9.dist-info",
        "demo-0.8.dist-info",
        "opt/env/lib64/python3.11/site-packages/demo-0.9.dist-info",
    }


def test_metadata_that_was_left_over_goes() -> None:
    """Of a version that was overwritten there may be no list; the one that is there has one."""
    broken = make_distribution("demo", files=None, metadata_directory="demo-0.7.dist-info", version="")
    assert removed(base(make_distribution("demo", "demo.py"), copies=(broken,)), "demo") == {
        "demo.py",
        "demo-0.9.dist-info",
        "demo-0.7.dist-info",
    }


def test_the_files_of_all_copies_are_the_distributions() -> None:
    """A file that only the second copy lists still belongs to it as long as it stays."""
    copy = make_distribution("demo", "old.py", metadata_directory="demo-0.8.dist-info")
    probe = base(make_distribution("demo", "demo.py"), copies=(copy,))
    staying = replacement(probe, make_lock()).staying
    assert staying[f"{IN_SITE}/demo.py"] == staying[f"{IN_SITE}/old.py"] == "demo"


# -- what cannot be removed -------------------------------------------------------------------------------------------


def test_one_that_cannot_be_removed_is_shadowed_or_refused() -> None:
    """Without a list of files: left alone in another folder, refused in the folder of new packages, naming it."""
    elsewhere = make_distribution("demo", files=None, location=SYSTEM)
    assert removed(base(elsewhere), "demo") == set()
    here = make_distribution("demo", files=None)
    with pytest.raises(UnbuildableEnvironment, match=r"demo 0\.9 .*cannot be replaced: it has no list") as caught:
        removed(base(here), "demo")
    assert SITE not in caught.value.message
    assert removed(base(here), "other") == set()


def test_one_that_python_finds_first_cannot_be_shadowed() -> None:
    """A folder that comes before that of new packages, as those of PYTHONPATH do, is refused; one behind is not."""
    demo = make_distribution("demo", files=None, location="/srv/modules")
    behind = base(demo, import_path=("/usr/lib/python3.11", SITE, "/srv/modules"))
    assert removed(behind, "demo") == set()
    before = base(demo, import_path=("/srv/modules", "/usr/lib/python3.11", SITE))
    with pytest.raises(UnbuildableEnvironment, match=r"demo 0\.9 .*cannot be replaced: .*searches before"):
        removed(before, "demo")


@pytest.mark.parametrize("path", ["/etc/passwd", "/opt/env/lib/python3.11/os.py", "/opt/env/bin/python3"])
def test_files_of_the_system_are_never_deleted(path: str) -> None:
    """A RECORD that names a file outside of the scheme, of the standard library or the interpreter: refused, or
    shadowed where the distribution is elsewhere as a whole."""
    probe = base(make_distribution("demo", "demo.py", path))
    with pytest.raises(UnbuildableEnvironment, match=r"demo 0\.9 .*cannot be replaced: it has files in places"):
        removed(probe, "demo")
    assert removed(base(make_distribution("demo", f"{SYSTEM}/demo.py", path, location=SYSTEM)), "demo") == set()


def test_an_egg_goes_as_a_whole() -> None:
    """With its programs. Its line in `easy-install.pth` leads nowhere then, and is passed over."""
    egg = make_distribution(
        "demo",
        files=None,
        location=f"{SITE}/demo-0.9-py3.11.egg",
        metadata_directory="EGG-INFO",
        scripts=("/opt/env/bin/demo",),
    )
    probe = base(egg, folders=["demo-0.9-py3.11.egg"], import_path=(f"{SITE}/demo-0.9-py3.11.egg", SITE))
    assert removed(probe, "demo") == {"demo-0.9-py3.11.egg", "opt/env/bin/demo"}


def test_an_editable_install_goes() -> None:
    """Its RECORD lists the hook that makes it importable; the sources are elsewhere and stay."""
    demo = make_distribution("demo", "__editable__.demo-0.9.pth", "__editable___demo_0_9_finder.py")
    assert removed(base(demo), "demo") == {
        "__editable__.demo-0.9.pth",
        "__editable___demo_0_9_finder.py",
        "demo-0.9.dist-info",
    }


def test_a_setuptools_develop_install_is_shadowed_or_refused() -> None:
    """Its metadata is among the sources, which `easy-install.pth` puts behind the folder of packages."""
    demo = make_distribution("demo", files=None, location="/srv/demo", metadata_directory="demo.egg-info")
    assert removed(base(demo, import_path=(SITE, "/srv/demo")), "demo") == set()
    with pytest.raises(UnbuildableEnvironment, match=r"demo 0\.9"):
        removed(base(demo, import_path=("/srv/demo", SITE)), "demo")


# -- conda ------------------------------------------------------------------------------------------------------------

RECORD = "/opt/env/conda-meta/pytorch-0.9-py311_0.json"


def conda(*distributions: InstalledDistribution, **changes: Any) -> BaseProbe:
    """A base where these distributions are in one conda package."""
    package = CondaPackage(
        name="pytorch",
        metadata=tuple(f"{found.location}/{found.metadata_directory}" for found in distributions),
        **{"files": (f"{SITE}/torch/extra.so",), **changes},
    )
    return base(*distributions, conda={RECORD: package}, folders=["/opt/env/conda-meta", "torch"])


def test_condas_record_goes_with_its_package() -> None:
    """By the files that it lists, whatever the package is called; its other files in the folders of packages go too."""
    probe = conda(make_distribution("torch", "torch/__init__.py"))
    assert removed(probe, "torch") == {"torch", "torch-0.9.dist-info", RECORD[1:]}
    assert removed(probe, "pytorch") == set()
    assert replacement(probe, make_lock()).staying[f"{IN_SITE}/torch/extra.so"] == "torch"


def test_condas_list_of_files_does_where_there_is_no_other() -> None:
    """Old packages have an egg-info without a list."""
    egg_info = make_distribution(
        "torch", files=None, metadata_directory="torch.egg-info", scripts=("/opt/env/bin/torch",)
    )
    files = (f"{SITE}/torch/x.py", f"{SITE}/torch.egg-info/PKG-INFO")
    assert removed(conda(egg_info, files=files), "torch") == {
        "torch",
        "torch.egg-info",
        "opt/env/bin/torch",
        RECORD[1:],
    }


def test_condas_record_stays_with_what_else_it_lists() -> None:
    """Shared libraries and programs of the package may be needed by others; the files of packages go all the same."""
    probe = conda(make_distribution("torch", "torch/__init__.py"), has_more=True)
    assert removed(probe, "torch") == {"torch", "torch-0.9.dist-info"}


def test_condas_record_stays_with_another_distribution_in_it() -> None:
    """Whose the other files are is not known then, so they stay; when both are replaced, all go."""
    torch = make_distribution("torch", "torch/__init__.py")
    probe = conda(torch, make_distribution("functorch", "functorch/__init__.py"))
    assert removed(probe, "torch") == {"torch/__init__.py", "torch-0.9.dist-info"}
    assert removed(probe, "torch", "functorch") == {
        "torch",
        "functorch",
        "torch-0.9.dist-info",
        "functorch-0.9.dist-info",
        RECORD[1:],
    }
    without_list = conda(torch, make_distribution("functorch", files=None))
    with pytest.raises(UnbuildableEnvironment, match=r"functorch 0\.9 .*no list of its files"):
        removed(without_list, "functorch")
