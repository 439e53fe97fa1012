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
    modules: dict[str, str] = {}
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
                modules[file.parts[0]] = name
            elif len(file.parts) == 1 and path.endswith((".py", ".so")):
                modules[file.name.partition(".")[0]] = name
    failures: dict[str, str] = {}
    optional: set[str] = set()
    for module in sorted(modules):
        try:
            importlib.import_module(module)
        except BaseException as error:  # whatever it is, the module cannot be used
            failures[module] = f"{type(error).__name__}: {error}"[:300]
            if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] not in modules:
                optional.add(module)
    # A module for whoever has another package, too, which the list does not ask for (duckdb's adbc_driver_duckdb): no
    # failure where the package has others that can be imported.
    usable = {package for module, package in modules.items() if module not in failures}
    failures = {
        module: words for module, words in failures.items() if module not in optional or modules[module] not in usable
    }
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
