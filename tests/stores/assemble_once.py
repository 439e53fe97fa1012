"""Run by the Python of another hub: makes one environment with empty caches and prints its image's name.

python -m tests.stores.assemble_once ARGUMENTS   the arguments of `assembled`, as a JSON object
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from ..assembling import assembled

if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    environment = asyncio.run(assembled(**{**arguments, "folder": Path(arguments["folder"])}))
    print(environment.image)
