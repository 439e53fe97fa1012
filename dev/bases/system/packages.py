"""Move the environment of /opt/venv to where pip installs for the distribution's Python."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from moving import Environment, compile_all

OF_THE_DISTRIBUTION = {"six", "pyyaml"}


def main() -> None:
    version = "python{}.{}".format(*sys.version_info[:2])
    source = Environment(prefix=Path("/opt/venv"), packages=Path("lib", version, "site-packages"))
    target = Environment(prefix=Path("/usr/local"), packages=Path("lib", version, "dist-packages"))
    moved = [
        distribution.moved(target, interpreter="/usr/bin/python3")
        for distribution in source.distributions()
        if distribution.name not in OF_THE_DISTRIBUTION
    ]
    compile_all(target.site)
    for distribution in moved:
        distribution.write_record({"INSTALLER": "pip\n"}, with_bytecode=True)


if __name__ == "__main__":
    main()
