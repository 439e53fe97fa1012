"""Start and stop a Docker daemon of ours, beside whatever else runs on the machine."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import docker
from docker.errors import DockerException
from docker.utils import kwargs_from_env
from requests import RequestException

START_SECONDS = 60
STOP_SECONDS = 30
POLL_SECONDS = 0.1


class DaemonError(Exception):
    """The daemon cannot be started or stopped; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """One daemon: where it listens, and where it keeps what.

    A ``private`` daemon gets a bridge, an exec root and a namespace in containerd of its own, so that it does not meet
    another daemon's; the one on the default socket uses the engine's defaults.
    """

    socket: Path
    state: Path  # pid file, log and configuration
    data_root: Path | None = None
    private: bool = False
    search_path: str = field(default_factory=lambda: os.environ["PATH"])
    features: dict[str, bool] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid_file(self) -> Path:
        return self.state / "pid"

    @property
    def log_file(self) -> Path:
        return self.state / "log"

    @property
    def key(self) -> str:
        """Short, and this daemon's own: a network interface's name has at most 15 characters, a socket's path 107."""
        return hashlib.sha256(str(self.socket).encode()).hexdigest()[:8]

    @property
    def bridge(self) -> str:
        return f"psb{self.key}"

    @property
    def exec_root(self) -> Path:
        return Path("/run") / f"prebuilt-spawner-{self.key}"

    @property
    def namespace(self) -> str:
        return f"prebuilt-spawner-{self.key}" if self.private else "moby"


def answers(url: str | None = None) -> bool:
    """Whether an engine answers at ``url``, by default where DOCKER_HOST or docker's default points."""
    arguments = {"base_url": url} if url else kwargs_from_env()
    try:
        client = docker.APIClient(**arguments, timeout=5)
    except (DockerException, RequestException, OSError):
        return False
    client.close()
    return True


def process(daemon: Daemon) -> int | None:
    """The process id of the daemon that `start` started, if it still runs."""
    try:
        pid = int(daemon.pid_file.read_text())
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError):
        return None
    return pid if name == "dockerd" else None


def start(daemon: Daemon) -> subprocess.Popen[bytes]:
    """Start the daemon, detached from this terminal, and return when it answers: its process."""
    executable = shutil.which("dockerd", path=daemon.search_path)
    if executable is None:
        raise DaemonError("dockerd is missing.")
    daemon.state.mkdir(parents=True, exist_ok=True)
    daemon.socket.parent.mkdir(parents=True, exist_ok=True)
    daemon.pid_file.unlink(missing_ok=True)  # a dead daemon's, or its number is another process's by now
    configuration = daemon.state / "daemon.json"
    configuration.write_text(json.dumps({"features": daemon.features} if daemon.features else {}))
    command = [executable, "--config-file", configuration, "--pidfile", daemon.pid_file, "--host", daemon.url]
    if daemon.data_root is not None:
        daemon.data_root.mkdir(parents=True, exist_ok=True)
        command += ["--data-root", daemon.data_root]
    if daemon.private:
        _add_bridge(daemon.bridge)
        daemon.exec_root.mkdir(parents=True, exist_ok=True)
        command += ["--exec-root", daemon.exec_root, "--bridge", daemon.bridge]
        # Where the machine runs a containerd, every daemon uses that one.
        command += ["--containerd-namespace", daemon.namespace]
        command += ["--containerd-plugins-namespace", f"{daemon.namespace}-plugins"]
    with daemon.log_file.open("wb") as log:
        running = subprocess.Popen(
            [str(word) for word in command],
            env=os.environ | {"PATH": daemon.search_path},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while not answers(daemon.url):
        if running.poll() is not None or time.monotonic() > deadline:
            stop(daemon)
            last = "\n".join(daemon.log_file.read_text(errors="replace").splitlines()[-5:])
            raise DaemonError(f"the engine did not start; the last lines of its log:\n{last}")
        time.sleep(POLL_SECONDS)
    return running


def stop(daemon: Daemon) -> None:
    """Stop the daemon and remove its bridge and sockets; its data stays."""
    pid = process(daemon)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while process(daemon) == pid:
            # A child of ours has to be waited for, or it stays as a zombie.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            if time.monotonic() > deadline:
                raise DaemonError(f"the engine (process {pid}) does not stop.")
            time.sleep(POLL_SECONDS)
    daemon.pid_file.unlink(missing_ok=True)
    if daemon.private:
        subprocess.run(["ip", "link", "delete", daemon.bridge], check=False, capture_output=True)
        if str(daemon.exec_root) not in Path("/proc/self/mounts").read_text():
            shutil.rmtree(daemon.exec_root, ignore_errors=True)
        daemon.socket.unlink(missing_ok=True)


def _add_bridge(name: str) -> None:
    """Make a bridge with a network that nothing on this machine uses yet."""
    if Path("/sys/class/net", name).exists():
        return
    used = []
    for word in subprocess.run(["ip", "-4", "route"], check=True, capture_output=True, text=True).stdout.split():
        with contextlib.suppress(ValueError):
            used.append(ipaddress.ip_network(word, strict=False))
    candidates = (ipaddress.ip_network(f"10.226.{third}.0/24") for third in range(256))
    network = next((n for n in candidates if not any(n.overlaps(u) for u in used)), None)
    if network is None:
        raise DaemonError("no free network was found for the engine's bridge.")
    for arguments in (
        ["link", "add", name, "type", "bridge"],
        ["addr", "add", f"{network[1]}/24", "dev", name],
        ["link", "set", name, "up"],
    ):
        done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise DaemonError(f"the engine's bridge cannot be made: {done.stderr.strip()}")
