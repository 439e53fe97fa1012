"""What the repository must have, and must not have, in the files that git knows or would add."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def dotted(*parts: str) -> str:
    """A host name as a pattern. Put together here, so that this file does not hold what it looks for."""
    return r"\.".join(parts)


REGISTRY_HOSTS = [
    dotted("pypi", "org"),
    dotted("pythonhosted", "org"),
    dotted("npmjs", "(?:org|com)"),
    dotted("yarnpkg", "com"),
    dotted(r"(?:deb|ftp[\w.]*|httpredir|security|snapshot)", "debian", "org"),
]
DEVELOPER_PATHS = [
    r"(?<![\w.~)}-])/" + r"work(?![\w-])",
    r"/var/" + r"tmp/\w",
    r"/" + r"(?:Users|mnt)/\w",
    r"(?<![\w~)}-])/root/" + r"\.\w",
    # The notebook user's home is part of docker-stacks' contract; single letters are examples.
    r"(?<![\w.])/home/" + r"(?!jovyan\b)[a-z]\w+/",
]


def files() -> list[Path]:
    """Tracked files, and new ones that are not ignored; without those that were deleted."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def found(patterns: list[str]) -> list[str]:
    """`file:line: text` for each match."""
    wanted = re.compile("|".join(patterns))
    return [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for file in files()
        for number, line in enumerate(file.read_bytes().decode("utf-8", "replace").splitlines(), 1)
        if wanted.search(line)
    ]


def test_no_file_names_the_host_of_a_package_registry():
    """Which index is asked is the administrator's setting, or the tools' default."""
    assert found(REGISTRY_HOSTS) == []


def test_no_file_names_a_path_of_a_developers_machine():
    assert found(DEVELOPER_PATHS) == []


@pytest.mark.parametrize(
    ("patterns", "text", "hit"),
    [
        (REGISTRY_HOSTS, "https://" + "pypi" + ".org/simple", True),
        (REGISTRY_HOSTS, "files." + "pythonhosted" + ".org", True),
        (REGISTRY_HOSTS, "http://" + "deb." + "debian" + ".org/debian", True),
        (REGISTRY_HOSTS, "https://www.debian" + ".org", False),
        (REGISTRY_HOSTS, "https://index.example/simple", False),
        (DEVELOPER_PATHS, "cd /" + "work/main", True),
        (DEVELOPER_PATHS, "(/" + "work)", True),
        (DEVELOPER_PATHS, "/home/" + "ada/src", True),
        (DEVELOPER_PATHS, "/home/jovyan/work", False),
        (DEVELOPER_PATHS, "https://peps.python.example/home/network/", False),
        (DEVELOPER_PATHS, "a/working/copy and /workspace", False),
    ],
)
def test_the_patterns_find_what_they_should(patterns, text, hit):
    assert bool(re.search("|".join(patterns), text)) is hit


@pytest.mark.parametrize("name", ["LICENSE", "CHANGELOG.md", "README.md", "pyproject.toml", "Makefile"])
def test_the_files_that_people_look_for_are_there(name):
    assert (ROOT / name).read_text("utf-8").strip()


MODULES = sorted((ROOT / "prebuilt_spawner").rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.relative_to(ROOT).as_posix())
def test_every_module_says_what_it_is(module):
    assert ast.get_docstring(ast.parse(module.read_text("utf-8")))
