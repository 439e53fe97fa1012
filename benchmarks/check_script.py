"""Runs in an image under measurement: reads a list of distributions, and prints what it finds of them, as JSON."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main(wanted: dict[str, str]) -> None:
    """`wanted` is the version by name."""
    found: dict[str, str] = {}
    sources = compiled = 0
    modules: set[str] = set()
    for name in wanted:
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[name] = distribution.version
        for file in distribution.files or ():
            path = os.fspath(distribution.locate_file(file))
            if path.endswith(".py") and ".." not in file.parts:
                sources += 1
                compiled += Path(importlib.util.cache_from_source(path)).exists()
            if len(file.parts) == 2 and file.parts[1] == "__init__.py":
                modules.add(file.parts[0])
            elif len(file.parts) == 1 and path.endswith((".py", ".so")):
                modules.add(file.name.partition(".")[0])
    failures: dict[str, str] = {}
    for module in sorted(modules):
        try:
            importlib.import_module(module)
        except BaseException as error:  # whatever it is, the module cannot be used
            failures[module] = f"{type(error).__name__}: {error}"[:300]
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    lines = [] if check.returncode == 0 else (check.stdout + check.stderr).splitlines()
    report = {"found": found, "imported": sorted(modules), "failures": failures, "sources": sources}
    print(json.dumps({**report, "compiled": compiled, "pip_check": lines}))


def time_imports(modules: list[str]) -> None:
    """Print how many seconds the imports take in this new process."""
    begun = time.perf_counter()
    for module in modules:
        importlib.import_module(module)
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    argument = json.loads(sys.argv[1])
    if isinstance(argument, dict):
        main(argument)
    else:
        time_imports(argument)
