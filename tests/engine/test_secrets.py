"""Credentials of private indexes: usable, and nowhere that anybody but the hub's own user can look."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import docker
import pytest
import requests

from prebuilt_spawner.image.names import COMPILER_LABEL

from ..index_server import IndexServer
from .hub import ADMIN_TOKEN, Hub

USER = "reader-of-the-index"


class Marker:
    """A password that is nowhere else, in every form in which it could be written down."""

    def __init__(self) -> None:
        self.password = f"marker/{secrets.token_hex(8)}"
        pair = f"{USER}:{self.password}"
        self.in_url = quote(self.password, safe="")
        plain = {self.password, self.in_url, self.password.partition("/")[2]}
        self.forms = {form.encode() for form in plain} | {base64.b64encode(pair.encode()).rstrip(b"=")}

    def index(self) -> IndexServer:
        index = IndexServer()
        index.behaviour.credentials = (USER, self.password)
        return index

    def is_in(self, content: bytes) -> bool:
        return any(form in content for form in self.forms)


class Watcher:
    """Looks at every process's command line, and at every container, as long as it is open."""

    def __init__(self, client: docker.APIClient) -> None:
        self.command_lines: set[bytes] = set()
        self.containers: dict[str, bytes] = {}
        self.compilers = 0
        self._client = client
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(look,)) for look in (self._look, self._list)]

    def __enter__(self) -> Watcher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _watch(self, look: Callable[[], None]) -> None:
        while not self._ended.wait(0.05):
            look()

    def _look(self) -> None:
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                self.command_lines.add(place.read_bytes())

    def _list(self) -> None:
        for one in self._client.containers(all=True):
            if one["Id"] in self.containers:
                continue
            with contextlib.suppress(docker.errors.NotFound):
                found = self._client.inspect_container(one["Id"])
                environment = b""
                with contextlib.suppress(OSError):
                    environment = Path(f"/proc/{found['State']['Pid']}/environ").read_bytes()
                self.containers[one["Id"]] = json.dumps(found).encode() + environment
                self.compilers += COMPILER_LABEL in (found["Config"]["Labels"] or {})


def _browser(hub: Hub, user: str) -> requests.Session:
    browser = requests.Session()
    browser.get(f"{hub.url}/hub/login", timeout=60)
    fields = {"username": user, "password": "password-of-the-tests", "_xsrf": browser.cookies["_xsrf"]}
    assert browser.post(f"{hub.url}/hub/login", data=fields, timeout=60).ok
    return browser


def _seen_over_http(hub: Hub, user: str, browser: requests.Session) -> Iterator[bytes]:
    for page in ("spawn", f"spawn-pending/{user}", "home", "admin"):
        yield browser.get(f"{hub.url}/hub/{page}", timeout=60).content
    for path in ("api/users", f"api/users/{user}?include_stopped_servers=1", "api/proxy", "api/info", "metrics"):
        headers = {"Authorization": f"token {ADMIN_TOKEN}"}
        yield requests.get(f"{hub.url}/hub/{path}", headers=headers, timeout=60).content


def _saved(client: docker.APIClient, names: Iterable[str]) -> Iterator[bytes]:
    """`docker save` of all these together, in pieces that overlap."""
    before = b""
    with client._get(client._url("/images/get"), params={"names": list(names)}, stream=True) as answer:
        client._raise_for_status(answer)
        for chunk in answer.iter_content(1 << 20):
            yield before + chunk
            before = chunk[-100:]


def _used(hub: Hub, name: str, indexes: dict[str, IndexServer], watcher: Watcher) -> Iterator[bytes]:
    """All that can be seen of a hub that gets a package from each of these indexes, and then is refused."""
    hub.start()
    user = hub.user(name)
    browser = _browser(hub, user)
    first = next(iter(indexes))
    # Held, so that uv is seen at work.
    indexes[first].behaviour.silent.add("/simple/")
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(hub.start_server, user, {"packages": [f"demo-{way}" for way in indexes]})
        indexes[first].await_request("/simple/")
        _until(lambda: any(b"compile" in line and b"uv" in line for line in list(watcher.command_lines)))
        yield from _seen_over_http(hub, user, browser)
        indexes[first].release()
        outcome = starting.result()
    assert outcome.ready, outcome
    for way in indexes:
        assert hub.version_in(user, f"demo-{way}") == "1.0"
    yield from (repr(outcome).encode(), *_seen_over_http(hub, user, browser))
    hub.stop_server(user)
    for index in indexes.values():
        index.behaviour.credentials = (USER, "another")
    refused = hub.start_server(user, {"packages": ["demo-new"]})
    assert not refused.ready
    assert "refused this hub's credentials" in refused.message
    yield from (repr(refused).encode(), *_seen_over_http(hub, user, browser))
    assert "refused this hub's credentials" in hub.log()
    yield from (file.read_bytes() for file in hub.folder.glob("*.sqlite*"))
    hub.stop()
    yield from (file.read_bytes() for file in hub.folder.iterdir() if file.name != "jupyterhub_config.py")


@pytest.fixture
def markers() -> dict[str, Marker]:
    """By the way in which the hub gets them."""
    return {way: Marker() for way in ("url", "named", "netrc", "environment")}


def test_credentials_of_an_index_work_and_are_found_nowhere(
    make_hub, client: docker.APIClient, light_base: str, tmp_path: Path, markers: dict[str, Marker]
):
    """In the URL, in uv's variables, in netrc: the packages come, and no image, history, label, log, ledger, page, REST
    answer, command line or container holds a password, neither while it works nor when the index refuses it."""
    seen: list[bytes] = []
    with contextlib.ExitStack() as stack:
        index = {way: stack.enter_context(marker.index()) for way, marker in markers.items()}
        for way, one in index.items():
            one.add_wheel(f"demo-{way}", "1.0")
        netrc = tmp_path / "netrc"
        netrc.write_text(f"machine localhost login {USER} password {markers['netrc'].password}\n")
        in_netrc = index["netrc"]
        in_netrc.origin = in_netrc.origin.replace("127.0.0.1", "localhost")
        traits = (
            f"c.PrebuiltSpawner.index_url = {index['url'].url_with_credentials(USER, markers['url'].in_url)!r}\n"
            f"c.PrebuiltSpawner.extra_index_urls = ['corp={index['named'].url}', {in_netrc.url!r}]\n"
        )
        in_variable = index["environment"].url_with_credentials(USER, markers["environment"].in_url)
        by_traits: Hub = make_hub(
            settings=f'c.JupyterHub.log_level = "DEBUG"\n{traits}',
            base=light_base,
            cache_dir=tmp_path / "one",
            environment={
                "NETRC": str(netrc),
                "UV_INDEX_CORP_USERNAME": USER,
                "UV_INDEX_CORP_PASSWORD": markers["named"].password,
            },
        )
        by_variable: Hub = make_hub(
            settings='c.JupyterHub.log_level = "DEBUG"\n',
            base=light_base,
            cache_dir=tmp_path / "two",
            environment={"UV_DEFAULT_INDEX": in_variable},
        )
        before = by_traits.derived_tags()  # other modules' of the run
        watcher = stack.enter_context(Watcher(client))
        for hub, user, ways in (
            (by_traits, "admin", ["url", "named", "netrc"]),
            (by_variable, "reader", ["environment"]),
        ):
            seen += _used(hub, user, {way: index[way] for way in ways}, watcher)
    assert watcher.compilers
    images = by_traits.derived_tags() - before
    assert len(images) == 2
    for name in images:
        seen += [json.dumps([client.inspect_image(name), client.history(name)]).encode()]
    caches = (file for folder in ("one", "two") for file in (tmp_path / folder).rglob("*") if file.is_file())
    seen += [*watcher.command_lines, *watcher.containers.values(), *(file.read_bytes() for file in caches)]
    for way, marker in markers.items():
        assert [text for text in seen if marker.is_in(text)] == [], way
    for chunk in _saved(client, images):
        assert not any(marker.is_in(chunk) for marker in markers.values())


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it was not seen within 30 seconds"
        time.sleep(0.02)
