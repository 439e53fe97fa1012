"""The processes that install wheels into tar entries: a few, started when needed, kept a while, ended when in doubt."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import IO

from ..errors import SurroundingsError
from ..image.worker_protocol import InstallJob, decode_answer, encode_job, raise_for, worker_command

_MAX_ANSWER_BYTES = 1024 * 1024
_SHOWN_BYTES = 4000
# A worker reads strangers' archives: of the hub's environment, which holds its secrets, it gets what Python needs.
_PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR")


class InstallWorkers:
    """At most `count` worker processes, each with one job at a time.

    Args:
        count: How many processes.
        idle_seconds: How long one without work is kept: starting one takes longer than a small wheel.
    """

    def __init__(self, count: int, *, idle_seconds: float = 60) -> None:
        self._slots = asyncio.Semaphore(count)
        self._idle_seconds = idle_seconds
        self._idle: list[_Worker] = []
        self._working: set[_Worker] = set()
        self._reaping: set[asyncio.Task[None]] = set()

    async def run(self, job: InstallJob) -> None:
        """Do the job, after those that were given before. A worker whose job is cancelled is ended.

        Raises:
            UnbuildableEnvironment: The wheel cannot be installed.
            StorageFailure: Its files cannot be written.
            SurroundingsError: The worker ended without an answer.
        """
        async with self._slots, self._worker() as worker:
            answer = await worker.ask(encode_job(job))
        if not answer:
            raise SurroundingsError(
                f"The package in {job.wheel.name} could not be prepared. Please tell the administrator of this hub.",
                detail=f"The install worker {worker.last_words()}",
            )
        raise_for(decode_answer(answer))

    async def close(self) -> None:
        """End every worker."""
        workers = [*self._idle, *self._working]
        self._idle.clear()
        await asyncio.gather(*(worker.end() for worker in workers), *self._reaping)

    @asynccontextmanager
    async def _worker(self) -> AsyncIterator[_Worker]:
        """One that is ours within the block, and is reused afterwards if it still lives."""
        worker = self._idle.pop() if self._idle else await _Worker.start()
        worker.stop_clock()
        self._working.add(worker)
        healthy = False
        try:
            yield worker
            healthy = worker.alive
        finally:
            self._working.discard(worker)
            if healthy:
                self._idle.append(worker)
                worker.start_clock(self._idle_seconds, self._retire)
            else:
                # Shielded, so that no process is left behind where this is a cancellation and another one follows.
                await asyncio.shield(self._end(worker))

    def _retire(self, worker: _Worker) -> None:
        if worker in self._idle:
            self._idle.remove(worker)
            self._end(worker)

    def _end(self, worker: _Worker) -> asyncio.Task[None]:
        """End it; `close` waits for that too."""
        task = asyncio.get_running_loop().create_task(worker.end())
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)
        return task


class _Worker:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        self._clock: asyncio.TimerHandle | None = None
        self._said = ""

    @classmethod
    async def start(cls) -> _Worker:
        # A file and not a pipe: nobody would read it, and a full pipe stops the worker.
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        try:
            process = await asyncio.create_subprocess_exec(
                *worker_command(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                limit=_MAX_ANSWER_BYTES,
                # Ctrl-C on the hub's terminal is for the hub, which ends its workers itself.
                start_new_session=True,
            )
        except BaseException:
            errors.close()
            raise
        return cls(process, errors)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def ask(self, job: bytes) -> bytes:
        """Its answer; empty where it ended instead."""
        assert self._process.stdin is not None  # noqa: S101 - for mypy: it was started with pipes
        assert self._process.stdout is not None  # noqa: S101
        try:
            self._process.stdin.write(job)
            await self._process.stdin.drain()
            answer = await self._process.stdout.readline()
        except (ConnectionError, ValueError):
            answer = b""
        if not answer.endswith(b"\n"):
            await self.end()
            return b""
        return answer

    def start_clock(self, seconds: float, ring: Callable[[_Worker], None]) -> None:
        self._clock = asyncio.get_running_loop().call_later(seconds, ring, self)

    def stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    async def end(self) -> None:
        """Kill it and wait for its end; it has nothing that could be half done in a place that matters."""
        self.stop_clock()
        if self.alive:
            # Not `Process.kill`: where the process has just ended, it takes the exit status away from asyncio.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()
        if not self._errors.closed:
            self._errors.seek(0)
            self._said = self._errors.read(_SHOWN_BYTES).decode(errors="replace")
            self._errors.close()

    def last_words(self) -> str:
        """How it ended, for the log."""
        status = self._process.returncode or 0
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
        return f"{how}. It said: {self._said or 'nothing'}"
