"""How a registry is spoken to: credentials as docker has them, certificates, and plain HTTP on loopback only."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from prebuilt_spawner.adapters.oci_registry import OciRegistry
from prebuilt_spawner.adapters.registry_session import is_loopback, registry_network
from prebuilt_spawner.errors import PrebuiltError, RegistryRefusal, RegistryUnavailable
from tests.contract.registry_worlds import REPOSITORY, base_content, layer, plan_of
from tests.registry_server import RegistryServer

TAG = "1" * 64
PLAN = plan_of(TAG, layer("file", b"content" * 1000))
LOGIN = ("hub", "pass:word-of-the-registry")


@pytest.fixture
async def server() -> AsyncIterator[RegistryServer]:
    with RegistryServer() as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's configuration file of the hub's user, which is empty."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path / "config.json"


def log_in(config: Path, host: str) -> None:
    auth = base64.b64encode(":".join(LOGIN).encode()).decode()
    configure(config, auths={host: {"auth": auth}})


def configure(config: Path, **document: object) -> None:
    config.write_text(json.dumps(document))


async def pushed(server: RegistryServer) -> bool:
    """Push and find."""
    registry = OciRegistry(server.host, REPOSITORY, registry_network(server.host, {}), look_seconds=2)
    try:
        await registry.push(TAG, PLAN, base_content())
        return await registry.find(TAG) is not None
    finally:
        await registry.close()


# -- credentials -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [False, True], ids=["basic", "tokens"])
async def test_credentials_of_docker_let_the_hub_in(server: RegistryServer, config: Path, tokens: bool) -> None:
    """With a password for each request, and with tokens that are got for it."""
    server.behaviour.credentials, server.behaviour.tokens = LOGIN, tokens
    with pytest.raises(RegistryRefusal):
        await pushed(server)
    log_in(config, server.host)  # while the hub runs
    assert await pushed(server)


async def test_wrong_credentials_are_a_refusal_that_does_not_show_them(server: RegistryServer, config: Path) -> None:
    for tokens in (False, True):
        server.behaviour.credentials, server.behaviour.tokens = ("hub", "another"), tokens
        log_in(config, server.host)
        with pytest.raises(RegistryRefusal) as refused:
            await pushed(server)
        said = f"{refused.value.message} {refused.value.detail}"
        assert LOGIN[1] not in said
        assert base64.b64encode(":".join(LOGIN).encode()).decode() not in said


async def test_a_credential_helper_is_asked(
    server: RegistryServer, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "docker-credential-of-a-test"
    answer = json.dumps({"ServerURL": server.host, "Username": LOGIN[0], "Secret": LOGIN[1]})
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{answer}'\n")
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    configure(config, credHelpers={server.host: "of-a-test"})
    server.behaviour.credentials = LOGIN
    assert await pushed(server)


@pytest.mark.filterwarnings("ignore:docker-credential-that-is-not-there")  # docker-py's own word for it
async def test_a_credential_helper_that_is_not_there_is_a_refusal(server: RegistryServer, config: Path) -> None:
    configure(config, credHelpers={server.host: "that-is-not-there"})
    server.behaviour.credentials = LOGIN
    with pytest.raises(RegistryRefusal):
        await pushed(server)


async def test_credentials_of_another_registry_are_not_sent(server: RegistryServer, config: Path) -> None:
    log_in(config, "registry.example.org")
    server.behaviour.credentials = LOGIN
    with pytest.raises(RegistryRefusal):
        await pushed(server)
    assert not any(request.headers.get("Authorization") for request in server.requests)


async def test_a_netrc_file_is_not_read(
    server: RegistryServer, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is for package indexes."""
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {LOGIN[0]} password {LOGIN[1]}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.behaviour.credentials = LOGIN
    with pytest.raises(RegistryRefusal):
        await pushed(server)


# -- TLS ---------------------------------------------------------------------------------------------------------------


async def test_an_authority_of_dockers_folder_or_of_the_environment_is_trusted_and_no_other(
    tmp_path: Path, config: Path
) -> None:
    authority = trustme.CA()
    with RegistryServer(authority=authority) as server:
        folder = tmp_path / "certs.d" / server.host
        folder.mkdir(parents=True)

        async def found(**environment: str) -> object:
            network = registry_network(server.host, environment, certificates=tmp_path / "certs.d")
            registry = OciRegistry(server.host, REPOSITORY, network, look_seconds=2)
            try:
                return await registry.find(TAG)
            finally:
                await registry.close()

        with pytest.raises(RegistryUnavailable, match="cannot be reached"):
            await found()
        authority.cert_pem.write_to_path(str(folder / "ca.crt"))
        assert await found() is None
        (folder / "ca.crt").rename(tmp_path / "bundle.pem")
        assert await found(REQUESTS_CA_BUNDLE=str(tmp_path / "bundle.pem")) is None
        assert await found(SSL_CERT_FILE=str(tmp_path / "bundle.pem")) is None


@pytest.mark.parametrize("name", ["ca.crt", "client.cert"])
def test_a_certificate_that_is_none_is_left_out_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Environments are built without the registry; the hub starts."""
    (tmp_path / "registry.test").mkdir()
    (tmp_path / "registry.test" / name).write_text("no certificate")
    registry_network("registry.test", {}, certificates=tmp_path)
    assert name in caplog.text


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1:5000", True),
        ("127.1.2.3", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("registry.example.org", False),
        ("192.168.0.1:5000", False),
        ("127.0.0.1.example.org", False),
        ("localhost.example.org:5000", False),
    ],
)
def test_plain_http_is_for_loopback_only(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, RegistryRefusal),
        (403, RegistryRefusal),
        (405, RegistryRefusal),
        (413, RegistryRefusal),
        (429, RegistryUnavailable),
        (500, RegistryUnavailable),
        (502, RegistryUnavailable),
        (503, RegistryUnavailable),
        (301, RegistryUnavailable),
    ],
)
async def test_refused_and_unreachable_are_told_apart(
    server: RegistryServer, config: Path, status: int, kind: type[PrebuiltError]
) -> None:
    """While it is looked, and while a layer is sent; nothing is under the tag afterwards."""
    server.behaviour.failures["PATCH "] = status
    with pytest.raises(kind):
        await pushed(server)
    assert server.tags(REPOSITORY) == set()
    assert server.uploads == {}
    server.behaviour.failures["GET "] = status
    with pytest.raises(kind):
        await pushed(server)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"layers": [1]}',
        b'{"layers": [{"size": "x"}], "config": 5}',
        b'{"config": [], "layers": 3}',
    ],
)
async def test_nonsense_under_the_tag_is_no_image(server: RegistryServer, config: Path, content: bytes) -> None:
    """And breaks nothing."""
    server.put_manifest(REPOSITORY, TAG, "application/vnd.oci.image.manifest.v1+json", content)
    registry = OciRegistry(server.host, REPOSITORY, registry_network(server.host, {}))
    try:
        found = await registry.find(TAG)
        assert found is not None
        assert found.config is None
    except RegistryUnavailable:
        pass
    finally:
        await registry.close()


async def test_a_push_that_dies_leaves_no_upload_behind(server: RegistryServer, config: Path) -> None:
    server.behaviour.dies_after_bytes = 1000
    with pytest.raises(RegistryUnavailable):
        await pushed(server)
    assert server.uploads == {}
    assert await pushed(server)


async def test_a_blob_that_was_lost_meanwhile_is_sent_once_more(server: RegistryServer, config: Path) -> None:
    """As where others send the same at the same moment. A registry that loses it again has a word said about it."""
    server.behaviour.forgets = 1
    assert await pushed(server)
    server.manifests.clear()
    server.behaviour.forgets = 4
    with pytest.raises(RegistryUnavailable, match="no usable answer"):
        await pushed(server)
    assert not server.tags(REPOSITORY)


async def test_a_tag_that_somebody_else_writes_just_now_is_looked_at_again(
    server: RegistryServer, config: Path
) -> None:
    """A registry that keeps tags in files finds an empty one for a moment."""
    server.behaviour.unreadable = 1
    assert await pushed(server)
    server.manifests.clear()
    server.blobs.clear()
    server.behaviour.unreadable = 4
    with pytest.raises(RegistryUnavailable):
        await pushed(server)


async def test_layers_of_a_base_that_the_registry_does_not_take_over_are_copied(
    server: RegistryServer, config: Path
) -> None:
    """Not every registry mounts."""
    registry = OciRegistry(server.host, "bases/one", registry_network(server.host, {}))
    base = await registry.push(TAG, plan_of(TAG), base_content())
    await registry.close()
    name = f"{server.host}/bases/one@{base.manifest_digest}"
    for mounts in (True, False):
        server.behaviour.mounts = mounts
        other = OciRegistry(server.host, f"env-{mounts}".lower(), registry_network(server.host, {}))
        push = await other.push(TAG, PLAN, base_content(name))
        await other.close()
        assert (push.mounted_bytes > 0) is mounts
        assert (push.sent_bytes > 60_000) is not mounts


async def test_words_of_addresses_are_not_in_what_is_said(server: RegistryServer, config: Path) -> None:
    """The state of an upload is nobody's business."""
    server.behaviour.dies_after_bytes = 1000
    with pytest.raises(RegistryUnavailable) as failed:
        await pushed(server)
    assert "secret-" not in failed.value.detail


async def test_closing_ends_a_push(server: RegistryServer, config: Path) -> None:
    server.behaviour.silent.add("PATCH ")
    registry = OciRegistry(server.host, REPOSITORY, registry_network(server.host, {}))
    push = asyncio.ensure_future(registry.push(TAG, PLAN, base_content()))
    await asyncio.to_thread(server.await_request, f"/v2/{REPOSITORY}/blobs/uploads/", count=2)
    push.cancel()
    server.release()
    await registry.close()
    with pytest.raises(asyncio.CancelledError):
        await push
    assert server.tags(REPOSITORY) == set()
