"""A container engine and a build manager in memory, and a hub over them."""

from __future__ import annotations

import asyncio
import itertools
import re
import types
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from typing import Any
from unittest import mock

import aiohttp
import requests
import traitlets.log
from aiohttp import web
from docker.errors import APIError, NotFound
from docker.types import HostConfig
from jupyterhub.app import JupyterHub
from jupyterhub.proxy import Proxy
from traitlets.config import Config

from prebuilt_spawner import PrebuiltSpawner
from prebuilt_spawner.build.events import BuildEvent, Phase, Report
from prebuilt_spawner.build.preview import Preview, Readiness
from prebuilt_spawner.build.provider import Environment, EnvironmentRequest
from prebuilt_spawner.environment.base import BaseImage, BaseProbe, InstallScheme
from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.image.names import DIGEST_LABEL
from tests.ports import free_ports

REPOSITORY = "prebuilt-spawner/env"
HOME = "/home/jovyan"
ADMIN_TOKEN = "admin-token-of-the-tests"
PASSWORD = "password-of-the-tests"


def digest_of(request: EnvironmentRequest) -> str:
    """A digest that differs where the requirements or the base do."""
    import hashlib

    return hashlib.sha256(repr((request.requirements, request.base)).encode()).hexdigest()


class FakeManager:
    """`BuildManager` without builds.

    Attributes:
        requests: What was asked, in order.
        error: What `ensure` raises.
        events: What it reports.
        gate: What it waits for after that.
        declared: The `VOLUME` folders of the base.
        present: Whether the engine has the images.
        place: What is before the digest in their names.
        uid: The number of the base's own user.
        previews: What `preview` says, by requirements; of others it knows nothing.
        recent_choices: What `recent` says, whoever asks.
        asked_recent: How `recent` was asked, in order.
    """

    def __init__(self, containers: FakeDocker) -> None:
        self.requests: list[EnvironmentRequest] = []
        self.error: BaseException | None = None
        self.events: list[BuildEvent] = [BuildEvent(phase=Phase.RESOLVING, message="Finding versions")]
        self.gate: asyncio.Event | None = None
        self.reached = asyncio.Event()
        self.cancelled = 0
        self.closed = 0
        self.declared: tuple[str, ...] = ()
        self.present = True
        self.place = REPOSITORY
        self.uid = 1000
        self.previews: dict[tuple[str, ...], Preview] = {}
        self.recent_choices: list[Mapping[str, Any]] = []
        self.asked_recent: list[tuple[str, datetime | None]] = []
        self._containers = containers

    async def ensure(self, request: EnvironmentRequest, *, report: Report) -> Environment:
        self.requests.append(request)
        for event in self.events:
            report(event)
        self.reached.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        digest = digest_of(request)
        if self.present:
            self._containers.images[f"{self.place}:{digest}"] = f"sha256:{digest}"
        base = BaseImage(
            reference=request.base,
            image_id="sha256:" + "0" * 64,
            digest="0" * 64,
            diff_ids=(),
            config={"Volumes": {folder: {} for folder in self.declared}} if self.declared else {},
            os="linux",
            architecture="amd64",
        )
        return Environment(
            digest=digest,
            image=f"{self.place}:{digest}",
            base=base,
            probe=replace(_PROBE, uid=self.uid),
            lock=Lock(wheels=()),
        )

    async def preview(self, requests: Sequence[EnvironmentRequest]) -> list[Preview]:
        unbuilt = Preview(readiness=Readiness.UNBUILT)
        return [self.previews.get(request.requirements, unbuilt) for request in requests]

    async def recent(self, *, user: str, since: datetime | None = None, limit: int = 5) -> list[Mapping[str, Any]]:
        self.asked_recent.append((user, since))
        return self.recent_choices[:limit]

    async def close(self) -> None:
        self.closed += 1


_PROBE = BaseProbe(
    python_version="3.11.2",
    implementation="cpython",
    abi="cp311",
    cache_tag="cpython-311",
    machine="x86_64",
    glibc=(2, 36),
    interpreter="/usr/bin/python3",
    stdlib="/usr/lib/python3.11",
    virtual=False,
    markers={},
    scheme=InstallScheme(
        purelib="/usr/lib/python3/dist-packages",
        platlib="/usr/lib/python3/dist-packages",
        headers="/usr/include",
        scripts="/usr/bin",
        data="/usr",
    ),
    user="jovyan",
    uid=1000,
    gid=100,
    home=HOME,
)


def _api_error(kind: type[APIError], status: int, message: str) -> APIError:
    response = requests.Response()
    response.status_code = status
    return kind(message, response=response)


class FakeDocker:
    """As much of `docker.APIClient` as DockerSpawner uses. Every container's server is the same one.

    Attributes:
        containers: By name, as `inspect_container` shows them, with what `create_container` got under `created`.
        images: ID by name.
        foreign: Names of those that have no label of ours.
        pulled: What was pulled.
        removed: Name and `v` of each container that was removed.
        down: Whether the engine cannot be reached.
        last_words: What a container prints before it ends as soon as it is started; None where it does not.
        has_no_port_of_the_dead: Whether a container ends before it is asked for its port.
    """

    base_url = "http+docker://localhost"

    def __init__(self) -> None:
        self.containers: dict[str, dict[str, Any]] = {}
        self.images: dict[str, str] = {}
        self.foreign: set[str] = set()
        self.pulled: list[str] = []
        self.removed: list[tuple[str, bool]] = []
        self.stopped: list[str] = []
        self.down = False
        self.last_words: str | None = None
        self.has_no_port_of_the_dead = False
        self.port_number = 0
        self._numbers = itertools.count(1)

    def add(self, name: str, *, image: str, labels: Mapping[str, str] | None = None, running: bool = False) -> None:
        self.containers[name] = {
            "Id": f"{next(self._numbers):064x}",
            "Config": {"Image": image, "Labels": dict(labels or {}), "Env": []},
            "HostConfig": {},
            "State": {"Running": running, "ExitCode": 0, "Error": "", "FinishedAt": ""},
        }

    def create_host_config(self, **kwargs: Any) -> HostConfig:
        return HostConfig(version="1.41", **kwargs)

    def inspect_image(self, image: str) -> dict[str, Any]:
        self._check_up()
        if image not in self.images:
            raise _api_error(NotFound, 404, f"No such image: {image}")
        image_id = self.images[image]
        labels = {} if image in self.foreign else {DIGEST_LABEL: image_id.removeprefix("sha256:")}
        return {"Id": image_id, "Config": {"Cmd": ["start"], "Labels": labels}}

    def inspect_container(self, name: str) -> dict[str, Any]:
        self._check_up()
        return self._find(name)[1]

    def create_container(self, image: str, *, name: str, **kwargs: Any) -> dict[str, Any]:
        self._check_up()
        self.inspect_image(image)
        if name in self.containers:
            raise _api_error(APIError, 409, f"Conflict. The container name {name} is already in use")
        self.add(name, image=image, labels=kwargs.get("labels"))
        self.containers[name].update(created=kwargs, HostConfig=kwargs["host_config"])
        self.containers[name]["Config"]["Env"] = [f"{key}={value}" for key, value in kwargs["environment"].items()]
        return self.containers[name]

    def start(self, container: str) -> None:
        self._find(container)[1]["State"].update(
            Running=self.last_words is None, ExitCode=int(self.last_words is not None)
        )

    def logs(self, container: str, tail: int) -> bytes:
        self._find(container)
        return "\n".join((self.last_words or "").splitlines()[-tail:]).encode()

    def stop(self, container: str) -> None:
        name, found = self._find(container)
        self.stopped.append(name)
        found["State"]["Running"] = False

    def remove_container(self, container: str, v: bool = False) -> None:
        name, found = self._find(container)
        if found["State"]["Running"]:
            raise _api_error(APIError, 409, "You cannot remove a running container")
        self.removed.append((name, v))
        del self.containers[name]

    def port(self, container: str, port: int) -> list[dict[str, str]] | None:
        if not self._find(container)[1]["State"]["Running"] and self.has_no_port_of_the_dead:
            return None
        return [{"HostIp": "127.0.0.1", "HostPort": str(self.port_number)}]

    def pull(self, repository: str, tag: str) -> None:
        self.pulled.append(f"{repository}:{tag}")
        self.images[f"{repository}:{tag}"] = "sha256:" + "0" * 64

    def _find(self, name_or_id: str) -> tuple[str, dict[str, Any]]:
        for name, found in self.containers.items():
            if name_or_id in (name, found["Id"]):
                return name, found
        raise _api_error(NotFound, 404, f"No such container: {name_or_id}")

    def _check_up(self) -> None:
        if self.down:
            raise requests.exceptions.ConnectionError("Error while fetching server API version: /var/run/secret.sock")


class NoProxy(Proxy):
    """Routes that nobody follows."""

    should_start = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.routes: dict[str, dict[str, Any]] = {}

    async def add_route(self, routespec: str, target: str, data: Any) -> None:
        self.routes[routespec] = {"routespec": routespec, "target": target, "data": data}

    async def delete_route(self, routespec: str) -> None:
        self.routes.pop(routespec, None)

    async def get_all_routes(self) -> dict[str, dict[str, Any]]:
        return self.routes


class TestedHub(JupyterHub):
    """Starts without the process's signal handlers."""

    def init_signal(self) -> None:
        pass

    def init_pycurl(self) -> None:
        pass


class Answer:
    """What the hub answered."""

    def __init__(self, status: int, text: str, json: Any, url: str) -> None:
        self.status = status
        self.text = text
        self.json = json
        self.url = url

    @property
    def message(self) -> str:
        return self.json["message"]


class Hub:
    """A JupyterHub in this process, over the doubles."""

    def __init__(self, app: JupyterHub, docker: FakeDocker, manager: FakeManager, spawner_class: type) -> None:
        self.app = app
        self.docker = docker
        self.manager = manager
        self.spawner_class = spawner_class
        self.api = f"http://127.0.0.1:{app.hub.port}/hub/api"
        self.pages = f"http://127.0.0.1:{app.hub.port}/hub"
        self.session = aiohttp.ClientSession()

    async def call(
        self, method: str, path: str, body: Any = None, *, data: str | None = None, token: str = ADMIN_TOKEN
    ) -> Answer:
        headers = {"Authorization": f"token {token}"}
        async with self.session.request(method, self.api + path, json=body, data=data, headers=headers) as answer:
            text = await answer.text()
            json = await answer.json() if text and "json" in answer.content_type else None
            return Answer(answer.status, text, json, str(answer.url))

    async def start(self, user: str, body: Any = None, server: str = "", **kwargs: Any) -> Answer:
        """POST a start with this body; the user is made where there is none."""
        await self.call("POST", f"/users/{user}")
        path = f"/users/{user}/servers/{server}" if server else f"/users/{user}/server"
        return await self.call("POST", path, body, **kwargs)

    async def stop(self, user: str, server: str = "") -> Answer:
        path = f"/users/{user}/servers/{server}" if server else f"/users/{user}/server"
        return await self.call("DELETE", path)

    def stored(self, user: str, server: str = "") -> Any:
        """The options that JupyterHub has stored."""
        orm_user = self.app.users[user].orm_user
        self.app.db.refresh(orm_user)
        return orm_user.orm_spawners[server].user_options

    def spawner(self, user: str, server: str = "") -> Any:
        return self.app.users[user].spawners[server]

    def container(self, user: str, server: str = "") -> dict[str, Any]:
        return self.docker.containers[f"jupyter-{user}--{server}" if server else f"jupyter-{user}"]

    def created(self, user: str, server: str = "") -> dict[str, Any]:
        """What the container was created with."""
        return self.container(user, server)["created"]

    def configure(self, **traits: Any) -> None:
        """Change the spawner's settings for the servers that are started from now on."""
        self.app.config.PrebuiltSpawner.update(traits)

    async def log_in(self, user: str) -> Browser:
        browser = Browser(self)
        await browser.log_in(user)
        return browser


class Browser:
    """A user's browser: cookies, forms and no token."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def get(self, path: str, *, follow: bool = True) -> Answer:
        async with self.session.get(self._hub.pages + path, allow_redirects=follow) as answer:
            return Answer(answer.status, await answer.text(), None, str(answer.url))

    async def post(self, path: str, fields: Mapping[str, str]) -> Answer:
        xsrf = next(cookie.value for cookie in self.session.cookie_jar if cookie.key == "_xsrf")
        url = f"{self._hub.pages}{path}{'&' if '?' in path else '?'}_xsrf={xsrf}"
        async with self.session.post(url, data=fields, allow_redirects=False) as answer:
            return Answer(answer.status, await answer.text(), None, str(answer.url))

    async def log_in(self, user: str) -> None:
        await self.get("/login")
        answer = await self.post("/login", {"username": user, "password": PASSWORD})
        assert answer.status == 302, answer.text


def field_value(html: str, name: str) -> str:
    """What a text area of this name holds."""
    import html as html_module

    match = re.search(rf'<textarea[^>]*name="{name}"[^>]*>\n?(.*?)</textarea>', html, re.DOTALL)
    assert match, html
    return html_module.unescape(match[1])


class _Inputs(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "input":
            self.found.append(dict(attrs))


def input_values(html: str, name: str, *, checked: bool = False) -> list[str | None]:
    """The values of the inputs of this name, in order; of the checked ones alone where that is asked for."""
    parser = _Inputs()
    parser.feed(html)
    inputs = [one for one in parser.found if one.get("name") == name and (not checked or "checked" in one)]
    return [one.get("value") for one in inputs]


async def run_hub(*, base_class: type = PrebuiltSpawner, settings: Mapping[str, Any] | None = None) -> Any:
    """An async generator that yields a running hub, and ends it."""
    # JupyterHub 5.5's own.
    warnings.filterwarnings("ignore", message="The `version` property of an event schema must be a string")
    docker = FakeDocker()
    manager = FakeManager(docker)

    async def user_server(request: web.Request) -> web.Response:
        from jupyterhub import __version__

        return web.json_response({}, headers={"X-JupyterHub-Version": __version__})

    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", user_server)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    docker.port_number = site._server.sockets[0].getsockname()[1]

    async def new_manager(self: Any) -> FakeManager:
        return manager

    spawner_class = types.new_class(
        base_class.__name__,
        (base_class,),
        exec_body=lambda body: body.update(_client=docker, _new_manager=new_manager, _executor=None),
    )
    JupyterHub.clear_instance()
    TestedHub.clear_instance()
    # Of a process without an application, as in a test of the command before this, traitlets keeps a logger of its own.
    traitlets.log._logger = None
    (hub_port,) = free_ports(1)
    config = Config()
    config.JupyterHub.spawner_class = spawner_class
    config.JupyterHub.proxy_class = NoProxy
    config.JupyterHub.authenticator_class = "shared-password"
    config.JupyterHub.hub_bind_url = f"http://127.0.0.1:{hub_port}"
    config.JupyterHub.bind_url = f"http://127.0.0.1:{hub_port}"
    config.JupyterHub.db_url = "sqlite:///:memory:"
    config.JupyterHub.cookie_secret = b"c" * 32
    config.JupyterHub.allow_named_servers = True
    config.JupyterHub.log_level = "DEBUG"
    config.JupyterHub.services = [{"name": "admin", "api_token": ADMIN_TOKEN}]
    config.JupyterHub.load_roles = [
        {"name": "admins", "services": ["admin"], "scopes": ["admin:users", "admin:groups", "admin:servers"]}
    ]
    config.SharedPasswordAuthenticator.user_password = PASSWORD
    config.Authenticator.allow_all = True
    config.Authenticator.admin_users = {"root"}
    config.PrebuiltSpawner.image = "example/base:1"
    config.PrebuiltSpawner.allow_custom_packages = True
    config.PrebuiltSpawner.update(dict(settings or {}))
    app = TestedHub.instance(config=config)
    with mock.patch.object(app, "load_config_file"):
        await app.initialize([])
    await app.start()
    hub = Hub(app, docker, manager, spawner_class)
    browsers: list[Browser] = []
    log_in = hub.log_in

    async def remembered(user: str) -> Browser:
        browsers.append(await log_in(user))
        return browsers[-1]

    hub.log_in = remembered  # type: ignore[method-assign]
    try:
        yield hub
    finally:
        for browser in browsers:
            await browser.session.close()
        await hub.session.close()
        for callback in app._periodic_callbacks.values():
            callback.stop()
        app.metrics_collector.stop()
        docker.down = False
        await app.cleanup()
        app.http_server.stop()
        await app.http_server.close_all_connections()
        app.db.close()
        app.db.get_bind().dispose()
        await runner.cleanup()
        if spawner_class._executor is not None:
            spawner_class._executor.shutdown()
        TestedHub.clear_instance()
