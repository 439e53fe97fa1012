"""One request, many hubs and engines, empty caches: one tag, and equal files, path by path and to the second."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain, product
from pathlib import Path

import pytest

from prebuilt_spawner.adapters.docker_handover import Handover

from ..crafted_sdists import sdist
from ..index_server import IndexServer
from .conftest import MAKE
from .private_engine import ENGINES, PrivateEngine
from .small_bases import SmallBase
from .trees import Entry, differing, tree

REPOSITORY = "prebuilt-spawner-test/same"
REQUEST = ["demo-app", "demo-heavy", "demo-source", "old-demo>=2"]
PYTHONS = os.environ.get("PREBUILT_SPAWNER_TEST_PYTHONS", "").split()
"""Interpreters of other versions that have this project, made by `dev/hub_pythons`."""
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def index() -> Iterator[IndexServer]:
    with IndexServer() as index:
        index.add_wheel(
            "demo-app",
            "1.0",
            requires=["demo-lib"],
            files={
                "demo_app/__init__.py": "def main():\n    import demo_lib\n    print(demo_lib.what)\n",
                "demo_app/wörter/ä.txt": "ü",
                "demo_app-1.0.data/data/share/demo/data.txt": "data",
                "demo_app-1.0.data/scripts/demo-script": "#!python\nprint('script')\n",
            },
            entry_points="[console_scripts]\ndemo-app = demo_app:main\n",
        )
        index.add_wheel("demo-lib", "2.0", files={"demo_lib.py": "what = 'lib'\n", "demo_lib_data/empty": ""})
        index.add_wheel("old-demo", "2.0", files={"old_demo/__init__.py": "what = 'new'\n"})
        index.add_wheel("demo-heavy", "1.0", files={"demo_heavy/data": bytes(range(256)) * 45_000})
        # Each hub builds it for itself.
        index.add_file(sdist("demo-source", "1.0"))
        yield index


@pytest.fixture(scope="module")
def pythons() -> list[str]:
    if not PYTHONS and os.environ.get("CI"):
        pytest.fail(f"PREBUILT_SPAWNER_TEST_PYTHONS names no interpreters: {MAKE}")
    return PYTHONS or [sys.executable]


def made_by(python: str, private: PrivateEngine, base: str, index: IndexServer, folder: Path, how: Handover) -> str:
    """The name of the image that a hub on this interpreter makes."""
    folder.mkdir()
    arguments = {
        "requirements": REQUEST,
        "base": base,
        "repository": REPOSITORY,
        "folder": str(folder),
        "client_kwargs": {"base_url": private.url},
        "index_url": index.url,
        "handover": how,
    }
    done = subprocess.run(
        [python, "-m", "tests.stores.assemble_once", json.dumps(arguments)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def taken(private: PrivateEngine, image: str) -> dict[str, Entry]:
    """The image's files; the image is removed."""
    files = dict(tree(private.client, image))
    (script,) = (f"/{path}" for path in files if path.endswith("/demo-app"))
    assert private.run(image, script) == "lib"
    private.remove_image(image)
    return files


async def test_an_environment_has_one_tag_and_the_same_files_wherever_it_is_made(
    private_engines: dict[str, PrivateEngine],
    published: str,
    index: IndexServer,
    pythons: list[str],
    tmp_path: Path,
    small: SmallBase,
):
    archives = product(pythons, ENGINES, ["archive"])
    builds = product([sys.executable], ENGINES, ["build"])
    seen: dict[tuple[str, str, str], tuple[str, dict[str, Entry]]] = {}
    for number, (python, kind, how) in enumerate(chain(archives, builds)):
        private = private_engines[kind]
        image = await asyncio.to_thread(made_by, python, private, published, index, tmp_path / str(number), how)
        seen[python, kind, how] = image, taken(private, image)
    first_image, first = next(iter(seen.values()))
    site = small.purelib.strip("/")
    assert first[f"{site}/old_demo/__init__.py"]
    assert first[f"{site}/demo_source.py"]
    assert f"{site}/old_demo/only_old.py" not in first
    for place, (image, files) in seen.items():
        assert (image, differing(files, first)) == (first_image, {}), place
