"""Run the demo's hub in the foreground, say how to log in, and leave no container behind.

Wants DEMO_BASE_IMAGE in the environment; `demo` is what people call.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import docker
from docker.errors import DockerException, NotFound
from docker.utils import kwargs_from_env

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / ".dev" / "demo"
LABEL = "prebuilt_spawner.demo"
PORTS = {"DEMO_PORT": 8000, "DEMO_HUB_PORT": 8081, "DEMO_PROXY_API_PORT": 8001}
STOP_SECONDS = 60
SIOCGIFADDR = 0x8915  # Linux: the address of an interface


def bridge_address(engine: docker.APIClient) -> str:
    """The address at which containers on the engine's default bridge reach this machine."""
    network = engine.inspect_network("bridge")
    for configuration in network["IPAM"]["Config"] or ():
        gateway = configuration.get("Gateway", "")
        if gateway and ":" not in gateway:
            return str(gateway)
    # An engine that is new does not say; the bridge is an interface of this machine, and has the address.
    name = network["Options"].get("com.docker.network.bridge.name", "docker0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
        except OSError as error:
            raise SystemExit(
                "The engine's bridge has no address on this machine. Is the engine a remote one?"
            ) from error
    return socket.inet_ntoa(answer[20:24])


def require_free(variable: str, address: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise SystemExit(
                f"{address}:{port} cannot be used ({error.strerror}). Set {variable} to another port."
            ) from error


def is_healthy(address: str, port: int) -> bool:
    connection = http.client.HTTPConnection(address, port, timeout=2)
    try:
        connection.request("GET", "/hub/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def remove_containers(engine: docker.APIClient, run: str) -> None:
    """Remove the containers of this run; the volumes, which are the users' homes, stay."""
    for container in engine.containers(all=True, filters={"label": f"{LABEL}={run}"}):
        try:
            engine.remove_container(container["Id"], force=True)
        except NotFound:
            continue
        except DockerException as error:
            print(f"demo: a container stays behind: {error}", file=sys.stderr)


def serve(engine: docker.APIClient, arguments: list[str]) -> int:
    ports = {name: int(os.environ.get(name, default)) for name, default in PORTS.items()}
    address = bridge_address(engine)
    for name, port in ports.items():
        require_free(name, address if name == "DEMO_HUB_PORT" else "127.0.0.1", port)

    run = secrets.token_hex(4)
    password = os.environ.get("DEMO_PASSWORD") or secrets.token_urlsafe(9)
    settings = {"DEMO_RUN": run, "DEMO_PASSWORD": password, "DEMO_HUB_IP": address}
    settings |= {name: str(port) for name, port in ports.items()}
    DATA.mkdir(parents=True, exist_ok=True)
    DATA.chmod(0o700)

    # A session of its own: a Ctrl-C at the terminal reaches only us, and the hub gets one signal from us.
    hub = subprocess.Popen(
        [sys.executable, "-m", "jupyterhub", "-f", str(HERE / "demo_config.py"), *arguments],
        cwd=DATA,
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            hub.terminate()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)

    def is_ready() -> bool:
        # The hub itself first: a proxy that is asked before it knows the hub fills the log with errors.
        hub_port, public_port = ports["DEMO_HUB_PORT"], ports["DEMO_PORT"]
        return is_healthy(address, hub_port) and is_healthy("127.0.0.1", public_port)

    try:
        while hub.poll() is None and not stopping and not is_ready():
            time.sleep(0.2)
        if hub.poll() is None and not stopping:
            print(
                f"\n    The hub is at  http://127.0.0.1:{ports['DEMO_PORT']}"
                f"\n    User           any name"
                f"\n    Password       {password}\n"
                f"\n    Ctrl-C stops it.\n",
                flush=True,
            )
        while hub.poll() is None and not stopping:
            time.sleep(0.2)
        try:
            code = hub.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            code = 1
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(hub.pid, signal.SIGKILL)  # a proxy that outlived its hub
        remove_containers(engine, run)
    return 0 if stopping else code


def main() -> int:
    try:
        return serve(docker.APIClient(**kwargs_from_env(), timeout=60), sys.argv[1:])
    except DockerException as error:
        print(f"demo: the engine refused: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
