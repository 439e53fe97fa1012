"""A real environment from which pip uninstalls, and one from which we delete: what is left is the same, or better."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from prebuilt_spawner.image.replacement import replacement

from ..environments import SITE, Environment
from .wheels import make_lock

GOING = ("plain", "part", "littered", "shared", "old-bytecode", "annotated", "twice", "tool")


def fill(environment: Environment) -> None:
    """Distributions that each leave something of their own kind."""
    tag = sys.implementation.cache_tag
    environment.install("plain", "plain/__init__.py", "plain/deep/x.py", "plain/data.txt", "single.py")
    environment.install("part", "ns/part.py", "ns/sub/x.py", "ns/only/y.py")
    environment.install("other", "ns/other.py", "ns/sub/z.py", "common/__init__.py")
    environment.install("littered", "littered/__init__.py", "littered/empty/x.py", "littered/kept/x.py")
    environment.install("shared", "common/__init__.py", "common/shared.py")
    environment.install("old_bytecode", "older/__init__.py")
    environment.install("annotated", "annotated.py")
    environment.install("twice", "twice.py")
    environment.install("tool", "../../../share/tool/x", entry_points="[console_scripts]\ntool = tool:main\n")
    environment.write(
        {
            f"plain/__pycache__/__init__.{tag}.pyc": "",
            f"plain/deep/__pycache__/x.{tag}.pyc": "",
            f"__pycache__/single.{tag}.pyc": "",
            f"ns/__pycache__/part.{tag}.pyc": "",
            f"ns/__pycache__/other.{tag}.pyc": "",
            "littered/kept/made.txt": "",
            "older/__init__.pyc": "",
            "older/__pycache__/__init__.cpython-30.pyc": "",
            f"older/__pycache__/__init__.{tag}.opt-2.pyc": "",
            "annotated-1.0.dist-info/notes": "",
            "twice-0.9.dist-info/METADATA": "Metadata-Version: 2.1\nName: twice\nVersion: 0.9\n",
        }
    )
    environment.write({"tool": ""}, below="bin")
    for empty in ("plain/nothing", "littered/nothing"):
        (Path(environment.site) / empty).mkdir()


def everything(folder: Path) -> set[str]:
    """Files and folders, relative."""
    return {
        os.path.relpath(os.path.join(root, name), folder)
        for root, dirs, files in os.walk(folder)
        for name in dirs + files
    }


def test_what_is_left_is_what_pip_leaves_or_less(tmp_path: Path) -> None:
    """Emptied folders, bytecode, programs and data go, and others' files stay, as with pip.

    Better than pip: bytecode of other interpreters, unlisted metadata and a second copy go, and what another
    distribution lists, too, stays.
    """
    environment = Environment(tmp_path / "env")
    fill(environment)
    before = everything(environment.folder)
    removed = replacement(environment.probe(), make_lock(*GOING)).removed
    ours = tmp_path / "ours"
    shutil.copytree(environment.folder, ours, symlinks=True)
    for path in removed:
        target = ours / Path(f"/{path}").relative_to(environment.folder)
        shutil.rmtree(target) if target.is_dir() and not target.is_symlink() else target.unlink()
    pip = [sys.executable, "-m", "pip", "--python", f"{environment.folder}/bin/python", "uninstall", "--quiet", "--yes"]
    subprocess.run([*pip, *GOING], check=True, env={**os.environ, "PIP_CONFIG_FILE": os.devnull})
    theirs = everything(environment.folder)

    shared = {f"{SITE}/{path}" for path in ("common", "common/__init__.py")}
    assert everything(ours) - theirs == shared
    left = (
        "older",
        "older/__pycache__",
        "older/__pycache__/__init__.cpython-30.pyc",
        f"older/__pycache__/__init__.{sys.implementation.cache_tag}.opt-2.pyc",
        "annotated-1.0.dist-info",
        "annotated-1.0.dist-info/notes",
        "twice-0.9.dist-info",
        "twice-0.9.dist-info/METADATA",
    )
    # pip forgets the folder above an emptied one, which held its own temporary folder.
    assert theirs - everything(ours) == {f"{SITE}/{path}" for path in left} | {"share"}
    assert before > theirs
