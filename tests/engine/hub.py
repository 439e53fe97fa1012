"""A real JupyterHub in a process of its own, with its real proxy, on a real engine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests
from demo_hub import bridge_address

from ..ports import free_ports

PROJECT = Path(__file__).parents[2]
START_TIMEOUT_SECONDS = 60
SERVER_TIMEOUT_SECONDS = 180
TEST_LABEL = "prebuilt_spawner.test"

ADMIN_TOKEN = "admin-token-of-the-tests"
STARTER_TOKEN = "starter-token-of-the-tests"
READER_TOKEN = "reader-token-of-the-tests"

_CONFIG = """
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://{bridge}:{hub_port}"
c.JupyterHub.db_url = "sqlite:///{folder}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_api_port}"
c.ConfigurableHTTPProxy.pid_file = "{folder}/proxy.pid"
c.ConfigurableHTTPProxy.auth_token = "proxy-token-of-the-tests"
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = "password-of-the-tests"
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {{"{run}admin"}}
c.JupyterHub.allow_named_servers = True
c.JupyterHub.cleanup_servers = False
c.JupyterHub.log_level = "INFO"
c.JupyterHub.services = [
    {{"name": "admin", "api_token": "{admin_token}"}},
    {{"name": "starter", "api_token": "{starter_token}"}},
    {{"name": "reader", "api_token": "{reader_token}"}},
]
c.JupyterHub.load_roles = [
    {{"name": "admins", "services": ["admin"], "scopes": ["admin:users", "admin:servers", "access:servers"]}},
    {{"name": "starters", "services": ["starter"], "scopes": ["servers", "read:users"]}},
    {{"name": "readers", "services": ["reader"], "scopes": ["read:users"]}},
]
c.JupyterHub.spawner_class = "prebuilt"
c.PrebuiltSpawner.image = "{base}"
c.PrebuiltSpawner.repository = "{repository}"
c.PrebuiltSpawner.extra_create_kwargs = {{"labels": {{"{test_label}": "{run}"}}}}
c.PrebuiltSpawner.db_url = "sqlite:///{folder}/ledger.sqlite"
c.PrebuiltSpawner.cache_dir = "{cache_dir}"
c.PrebuiltSpawner.allow_custom_packages = True
c.PrebuiltSpawner.start_timeout = 120
c.PrebuiltSpawner.http_timeout = 120
"""


@dataclass(frozen=True)
class Answer:
    """What the hub said: HTTP status, JSON body (None where there is none)."""

    status: int
    body: Any

    @property
    def message(self) -> str:
        return self.body["message"]


@dataclass(frozen=True)
class Outcome:
    """How a start ended: the status of the first answer, and the last message where it failed."""

    status: int
    ready: bool
    message: str
    events: tuple[dict[str, Any], ...] = ()


class Hub:
    """One hub with a folder of its own; the folder (and so ledger and database) outlives restarts.

    Args:
        settings: Python text, added to the configuration file.
        environment: Set for the hub's process besides what the tests' own has.
    """

    def __init__(
        self,
        *,
        folder: Path,
        run: str,
        base: str,
        client: docker.APIClient,
        cache_dir: Path,
        settings: str = "",
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.run = run
        self.client = client
        self.base = base
        self.repository = f"prebuilt-spawner-test/{run}"
        self.cache_dir = cache_dir
        self.environment = environment or {}
        self.port, self.hub_port, self.proxy_api_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = folder / "hub.log"
        self._process: subprocess.Popen | None = None
        self.configure(settings)

    def configure(self, settings: str) -> None:
        """Write the configuration anew; it counts from the next start."""
        text = _CONFIG.format(
            port=self.port,
            hub_port=self.hub_port,
            proxy_api_port=self.proxy_api_port,
            bridge=bridge_address(self.client),
            folder=self.folder,
            run=self.run,
            base=self.base,
            repository=self.repository,
            cache_dir=self.cache_dir,
            test_label=TEST_LABEL,
            admin_token=ADMIN_TOKEN,
            starter_token=STARTER_TOKEN,
            reader_token=READER_TOKEN,
        )
        (self.folder / "jupyterhub_config.py").write_text(text + settings)

    # -- process -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        path = os.pathsep.join([str(PROJECT / ".dev/node_modules/.bin"), str(Path(sys.executable).parent)])
        environment = {
            **os.environ,
            "PATH": path + os.pathsep + os.environ["PATH"],
            **self.environment,
        }
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", str(self.folder / "jupyterhub_config.py")],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            if self._process.poll() is not None:
                raise AssertionError(f"the hub ended at its start:\n{self.log()[-4000:]}")
            with contextlib.suppress(requests.RequestException):
                if requests.get(self.url + "/hub/api/", timeout=2).ok:
                    return
            if time.monotonic() > deadline:
                raise AssertionError(f"the hub does not answer:\n{self.log()[-4000:]}")
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if how == signal.SIGKILL:
                os.killpg(self._process.pid, how)
            else:
                self._process.send_signal(how)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        # The proxy, where the hub did not take it along: it has a session of its own.
        with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
            os.kill(int((self.folder / "proxy.pid").read_text()), signal.SIGKILL)
        self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def ledger(self, query: str) -> list[tuple]:
        """The rows that the hub's ledger has for a query."""
        connection = sqlite3.connect(self.folder / "ledger.sqlite", timeout=30)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    # -- REST --------------------------------------------------------------------------------------------------------

    def api(self, method: str, path: str, body: Any = None, *, token: str = ADMIN_TOKEN) -> Answer:
        answer = requests.request(
            method,
            f"{self.url}/hub/api{path}",
            data=None if body is None else json.dumps(body),
            headers={"Authorization": f"token {token}"},
            timeout=60,
        )
        try:
            return Answer(answer.status_code, answer.json())
        except ValueError:
            return Answer(answer.status_code, None)

    def user(self, name: str) -> str:
        """The name of a user of this run, made where it is not there yet."""
        full = f"{self.run}{name}"
        self.api("POST", f"/users/{full}")
        return full

    def server_path(self, user: str, name: str = "") -> str:
        return f"/users/{user}/servers/{name}" if name else f"/users/{user}/server"

    def start_server(
        self, user: str, options: dict | None = None, *, name: str = "", body: Any = ..., token: str = ADMIN_TOKEN
    ) -> Outcome:
        """Start a server and wait until it is ready or has failed.

        `options` are sent as `user_options`; `body` (where given) is sent as it is.
        """
        if body is ...:
            body = {} if options is None else self.options_body(options)
        answer = self.api("POST", self.server_path(user, name), body, token=token)
        if answer.status == 201:
            return Outcome(201, True, "")
        if answer.status != 202:
            message = answer.body.get("message", "") if isinstance(answer.body, dict) else ""
            return Outcome(answer.status, False, message)
        events = tuple(self.progress(user, name))
        last = events[-1] if events else {}
        return Outcome(202, bool(last.get("ready")), last.get("message", ""), events)

    def options_body(self, options: dict) -> dict:
        import jupyterhub

        return options if jupyterhub.version_info[0] < 6 else {"user_options": options}

    def progress(self, user: str, name: str = "") -> Iterator[dict]:
        """The progress events of a start, until the last."""
        with requests.get(
            f"{self.url}/hub/api{self.server_path(user, name)}/progress",
            headers={"Authorization": f"token {ADMIN_TOKEN}"},
            stream=True,
            timeout=SERVER_TIMEOUT_SECONDS,
        ) as answer:
            assert answer.status_code == 200, answer.text
            for line in answer.iter_lines():
                if line.startswith(b"data:"):
                    event = json.loads(line[5:])
                    yield event
                    if event.get("ready") or event.get("failed"):
                        return

    def stop_server(self, user: str, name: str = "", *, remove: bool = False) -> None:
        body = {"remove": True} if remove else None
        answer = self.api("DELETE", self.server_path(user, name), body)
        assert answer.status in (202, 204), answer
        deadline = time.monotonic() + 60
        while self.runs(user, name):
            assert time.monotonic() < deadline, "the server does not stop"
            time.sleep(0.1)

    def server(self, user: str, name: str = "") -> dict | None:
        """The server's model; None where JupyterHub knows no such server."""
        answer = self.api("GET", f"/users/{user}?include_stopped_servers=1")
        return answer.body["servers"].get(name)

    def runs(self, user: str, name: str = "") -> bool:
        """Whether the server runs or is being started."""
        server = self.server(user, name)
        return server is not None and not server.get("stopped")

    def stored_options(self, user: str, name: str = "") -> dict:
        server = self.server(user, name)
        return server["user_options"] if server else {}

    # -- what runs ---------------------------------------------------------------------------------------------------

    def container(self, user: str, name: str = "") -> dict[str, Any]:
        """What the engine says of the server's container, running or not."""
        found = [
            one
            for one in self.client.containers(all=True, filters={"label": f"{TEST_LABEL}={self.run}"})
            if one["Labels"].get("prebuilt_spawner.container") == f"{user}/{name}"
        ]
        assert len(found) == 1, found
        return self.client.inspect_container(found[0]["Id"])

    def becomes_healthy(self, user: str) -> bool:
        """Whether the container's health check succeeds within a minute."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.container(user)["State"]["Health"]["Status"] == "healthy":
                return True
            time.sleep(0.5)
        return False

    def image(self, user: str, name: str = "") -> dict[str, Any]:
        """The image of the server's container."""
        return self.client.inspect_image(self.container(user, name)["Image"])

    def tag(self, user: str, name: str = "") -> str:
        """The image name that the server's container was started from."""
        return self.container(user, name)["Config"]["Image"]

    def execute(self, user: str, *command: str, name: str = "", as_user: str = "") -> tuple[int, str]:
        """Run a command in the server's container: exit status and output."""
        made = self.client.exec_create(self.container(user, name)["Id"], list(command), user=as_user)
        output = self.client.exec_start(made).decode(errors="replace")
        return self.client.exec_inspect(made)["ExitCode"], output

    def python(self, user: str, program: str, *, name: str = "") -> str:
        """What a program prints that the server's Python runs as the notebook user."""
        status, output = self.execute(user, "python", "-c", program, name=name)
        assert status == 0, output
        return output.strip()

    def version_in(self, user: str, package: str, *, name: str = "") -> str:
        program = f"import importlib.metadata as m; print(m.version({package!r}))"
        return self.python(user, program, name=name)

    def answers(self, user: str, name: str = "") -> dict:
        """What the single-user server itself says, asked through the proxy."""
        path = f"/user/{user}/{name}/api/status" if name else f"/user/{user}/api/status"
        answer = requests.get(self.url + path, headers={"Authorization": f"token {ADMIN_TOKEN}"}, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def derived_tags(self) -> set[str]:
        """The names of the derived images of this run."""
        tags = (tag for one in self.client.images() for tag in one["RepoTags"] or [])
        return {tag for tag in tags if re.fullmatch(re.escape(self.repository) + r":[0-9a-f]{64}", tag)}


def changed_base(
    client: docker.APIClient, base: str, name: str, command: str, run: str, *, changes: dict[str, Any] | None = None
) -> None:
    """Name an image that is the base after root ran a shell command in it, with these changes of its configuration."""
    made = client.create_container(
        base, entrypoint=["sh", "-c"], command=[command], user="root", labels={TEST_LABEL: run}
    )
    client.start(made)
    assert client.wait(made)["StatusCode"] == 0
    theirs = client.inspect_image(base)["Config"]
    repository, _, tag = name.rpartition(":")
    # A commit takes entry point, command and user from the container where it is not told otherwise.
    config = {key: theirs.get(key) for key in ("Entrypoint", "Cmd", "User")}
    client.commit(made, repository=repository, tag=tag, conf={**config, **(changes or {})})
    client.remove_container(made, force=True)


def remove_containers(client: docker.APIClient, run: str) -> None:
    """Remove every container of the run."""
    for container in client.containers(all=True, filters={"label": f"{TEST_LABEL}={run}"}):
        with contextlib.suppress(docker.errors.NotFound):
            client.remove_container(container["Id"], force=True, v=True)


def clean_up(client: docker.APIClient, run: str) -> None:
    """Remove every container, image and volume of the run."""
    remove_containers(client, run)
    # What a test that failed left without a name has the label from the run's own base.
    for image in client.images(filters={"label": f"{TEST_LABEL}={run}", "dangling": True}):
        with contextlib.suppress(docker.errors.APIError):
            client.remove_image(image["Id"], force=True)
    for image in client.images():
        for tag in image["RepoTags"] or []:
            if tag.startswith(f"prebuilt-spawner-test/{run}"):
                with contextlib.suppress(docker.errors.NotFound):
                    client.remove_image(tag, force=True)
    for volume in client.volumes()["Volumes"] or []:
        if run in volume["Name"]:
            client.remove_volume(volume["Name"], force=True)
