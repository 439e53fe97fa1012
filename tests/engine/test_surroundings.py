"""When the surroundings fail: what users are told, and that the hub goes on."""

from __future__ import annotations

from pathlib import Path

import requests
import trustme

from ..index_server import IndexServer, ProxyServer
from .engine_socket import EngineSocket
from .hub import Hub


def test_a_stopped_engine_is_a_503_and_the_hub_goes_on(make_hub, engine_socket: EngineSocket):
    """Without an engine a start is a 503 that says so, the hub answers, and once it is back the next start works."""
    hub: Hub = make_hub(environment={"DOCKER_HOST": f"unix://{engine_socket.path}"})
    hub.start()
    user = hub.user("patient")
    engine_socket.close()
    outcome = hub.start_server(user, {"packages": ["xlsxwriter"]})
    assert (outcome.status, outcome.ready) == (503, False), outcome
    assert "engine cannot be reached" in outcome.message
    assert str(engine_socket.path) not in outcome.message
    assert requests.get(hub.url + "/hub/api/", timeout=5).ok
    engine_socket.open()
    assert hub.start_server(user, {"packages": ["xlsxwriter"]}).ready
    assert hub.version_in(user, "xlsxwriter")


def test_a_hub_that_starts_before_its_engine_works_when_it_is_there(make_hub, engine_socket: EngineSocket):
    """The hub starts without an engine; the first start after the engine came works."""
    engine_socket.close()
    hub: Hub = make_hub(environment={"DOCKER_HOST": f"unix://{engine_socket.path}"})
    hub.start()
    user = hub.user("early")
    assert hub.start_server(user, {"packages": ["xlsxwriter"]}).status == 503
    engine_socket.open()
    assert hub.start_server(user, {"packages": ["xlsxwriter"]}).ready


def test_an_index_behind_a_proxy_with_a_ca_of_its_own(make_hub, tmp_path: Path):
    """Resolving and fetching go through the proxy that the hub's environment names, and trust the CA that it names."""
    authority = trustme.CA()
    with IndexServer(authority=authority) as index, ProxyServer() as proxy:
        index.add_wheel("demo-pkg", "1.0", files={"demo_pkg.py": "there = True\n"})
        ca = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(ca))
        hub: Hub = make_hub(
            # The base's own packages are on no index here: they are kept as they are.
            settings=f"c.PrebuiltSpawner.index_url = {index.url!r}\n",
            cache_dir=tmp_path / "cache",
            environment={"HTTPS_PROXY": proxy.url, "NO_PROXY": "", "SSL_CERT_FILE": str(ca)},
        )
        hub.start()
        user = hub.user("behind")
        outcome = hub.start_server(user, {"packages": ["demo-pkg"]})
        assert outcome.ready, outcome
        assert hub.python(user, "import demo_pkg; print(demo_pkg.there)") == "True"
        assert proxy.tunnels()


def test_an_index_that_does_not_answer_is_a_503(make_hub, tmp_path: Path):
    """With an index that cannot be reached a new list is a 503, and a list that is there starts."""
    with IndexServer() as index:
        index.add_wheel("demo-pkg", "1.0")
        url = index.url
        hub: Hub = make_hub(settings=f"c.PrebuiltSpawner.index_url = {url!r}\n", cache_dir=tmp_path / "cache")
        hub.start()
        user = hub.user("offline")
        assert hub.start_server(user, {"packages": ["demo-pkg"]}).ready
        hub.stop_server(user)
    outcome = hub.start_server(user, {"packages": ["demo-other"]})
    assert not outcome.ready
    assert outcome.status in (503, 202)
    assert "index" in outcome.message
    assert hub.start_server(user, {"packages": ["demo-pkg"]}).ready
