"""The process that installs wheels into tar entries, so that the hub's own never reads a stranger's archive.

`python -m prebuilt_spawner.image.worker` reads jobs on standard input and answers each on standard output
(see `worker_protocol`) until its input ends.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback

from ..errors import UnbuildableEnvironment
from .fragment import installed_to_json
from .install import install_wheel
from .whole_file import appearing_whole
from .worker_protocol import Answer, InstallJob, decode_job, encode_answer

_NICENESS = 5
"""Behind the hub, which answers people."""
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


def answer(line: bytes) -> Answer:
    """Do the job on this line and say how it ended; raises nothing."""
    try:
        _install(decode_job(line))
    except UnbuildableEnvironment as error:
        return Answer(outcome="unbuildable", message=error.message, detail=error.detail)
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            return Answer(
                outcome="storage",
                message="The hub's disk is full or cannot be written. Please tell the administrator.",
                detail=str(error),
            )
        return _internal_failure()
    except Exception:
        return _internal_failure()
    return Answer(outcome="done")


def main() -> None:
    """Answer jobs until there are no more."""
    os.nice(_NICENESS)
    # Whatever a library prints must not get among the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin.buffer:
        answers.write(encode_answer(answer(line)))
        answers.flush()


def _install(job: InstallJob) -> None:
    installed = install_wheel(
        job.wheel, wheel_sha256=job.wheel_sha256, scheme=job.scheme, interpreter=job.interpreter, body=job.body
    )
    with appearing_whole(job.index) as stream:
        stream.write(installed_to_json(installed))


def _internal_failure() -> Answer:
    return Answer(
        outcome="internal",
        message="A package could not be prepared. Try again, and tell the administrator if it happens again.",
        detail=traceback.format_exc(),
    )


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)
