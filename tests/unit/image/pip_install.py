"""Runs under an interpreter that has pip: installs one wheel for each line of JSON that comes in, and says how it went.

A process of its own, because pip's insides are nobody's interface; one process for all wheels, because pip needs half a
second to start.
"""

import json
import os
import shutil
import sys

from pip._internal.models.scheme import Scheme
from pip._internal.operations.install.wheel import install_wheel


def main() -> None:
    """Answer each `{"wheel": path, "name": text, "scheme": {place: path}, "prefix": path}` with `{"error": text}`."""
    os.umask(0o022)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever pip prints is no answer
    for line in sys.stdin:
        task = json.loads(line)
        shutil.rmtree(task["prefix"], ignore_errors=True)
        error = ""
        try:
            install_wheel(
                task["name"],
                task["wheel"],
                Scheme(**task["scheme"]),
                req_description=task["name"],
                pycompile=False,
                warn_script_location=False,
            )
        except Exception as caught:
            error = repr(caught)
        answers.write(json.dumps({"error": error}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
