"""Move the environment of /opt/venv to /opt/conda and write the records that conda would have written.

Most packages say that conda installed them, with the traces that conda-build leaves in their metadata. A few are such
as no index has, and two requirements are not met, as it happens in images that live long.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from moving import Distribution, Environment, compile_all

PREFIX = Path("/opt/conda")
VERSION = "python{}.{}".format(*sys.version_info[:2])
PACKAGES = Path("lib", VERSION, "site-packages")
META = PREFIX / "conda-meta"
INTERPRETER = f"{PREFIX}/bin/{VERSION}"

PUT_THERE_BY_PIP = {"sphinxcontrib-qthelp"}
NAMES = {
    # conda's names, where they are not the index's. Its `tzdata` is something else.
    "jupyter-client": "jupyter_client",
    "jupyter-core": "jupyter_core",
    "jupyter-events": "jupyter_events",
    "jupyter-server": "jupyter_server",
    "jupyterhub": "jupyterhub-base",
    "jupyterlab-server": "jupyterlab_server",
    "prometheus-client": "prometheus_client",
    "pure-eval": "pure_eval",
    "stack-data": "stack_data",
    "typing-extensions": "typing_extensions",
    "tzdata": "python-tzdata",
}

NO_INDEX_HAS = {
    # name: version, requirements
    "conda": ("25.9.1", ["conda-libmamba-solver>=25.4.0", "menuinst>=2", "requests<3,>=2.28.0"]),
    # The last two are not met.
    "conda-libmamba-solver": ("25.4.0", ["conda>=23.7.3", "libmambapy>=2", "json5<0.12", "boltons>=23.0.2", "idna<3"]),
    "libmambapy": ("2.3.3", []),
    "menuinst": ("2.3.1", []),
}
WHEEL = "Wheel-Version: 1.0\nGenerator: hatchling 1.27.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
CONDA_SCRIPT = f"""\
#!{INTERPRETER}
import sys

# Stands in for conda: `conda shell.bash hook`, which docker-stacks' start hook evaluates.
if sys.argv[1:] == ["shell.bash", "hook"]:
    print("export CONDA_PREFIX={PREFIX} CONDA_DEFAULT_ENV=base CONDA_SHLVL=1")
"""


def write_package(target: Environment, name: str, version: str, requires: list[str]) -> Distribution:
    """A package of one module, as far as an installer sees it."""
    module = name.replace("-", "_")
    metadata = target.site / f"{module}-{version}.dist-info"
    metadata.mkdir()
    (target.site / module).mkdir()
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    texts = {
        f"{module}/__init__.py": f"__version__ = {version!r}\n",
        f"{metadata.name}/METADATA": "".join(f"{line}\n" for line in lines),
        f"{metadata.name}/WHEEL": WHEEL,
    }
    files = list(texts)
    for file, text in texts.items():
        (target.site / file).write_text(text)
    if name == "conda":
        script = PREFIX / "bin" / "conda"
        script.write_text(CONDA_SCRIPT)
        script.chmod(0o755)
        files.append("../../../bin/conda")
    return Distribution(target, metadata, name, version, tuple(requires), tuple(files))


def of_conda(distribution: Distribution) -> list[str]:
    """Write the metadata that conda-build leaves; return the files as conda lists them."""
    origin = f"file:///croot/{distribution.name}_1740000000000/work"
    texts = {
        "INSTALLER": "conda\n",
        "REQUESTED": "",
        "direct_url.json": json.dumps({"dir_info": {}, "url": origin}),
    }
    # A noarch package was installed once by pip, on the builder, whose Python may be another; conda has its own list.
    built = tuple(file.replace(f".{sys.implementation.cache_tag}.", ".cpython-39.") for file in distribution.bytecode())
    files = distribution.write_record(texts, with_bytecode=False, absent=built[:1])
    return sorted(os.path.normpath(PACKAGES / file) for file in [*files, *distribution.bytecode()])


def write_conda_record(name: str, version: str, files: list[str], *, build: str, depends: list[str]) -> None:
    """`conda-meta/<name>-<version>-<build>.json`, with the keys that conda writes."""
    subdir = "noarch" if build.startswith("pyh") else f"linux-{platform.machine().replace('x86_64', '64')}"
    archive = f"{name}-{version}-{build}.conda"
    paths = []
    for file in files:
        content = (PREFIX / file).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        kind = "softlink" if (PREFIX / file).is_symlink() else "hardlink"
        if file.endswith(".pyc") and subdir == "noarch":
            paths.append({"_path": file, "path_type": "pyc_file"})
        else:
            paths.append(
                {
                    "_path": file,
                    "path_type": kind,
                    "sha256": digest,
                    "sha256_in_prefix": digest,
                    "size_in_bytes": len(content),
                }
            )
    fingerprint = hashlib.sha256(archive.encode()).hexdigest()
    record: dict[str, Any] = {
        "arch": None,
        "build": build,
        "build_number": 0,
        "channel": f"conda-forge/{subdir}",
        "constrains": [],
        "depends": depends,
        "extracted_package_dir": f"{PREFIX}/pkgs/{name}-{version}-{build}",
        "files": files,
        "fn": archive,
        "license": "",
        "link": {"source": f"{PREFIX}/pkgs/{name}-{version}-{build}", "type": 1},
        "md5": fingerprint[:32],
        "name": name,
        "package_tarball_full_path": f"{PREFIX}/pkgs/{archive}",
        "paths_data": {"paths": paths, "paths_version": 1},
        "requested_spec": "",
        "sha256": fingerprint,
        "size": sum((PREFIX / file).stat().st_size for file in files),
        "subdir": subdir,
        "timestamp": 1740000000000,
        "url": f"conda-forge/{subdir}/{archive}",
        "version": version,
    }
    if subdir == "noarch":
        record["noarch"] = "python"
    (META / f"{name}-{version}-{build}.json").write_text(json.dumps(record, indent=2) + "\n")


def build_of(distribution: Distribution) -> str:
    """conda's build string: pure packages are `noarch`, others are built for a Python."""
    if any(file.endswith(".so") for file in distribution.files):
        return "py{}{}h0123456_0".format(*sys.version_info[:2])
    return "pyhd8ed1ab_0"


def below(folder: Path) -> list[str]:
    """Files and links below a folder, relative to the prefix."""
    return [str(path.relative_to(PREFIX)) for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file()]


def main() -> None:
    META.mkdir()
    source = Environment(prefix=Path("/opt/venv"), packages=PACKAGES)
    target = Environment(prefix=PREFIX, packages=PACKAGES)
    pythons_own = below(PREFIX)
    moved = [distribution.moved(target, interpreter=INTERPRETER) for distribution in source.distributions()]
    moved += [write_package(target, name, *facts) for name, facts in NO_INDEX_HAS.items()]
    compile_all(PREFIX / "lib")

    library = PREFIX / "lib" / VERSION
    compiled = [file for file in below(library) if file.endswith(".pyc") and "site-packages" not in Path(file).parts]
    python = platform.python_version()
    write_conda_record(
        "python", python, sorted({*pythons_own, *compiled}), build="h0123456_0_cpython", depends=["tzdata"]
    )
    zones = PREFIX / "share/zoneinfo/tzdata.zi"
    zones.parent.mkdir(parents=True, exist_ok=True)
    zones.write_text("# version 2025b\n")
    write_conda_record("tzdata", "2025b", below(zones.parent), build="h0123456_0", depends=[])
    for distribution in moved:
        if distribution.name in PUT_THERE_BY_PIP:
            distribution.write_record({"INSTALLER": "pip\n"}, with_bytecode=True)
            continue
        name = NAMES.get(distribution.name, distribution.name)
        write_conda_record(
            name, distribution.version, of_conda(distribution), build=build_of(distribution), depends=["python"]
        )

    specs = sorted(f"conda-forge/noarch::{path.stem}" for path in META.glob("*.json"))
    history = ["==> 2025-03-01 12:00:00 <==", "# cmd: install", *(f"+{spec}" for spec in specs)]
    (META / "history").write_text("\n".join(history) + "\n")
    (META / "pinned").write_text("python {}.{}.*\n".format(*sys.version_info[:2]))
    (PREFIX / ".condarc").write_text("auto_update_conda: false\nshow_channel_urls: true\nchannels:\n  - conda-forge\n")


if __name__ == "__main__":
    main()
