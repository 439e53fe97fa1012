"""HTTP to a registry as the distribution specification has it: credentials, certificates, and what an answer means."""

from __future__ import annotations

import base64
import ipaddress
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import docker.auth
import requests
from docker.errors import DockerException
from requests.auth import HTTPBasicAuth
from requests.utils import parse_dict_header

from ..errors import PrebuiltError, RegistryRefusal, RegistryUnavailable
from .network import NetworkSettings
from .stoppable import Cancelled

_log = logging.getLogger(__name__)

CERTIFICATES = Path("/etc/docker/certs.d")
"""Where the engine looks for the certificates of a registry, in a folder of the registry's name."""

_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 60
_SMALL_BYTES = 4 << 20
_WORDS_CHARACTERS = 500
_PARAMETERS = re.compile(r"\?[^\s'\"]+")
_REFUSED = "The registry does not let this hub in. Tell your administrator."
_UNREACHABLE = "The registry cannot be reached. Tell your administrator."
_NONSENSE = "The registry gives no usable answer. Tell your administrator."
_CONFUSED = (400, 404)
"""What registries say of what they have lost."""


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine, to which plain HTTP may be spoken."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def registry_network(host: str, environ: Mapping[str, str], *, certificates: Path = CERTIFICATES) -> NetworkSettings:
    """How this registry is reached: proxies and certificates as the environment says, and docker's certificates for it.
    One that cannot be read is left out, with a word in the log: the registry cannot be reached then, perhaps."""
    # Neither package indexes nor the netrc file are the registry's.
    network = replace(
        NetworkSettings.from_environment(environ, index_url="", extra_index_urls=()),
        netrc_file="",
        uv_variables={},
    )
    if is_loopback(host):
        network = replace(network, no_proxy=f"{network.no_proxy},{urlsplit(f'//{host}').hostname}")
    for file in sorted((certificates / host).glob("*.c*rt")):
        try:
            if file.suffix == ".crt":
                network.ssl_context.load_verify_locations(file)
            elif file.suffix == ".cert":
                network.ssl_context.load_cert_chain(file, file.with_suffix(".key"))
        except OSError as error:
            _log.error("The certificate %s for the registry cannot be read: %s", file, error)
    return network


class RegistrySession:
    """Requests to one registry, for one thread and one operation.

    Every answer that was not asked for is an error: `RegistryRefusal` where the hub may not (401, 403, 405), or what
    it wants is refused (other 4xx), `RegistryUnavailable` where nobody knows (429, 5xx, no answer).

    Args:
        host: With its port.
        stop: Nothing more is asked for once it is set.
        answer_seconds: How long the registry may send nothing.
    """

    def __init__(
        self, host: str, network: NetworkSettings, stop: threading.Event, *, answer_seconds: float = _ANSWER_SECONDS
    ) -> None:
        self._host = host
        self._stop = stop
        self._timeout = (min(_CONNECT_SECONDS, answer_seconds), answer_seconds)
        self._session = network.session()
        self._origin = "" if is_loopback(host) else f"https://{host}"
        self._authorization = ""

    def close(self) -> None:
        """Release the connection."""
        self._session.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        expected: tuple[int, ...],
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """An answer with one of the expected statuses, its body unread. The caller closes it.

        Args:
            path: Below the registry's address, or a whole address that the registry has given.
        """
        with self._translated():
            if not self._origin:
                self._origin = f"{self._scheme()}://{self._host}"
            answer = self._send(method, path, data=data, headers=headers, params=params)
            if answer.status_code == 401 and self._authorize(answer) and isinstance(data, bytes | None):
                answer = self._send(method, path, data=data, headers=headers, params=params)
            if answer.status_code in expected:
                return answer
            with answer:
                raise _error(answer, f"{method} {urlsplit(path).path}", self._host)

    def small(self, method: str, path: str, **how: Any) -> tuple[requests.Response, bytes]:
        """An answer and its whole body, which is a document and no layer."""
        with self._translated(), self.request(method, path, **how) as answer:
            body = b""
            for chunk in answer.iter_content(65536):
                body += chunk
                if len(body) > _SMALL_BYTES:
                    raise RegistryUnavailable(_NONSENSE, detail=f"{path} of {self._host} is too large")
            return answer, body

    def place(self, answer: requests.Response) -> str:
        """The address that an answer sends the hub to.

        Raises:
            RegistryUnavailable: It says none, or leaves TLS.
        """
        place = urljoin(answer.url, answer.headers.get("Location", ""))
        if not answer.headers.get("Location") or (self._origin.startswith("https:") and not place.startswith("https:")):
            detail = f"{self._host} sends uploads to {_PARAMETERS.sub('', place)}: look at its own address and TLS"
            raise RegistryUnavailable(_NONSENSE, detail=detail)
        return place

    def _scheme(self) -> str:
        """What a registry on loopback speaks. Asked for plain HTTP, one that wants TLS answers 400, or hangs up."""
        try:
            with self._session.get(f"http://{self._host}/v2/", timeout=self._timeout, stream=True) as answer:
                return "https" if answer.status_code == 400 else "http"
        except requests.Timeout:
            raise
        except requests.ConnectionError:
            return "https"

    def _send(self, method: str, path: str, *, data: Any, headers: Any, params: Any) -> requests.Response:
        if self._stop.is_set() and method != "DELETE":  # who leaves may still tidy up
            raise Cancelled
        url = path if "://" in path else self._origin + path
        own = _without_default_port(urlsplit(url).netloc) == _without_default_port(self._host)
        given = {"Authorization": self._authorization} if own and self._authorization else {}
        return self._session.request(
            method,
            url,
            data=data,
            headers={**given, **(headers or {})},
            params=params,
            timeout=self._timeout,
            stream=True,
            # What is sent cannot be sent again to somewhere else.
            allow_redirects=method in ("GET", "HEAD"),
        )

    def _authorize(self, answer: requests.Response) -> bool:
        """Get what a 401 asks for; False where nothing can be done about it."""
        kind, _, rest = answer.headers.get("WWW-Authenticate", "").partition(" ")
        answer.close()
        user, password, identity = _credentials(self._host)
        if kind.lower() == "basic" and user:
            self._authorization = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
            return True
        if kind.lower() == "bearer":
            challenge = parse_dict_header(rest)  # type: ignore[no-untyped-call]  # it is in no stub
            self._authorization = f"Bearer {self._token(challenge, user, password, identity)}"
            return True
        return False

    def _token(self, challenge: Mapping[str, str], user: str, password: str, identity: str) -> str:
        realm = urljoin(self._origin, challenge.get("realm", ""))
        if not (realm.startswith("https:") or is_loopback(urlsplit(realm).netloc)):
            raise RegistryRefusal(_REFUSED, detail=f"{self._host} asks for credentials over plain HTTP")
        wanted = {key: challenge[key] for key in ("service", "scope") if challenge.get(key)}
        if identity:
            form = {"grant_type": "refresh_token", "refresh_token": identity, "client_id": "prebuilt-spawner"}
            answer = self._session.post(realm, data={**wanted, **form}, timeout=self._timeout)
        else:
            login = HTTPBasicAuth(user, password) if user else None
            answer = self._session.get(realm, params=wanted, auth=login, timeout=self._timeout)
        with answer:
            if answer.status_code != 200:
                raise _error(answer, "the token", self._host)
            document = answer.json()
            token = document.get("token") or document.get("access_token")
        if not token:
            raise RegistryUnavailable(_NONSENSE, detail=f"{self._host} gives no token")
        return str(token)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (requests.RequestException, OSError, ValueError) as error:
            # Addresses of uploads have parameters that are nobody else's business.
            words = _PARAMETERS.sub("", str(error))[:_WORDS_CHARACTERS]
            if self._stop.is_set():
                raise Cancelled from None
            raise RegistryUnavailable(_UNREACHABLE, detail=f"{self._host}: {type(error).__name__}: {words}") from None


def _without_default_port(host: str) -> str:
    return re.sub(r":(?:80|443)\Z", "", host)


def _credentials(host: str) -> tuple[str, str, str]:
    """(user, password, identity token) as docker has them: its configuration file and credential helpers. Read each
    time, because people log in while the hub runs.

    Raises:
        RegistryRefusal: A credential helper fails.
    """
    try:
        found = docker.auth.load_config().resolve_authconfig(host) or {}
    except DockerException as error:
        detail = f"docker's credentials for {host} cannot be read: {error}"
        raise RegistryRefusal(_REFUSED, detail=detail) from error
    return (
        str(found.get("username") or found.get("Username") or ""),
        str(found.get("password") or found.get("Password") or ""),
        str(found.get("identitytoken") or found.get("IdentityToken") or ""),
    )


def _words(answer: requests.Response) -> str:
    """The beginning of what an answer says."""
    return next(iter(answer.iter_content(_WORDS_CHARACTERS)), b"").decode("utf-8", "replace")


def _error(answer: requests.Response, what: str, host: str) -> PrebuiltError:
    detail = f"{host} answers {what} with {answer.status_code}: {_words(answer)}"
    if answer.status_code == 429 or answer.status_code >= 500:
        return RegistryUnavailable(_UNREACHABLE, detail=detail)
    if answer.status_code < 400 or answer.status_code in _CONFUSED:
        return RegistryUnavailable(_NONSENSE, detail=detail)
    return RegistryRefusal(_REFUSED, detail=detail)
