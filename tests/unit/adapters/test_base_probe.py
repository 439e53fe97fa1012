"""What the probe's script says of a Python environment, with the interpreter of a real one."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from prebuilt_spawner.adapters import base_probe_script
from prebuilt_spawner.adapters.base_probe import PROBE_VERSION, ProbeShelf, probe_script, read_probe
from prebuilt_spawner.environment.base import CondaPackage

from ..environments import SITE, Environment


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An empty one."""
    return Environment(tmp_path / "env")


def test_files_are_those_of_the_list_that_are_there(environment: Environment) -> None:
    """Not what is missing, not folders, each by its real path, be it outside of the environment."""
    outside = environment.folder.parent / "outside"
    outside.write_text("")
    environment.install("demo", "demo.py", "-gone.py", "-folder", "../../../share/demo", "-../../../lib64/linked.py")
    environment.install("more", f"-{outside}", f"-{outside}-gone")
    environment.write({"folder/x": "", "linked.py": ""})
    assert (environment.folder / "lib64").is_symlink()
    probe = environment.probe()
    info = [f"{environment.site}/demo-1.0.dist-info/{name}" for name in ("METADATA", "RECORD")]
    assert probe.distributions["demo"].files == tuple(
        sorted([f"{environment.site}/demo.py", f"{environment.folder}/share/demo", *info])
    )
    assert str(outside) in (probe.distributions["more"].files or ())
    assert f"{outside}-gone" not in (probe.distributions["more"].files or ())


def test_a_file_behind_a_linked_folder_is_listed_where_it_is(environment: Environment) -> None:
    """A whiteout in a linked folder would replace the link."""
    environment.install("demo", "-linked/x.py")
    environment.write({"real/x.py": ""})
    (Path(environment.site) / "linked").symlink_to("real")
    probe = environment.probe()
    assert f"{environment.site}/real/x.py" in (probe.distributions["demo"].files or ())
    assert probe.links[f"{environment.site}/linked"] == f"{environment.site}/real"
    assert environment.site in probe.occupied  # the link itself is nobody's


def test_bytecode_is_told_apart(environment: Environment) -> None:
    """Of listed sources, and of sources that are gone beside listed files; that of nobody's sources is nobody's."""
    environment.install("demo", "demo/__init__.py", "demo/listed.py", "demo/__pycache__/listed.cpython-311.pyc")
    environment.install("tidy", "tidy/__init__.py")
    environment.write(
        {
            "demo/nobodys.py": "",
            "demo/__init__.pyc": "",
            "demo/nobodys.pyc": "",
            "demo/__pycache__/__init__.cpython-311.opt-1.pyc": "",
            "demo/__pycache__/listed.pypy39.pyc": "",
            "demo/__pycache__/gone.cpython-311.pyc": "",
            "demo/__pycache__/nobodys.cpython-311.pyc": "",
            "demo/__pycache__/cache.nbi": "",
            "tidy/__pycache__/__init__.cpython-311.pyc": "",
        }
    )
    probe = environment.probe()
    assert probe.compiled == {
        f"{environment.site}/demo": ("__init__.pyc",),
        f"{environment.site}/demo/__pycache__": (
            "__init__.cpython-311.opt-1.pyc",
            "gone.cpython-311.pyc",
            "listed.pypy39.pyc",
        ),
        f"{environment.site}/tidy/__pycache__": ("__init__.cpython-311.pyc",),
    }
    below_demo = {path for path in probe.occupied if path.startswith(f"{environment.site}/")}
    assert below_demo == {f"{environment.site}/demo", f"{environment.site}/demo/__pycache__"}


def test_occupied_folders_are_told(environment: Environment) -> None:
    """Those with listed files in or below them, and in or below them also somebody else's; an empty one is neither."""
    environment.install("demo", "demo/x.py", "demo/deep/y.py", "tidy/z.py")
    environment.write({"demo/deep/cache/file": "", "nobodys/file": ""})
    (Path(environment.site) / "tidy" / "empty").mkdir()
    occupied = {path for path in environment.probe().occupied if path.startswith(environment.site)}
    assert occupied == {environment.site, f"{environment.site}/demo", f"{environment.site}/demo/deep"}


def test_a_folder_that_cannot_be_read_is_occupied() -> None:
    """Whatever is in it is not ours to delete. (Root reads every folder, so there is none on the disk here.)"""
    holdings = base_probe_script._Holdings({"/place/demo": ["x.py"], "/place/demo/hidden": None})
    holdings.those_there(["/place/demo/x.py"])
    assert holdings.report() == ({}, ["/place", "/place/demo"])


def test_programs_of_entry_points_that_no_list_names(environment: Environment) -> None:
    """They are there, and nobody lists them."""
    groups = {"console_scripts": ("run", "listed", "absent", "a/b"), "gui_scripts": ("show",), "x": ("no",)}
    lines = (f"[{group}]\n" + "".join(f"{name} = demo:x\n" for name in names) for group, names in groups.items())
    environment.install("demo", "../../../bin/listed", entry_points="".join(lines))
    environment.write({"run": "", "show": "", "no": ""}, below="bin")
    found = environment.probe().distributions["demo"].scripts
    assert found == (f"{environment.folder}/bin/run", f"{environment.folder}/bin/show")


def test_every_copy_is_told(environment: Environment) -> None:
    """A second version in the same folder, one further down the path, and metadata without a name."""
    environment.install("demo", "demo.py")
    environment.install("demo", "old.py", version="0.9")
    environment.install("demo", "demo.py", version="0.8", where=f"{SITE}/more")
    environment.write({"more.pth": "more", "broken-2.0.dist-info/METADATA": "", "Odd.Name.egg-info": ""})
    probe = environment.probe()
    found = [probe.distributions["demo"], *(copy for copy in probe.copies if copy.name == "demo")]
    assert {(copy.version, copy.location) for copy in found} == {
        ("1.0", environment.site),
        ("0.9", environment.site),
        ("0.8", f"{environment.site}/more"),
    }
    nameless = {copy.name: copy for copy in probe.copies if copy.name != "demo"}
    assert set(nameless) == {"broken", "odd-name"}
    assert nameless["broken"].version == ""
    assert "broken" not in probe.distributions
    assert probe.import_path[-2:] == (environment.site, f"{environment.site}/more")


def test_pythonpath_comes_first(environment: Environment) -> None:
    """The server does not run isolated, as the script does."""
    environment.install("demo", "demo.py")
    environment.install("demo", "demo.py", version="2.0", where="early")
    variables = {"PYTHONPATH": os.pathsep.join([f"{environment.folder}/early", "relative", "", "/no/such"])}
    probe = environment.probe(**variables)
    assert probe.import_path[0] == f"{environment.folder}/early"
    assert probe.distributions["demo"].version == "2.0"
    assert probe.copies[0].version == "1.0"
    assert not any("relative" in path or "such" in path for path in probe.import_path)


def test_modules_that_start_with_python_are_told(environment: Environment) -> None:
    """The first of each on the path."""
    environment.write({"usercustomize.py": "", "later/usercustomize/__init__.py": "", "x.pth": "later"})
    probe = environment.probe()
    assert probe.customisers["usercustomize"] == f"{environment.site}/usercustomize.py"


def test_setuptools_lists_are_read(environment: Environment) -> None:
    """An egg-info may have its files in `installed-files.txt`, relative to itself; without that there is no list."""
    metadata = "Metadata-Version: 1.0\nName: {}\nVersion: 1.0\n"
    environment.write(
        {
            "demo-1.0.egg-info/PKG-INFO": metadata.format("demo"),
            "demo-1.0.egg-info/installed-files.txt": "../demo.py\nPKG-INFO\n../gone.py\n",
            "demo.py": "",
            "other-1.0.egg-info": metadata.format("other"),
        }
    )
    found = environment.probe().distributions
    assert found["demo"].files == (f"{environment.site}/demo-1.0.egg-info/PKG-INFO", f"{environment.site}/demo.py")
    assert found["other"].files is None
    assert found["other"].metadata_directory == "other-1.0.egg-info"


def test_an_egg_is_told_by_its_folder(environment: Environment) -> None:
    """`easy-install.pth` puts it on the path; its programs are in the scheme's folder."""
    environment.write(
        {
            "demo-1.0-py3.egg/EGG-INFO/PKG-INFO": "Metadata-Version: 1.0\nName: demo\nVersion: 1.0\n",
            "demo-1.0-py3.egg/EGG-INFO/entry_points.txt": "[console_scripts]\nrun = demo:main\n",
            "easy-install.pth": "./demo-1.0-py3.egg\n",
        }
    )
    environment.write({"run": ""}, below="bin")
    demo = environment.probe().distributions["demo"]
    assert (demo.location, demo.metadata_directory) == (f"{environment.site}/demo-1.0-py3.egg", "EGG-INFO")
    assert demo.files is None
    assert demo.scripts == (f"{environment.folder}/bin/run",)


def conda_record(environment: Environment, name: str, files: Any) -> str:
    """Write conda's record of a package; its path."""
    environment.write({f"{name}.json": json.dumps({"name": name, "files": files})}, below="conda-meta")
    return f"{environment.folder}/conda-meta/{name}.json"


def test_conda_packages_are_found_by_their_files(environment: Environment) -> None:
    """Not by their names; what they have beyond the lists of their distributions is told, elsewhere as a word only."""
    entry_points = "[console_scripts]\nt = a:b\n"
    environment.install("torch", "torch/__init__.py", "../../../bin/torchrun", entry_points=entry_points)
    environment.install("functorch", "functorch.py")
    environment.write({"torch/extra.so": "", "torch/__pycache__/__init__.cpython-311.pyc": ""})
    environment.write({"t": ""}, below="bin")
    environment.write({"libtorch.so": "", "libz.so": ""}, below="lib")
    torch = [
        f"{SITE}/torch/__init__.py",
        f"{SITE}/torch/__pycache__/__init__.cpython-311.pyc",
        f"{SITE}/torch/extra.so",
        f"{SITE}/torch/gone.so",
        f"{SITE}/torch-1.0.dist-info/METADATA",
        "bin/torchrun",
        "bin/t",
    ]
    record = conda_record(environment, "pytorch", torch)
    both = conda_record(environment, "py-both", [*torch, f"{SITE}/functorch-1.0.dist-info/METADATA", "lib/libtorch.so"])
    conda_record(environment, "zlib", ["lib/libz.so"])
    conda_record(environment, "broken", 3)
    environment.write({"history": "", "junk.json": "{", "list.json": "[]"}, below="conda-meta")
    probe = environment.probe()
    metadata = f"{environment.site}/torch-1.0.dist-info"
    extra = f"{environment.site}/torch/extra.so"
    other = f"{environment.site}/functorch-1.0.dist-info"
    assert probe.conda == {
        record: CondaPackage(name="pytorch", metadata=(metadata,), files=(extra,), has_more=False),
        both: CondaPackage(name="py-both", metadata=(other, metadata), files=(extra,), has_more=True),
    }
    assert f"{environment.site}/torch" not in probe.occupied


def test_an_old_conda_package_has_condas_list_only(environment: Environment) -> None:
    """Its egg-info names no files; sources and bytecode are all conda's."""
    environment.write(
        {
            "demo-1.0.egg-info": "Metadata-Version: 1.0\nName: demo\nVersion: 1.0\n",
            "demo/x.py": "",
            "demo/__pycache__/x.cpython-311.pyc": "",
        }
    )
    files = [f"{SITE}/{name}" for name in ("demo-1.0.egg-info", "demo/x.py", "demo/__pycache__/x.cpython-311.pyc")]
    probe = environment.probe()
    assert f"{environment.site}/demo" not in probe.occupied  # it has no listed file
    record = conda_record(environment, "demo", files)
    probe = environment.probe()
    assert set(probe.conda[record].files) == {f"{environment.folder}/{file}" for file in files}
    assert f"{environment.site}/demo" not in probe.occupied


def test_a_kept_probe_is_read_again(environment: Environment, tmp_path: Path) -> None:
    """The shelf gives back what it was given, and nothing for another base or of another version."""
    done = subprocess.run(
        [f"{environment.folder}/bin/python", "-I", "-c", probe_script()], capture_output=True, text=True, check=True
    )
    shelf = ProbeShelf(tmp_path / "cache" / "probes")
    shelf.put("d" * 64, done.stdout)
    assert shelf.get("d" * 64) == read_probe(done.stdout)
    assert shelf.get("e" * 64) is None
    report = json.loads(done.stdout)
    del report["occupied"]
    with pytest.raises(ValueError, match="not a report"):
        read_probe(json.dumps(report))
    assert [path.name for path in (tmp_path / "cache" / "probes").iterdir()] == [f"{'d' * 64}.v{PROBE_VERSION}.json"]
