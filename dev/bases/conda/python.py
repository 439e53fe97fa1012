"""Copy the distribution's Python to /opt/conda and take Debian's patches out, so that it is at home there."""

from __future__ import annotations

import ast
import re
import shutil
import sys
import sysconfig
from pathlib import Path

PREFIX = Path("/opt/conda")
VERSION = "python{}.{}".format(*sys.version_info[:2])

DEBIANS_OWN = ["EXTERNALLY-MANAGED", "sitecustomize.py", "_distutils_system_mod.py", "dist-packages", "__pycache__"]

# `site` is compiled into the interpreter, so that the copy of it has to be changed: to a word that is as long.
DEBIANS_FOLDER, FOLDER = b"dist-packages", b"site-packages"

# As CPython has it; Debian's version knows schemes of its own.
PREFERRED_SCHEMES = """\
def _get_preferred_schemes():
    return {"prefix": "posix_prefix", "home": "posix_home", "user": "posix_user"}
"""

# What the interpreter says of the places of its own; the rest of sysconfig's data is about how it was compiled.
PLACES = (
    "BINDIR|BINLIBDEST|CONFINCLUDEDIR|CONFINCLUDEPY|DESTLIB|DESTSHARED|INCLUDEDIR|INCLUDEPY|LIBDEST|LIBDIR|LIBPC|LIBPL"
    "|MACHDESTLIB|MANDIR|SCRIPTDIR|datarootdir|exec_prefix|prefix"
)


def replace_function(module: Path, name: str, text: str) -> None:
    """Put a text in the place of a module's function."""
    lines = module.read_text().splitlines(keepends=True)
    found = next(n for n in ast.parse("".join(lines)).body if isinstance(n, ast.FunctionDef) and n.name == name)
    module.write_text("".join([*lines[: found.lineno - 1], text, *lines[found.end_lineno :]]))


def main() -> None:
    source = Path(sysconfig.get_path("stdlib"))
    library = PREFIX / "lib" / VERSION
    shutil.copytree(source, library, ignore=shutil.ignore_patterns(*DEBIANS_OWN))
    (library / "site-packages").mkdir()
    (PREFIX / "include" / VERSION).mkdir(parents=True)
    programs = PREFIX / "bin"
    programs.mkdir()
    program = programs / VERSION
    program.write_bytes(Path(sys.executable).resolve().read_bytes().replace(DEBIANS_FOLDER, FOLDER))
    program.chmod(0o755)
    for name in ("python", "python3"):
        (programs / name).symlink_to(VERSION)

    module = library / "site.py"
    module.write_bytes(module.read_bytes().replace(DEBIANS_FOLDER, FOLDER))
    # A module, and a package from Python 3.14 on.
    scheme = next(path for path in (library / "sysconfig.py", library / "sysconfig/__init__.py") if path.exists())
    replace_function(scheme, "_get_preferred_schemes", PREFERRED_SCHEMES)
    for data in library.glob("_sysconfigdata_*.py"):
        data.write_text(
            re.sub(rf"^( '(?:{PLACES})': ')/usr\b", rf"\g<1>{PREFIX}", data.read_text(), flags=re.MULTILINE)
        )


if __name__ == "__main__":
    main()
