"""What CPython is told in a hub's process, so that its event loop, which answers people, comes before builds' threads.

Two of its habits let a thread that reads or plans an image stop everybody, and neither shows where it comes from:

- A thread that wants the interpreter waits 5 ms before it takes it away from another. The event loop gives it up each
  time it writes to a socket: to tell thirty pages of a build's progress took 150 ms while that build was planned.
- What a thread allocates makes the garbage collector look through all objects of the process, and nothing else runs
  then: more than 100 ms for the modules and classes of JupyterHub alone, which stay as long as the hub does.
"""

from __future__ import annotations

import gc
import sys

SWITCH_SECONDS = 0.0005
"""Each switch costs microseconds, and only where two threads want to run."""


def favour_event_loop() -> None:
    """Have the event loop wait less for the threads of this process. Call it when everything is loaded, and before
    anybody waits: it collects garbage once. Only the first call in a process does that."""
    if sys.getswitchinterval() > SWITCH_SECONDS:
        sys.setswitchinterval(SWITCH_SECONDS)
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()
