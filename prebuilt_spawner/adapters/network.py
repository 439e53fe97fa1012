"""How the hub reaches package indexes: one set of proxies, certificates and credentials for uv and our own downloads.

uv and `requests` read different variables and understand some of them differently, so both get what is decided here
and neither looks at the hub's environment itself.
"""

from __future__ import annotations

import ipaddress
import netrc
import os.path
import re
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth

from .._version import __version__
from ..build.failure import TELL
from ..environment.urls import UNREADABLE, index_name_and_url, is_readable, public_index_url, without_credentials
from ..errors import SurroundingsError

_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#@'\"`<>]+(?:@[^\s/?#@'\"`<>]+)*@")
# What uv takes from its environment and we pass on: how several indexes are weighed, and their credentials.
_UV_PASSED_ON = re.compile(r"UV_INDEX_[A-Z0-9_]+_(?:USERNAME|PASSWORD)")
_MASK = "***"
_MIN_TOKEN_LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """A user and password for everything at one origin that lies under a path.

    Attributes:
        origin: (scheme, host, port) with the scheme's own port filled in.
        path: The index's path; of several credentials for an origin the one whose path fits longest is used.
    """

    origin: tuple[str, str, int]
    path: str
    user: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """What both uv and our downloads use. Everything that may hold a secret is left out of the `repr`.

    Attributes:
        http_proxy, https_proxy, all_proxy, no_proxy: As the variables of those names; "" where unset.
        ca_file, ca_folder: Certificates to trust instead of the system's; "" for the system's.
        netrc_file: File with logins by host; "" for none.
        index_url: The default index, perhaps with credentials; "" for uv's own default.
        extra_index_urls: Indexes that go before it, perhaps with credentials, perhaps as `name=url`.
        search_path: PATH for the uv process.
        uv_variables: Further variables for the uv process.
    """

    http_proxy: str = field(default="", repr=False)
    https_proxy: str = field(default="", repr=False)
    all_proxy: str = field(default="", repr=False)
    no_proxy: str = ""
    ca_file: str = ""
    ca_folder: str = ""
    netrc_file: str = ""
    index_url: str = field(default="", repr=False)
    extra_index_urls: tuple[str, ...] = field(default=(), repr=False)
    search_path: str = os.path.defpath
    uv_variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], *, index_url: str | None = None, extra_index_urls: Iterable[str] | None = None
    ) -> NetworkSettings:
        """Read the hub's environment.

        Args:
            environ: As `os.environ`.
            index_url: None leaves the choice to uv's own variables (`UV_DEFAULT_INDEX`, `UV_INDEX_URL`), else to uv.
            extra_index_urls: None means `UV_INDEX` and `UV_EXTRA_INDEX_URL`, unless `index_url` is given.

        Raises:
            SurroundingsError: A URL cannot be read.
        """
        if extra_index_urls is None:
            extra_index_urls = (
                f"{environ.get('UV_INDEX', '')} {environ.get('UV_EXTRA_INDEX_URL', '')}".split()
                if index_url is None
                else ()
            )
        if index_url is None:
            index_url = environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL") or ""
        extra_index_urls = tuple(extra_index_urls)
        if not all(map(is_readable, (index_url, *extra_index_urls))):
            # Here and not where one is used: that would say what it could not read, which is a piece of the password.
            raise SurroundingsError(f"Packages cannot be looked up at the moment. {TELL}", detail=UNREADABLE)
        ca_file, ca_folder = _certificates(environ)
        return cls(
            http_proxy=_proxy(environ, "http_proxy"),
            https_proxy=_proxy(environ, "https_proxy"),
            all_proxy=_proxy(environ, "all_proxy"),
            no_proxy=_proxy(environ, "no_proxy"),
            ca_file=ca_file,
            ca_folder=ca_folder,
            netrc_file=_netrc_file(environ),
            index_url=index_url,
            extra_index_urls=extra_index_urls,
            search_path=environ.get("PATH", os.path.defpath),
            uv_variables={name: value for name, value in environ.items() if _UV_PASSED_ON.fullmatch(name)},
        )

    @property
    def public_index_urls(self) -> tuple[str, ...]:
        """The indexes in the order in which they are asked, without secrets: where packages come from."""
        return tuple(public_index_url(url) for url in self._index_urls if url)

    @property
    def reads_folders(self) -> bool:
        """Whether one of the indexes is a folder of this machine, so that packages may come from its files."""
        return any(urlsplit(url).scheme not in ("http", "https") for url in self._index_urls if url)

    def uv_environment(self, home: Path) -> dict[str, str]:
        """The whole environment of a uv process.

        Indexes go in here and not on the command line, because everybody on the machine can list processes.

        Args:
            home: An empty folder: uv reads settings and credentials from below its home.
        """
        variables = {
            "PATH": self.search_path,
            "HOME": str(home),
            "NETRC": self.netrc_file or os.devnull,
            # The system's certificates instead of uv's own bundle; the second is the name before uv 0.11.
            "UV_SYSTEM_CERTS": "1",
            "UV_NATIVE_TLS": "1",
            "SSL_CERT_FILE": self.ca_file,
            "SSL_CERT_DIR": self.ca_folder,
            "UV_DEFAULT_INDEX": self.index_url,
            "UV_INDEX": " ".join(self.extra_index_urls),
            **self.uv_variables,
        }
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            variables[name] = variables[name.upper()] = getattr(self, name)
        return {name: value for name, value in variables.items() if value}

    @cached_property
    def credentials(self) -> tuple[Credentials, ...]:
        """What the index URLs say, and uv's variables for named indexes."""
        found = []
        for entry in (*self.extra_index_urls, self.index_url):
            name, url = index_name_and_url(entry)
            parts = urlsplit(url)
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
            if name and not user and not password:
                variable = f"UV_INDEX_{re.sub('[^A-Z0-9]', '_', name.upper())}"
                user = self.uv_variables.get(f"{variable}_USERNAME", "")
                password = self.uv_variables.get(f"{variable}_PASSWORD", "")
            if user or password:
                found.append(Credentials(origin=_origin(parts), path=parts.path, user=user, password=password))
        return tuple(found)

    def credentials_for(self, url: str) -> tuple[str, str] | None:
        """(user, password) for this URL: from the index that it belongs to, else from the netrc file."""
        parts = urlsplit(url)
        fitting = [entry for entry in self.credentials if entry.origin == _origin(parts)]
        if fitting:
            best = max(fitting, key=lambda entry: _shared_segments(entry.path, parts.path))
            return best.user, best.password
        if self._logins is not None and parts.hostname:
            login = self._logins.authenticators(parts.hostname)
            if login is not None and (login[0] or login[2]):
                return login[0] or "", login[2] or ""
        return None

    def stored_url(self, url: str) -> str:
        """A wheel's URL as it may be kept: without credentials, and without what an index's own query has.

        The rest of the query stays, because there are servers that find the file by it.
        """
        parts = urlsplit(without_credentials(url))
        secrets = {parameter for index in self._indexes_with_query for parameter in index.query.split("&")}
        kept = [parameter for parameter in parts.query.split("&") if parameter not in secrets]
        return urlunsplit(parts._replace(query="&".join(kept)))

    def request_url(self, url: str) -> str:
        """A stored URL as it is asked for: with the query of the index at that origin, which may be its token."""
        parts = urlsplit(url)
        fitting = [index for index in self._indexes_with_query if _origin(index) == _origin(parts)]
        if not fitting:
            return url
        best = max(fitting, key=lambda index: _shared_segments(index.path, parts.path))
        present = parts.query.split("&") if parts.query else []
        missing = [parameter for parameter in best.query.split("&") if parameter not in present]
        return urlunsplit(parts._replace(query="&".join([*present, *missing])))

    def proxy_for(self, url: str) -> str:
        """The proxy for this URL, "" for none."""
        parts = urlsplit(url)
        if _bypasses(parts.hostname or "", parts.port, self.no_proxy):
            return ""
        return (self.https_proxy if parts.scheme == "https" else self.http_proxy) or self.all_proxy

    def session(self) -> requests.Session:
        """A new session for one thread that uses these settings and nothing of the process's environment."""
        session = requests.Session()
        session.trust_env = False
        session.auth = _Login(self)
        session.headers["User-Agent"] = f"prebuilt-spawner/{__version__}"
        adapter = _Adapter(self)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return session

    @cached_property
    def ssl_context(self) -> ssl.SSLContext:
        """Verifies servers against the configured certificates, else the system's, else `certifi`'s."""
        if self.ca_file or self.ca_folder:
            context = ssl.create_default_context(cafile=self.ca_file or None, capath=self.ca_folder or None)
        else:
            context = ssl.create_default_context()
            paths = ssl.get_default_verify_paths()
            # A Python that was built elsewhere may look for certificates where this system has none.
            if paths.cafile is None and paths.capath is None:
                context.load_verify_locations(requests.certs.where())
        # From Python 3.13 on certificates are checked more strictly than uv and older Pythons do; the authorities
        # that organisations made for themselves years ago often do not pass.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def redact(self, text: str) -> str:
        """The text without credentials: those in any URL, and those that are known, wherever they stand; what the
        queries of index URLs say is taken for such."""
        text = _USERINFO.sub(rf"\g<scheme>{_MASK}@", text)
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        return text

    @cached_property
    def _index_urls(self) -> tuple[str, ...]:
        """As they were given, without names; the default one, last, may be ""."""
        return tuple(index_name_and_url(entry)[1] for entry in (*self.extra_index_urls, self.index_url))

    @cached_property
    def _indexes_with_query(self) -> tuple[SplitResult, ...]:
        return tuple(parts for parts in map(urlsplit, self._index_urls) if parts.query)

    @cached_property
    def _logins(self) -> netrc.netrc | None:
        with suppress(OSError, netrc.NetrcParseError):
            if self.netrc_file:
                return netrc.netrc(self.netrc_file)
        return None

    @cached_property
    def _secrets(self) -> tuple[str, ...]:
        """Passwords, user names that stand alone (tokens) and queries, longest first so that none is masked in part."""
        found = {entry.password or entry.user for entry in self.credentials}
        for url in (self.http_proxy, self.https_proxy, self.all_proxy, *self._index_urls):
            parts = urlsplit(url)
            raw = parts.password or parts.username or ""
            found |= {raw, unquote(raw)}
        for index in self._indexes_with_query:
            found |= _query_secrets(index.query)
        if self._logins is not None:
            found |= {login[2] or "" for login in self._logins.hosts.values()}
        found |= {value for name, value in self.uv_variables.items() if name.endswith("_PASSWORD")}
        return tuple(sorted((secret for secret in found if secret), key=len, reverse=True))


class _Login(AuthBase):
    """Basic authentication with the credentials that belong to each URL."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        credentials = self._settings.credentials_for(request.url or "")
        return HTTPBasicAuth(*credentials)(request) if credentials is not None else request


class _Adapter(HTTPAdapter):
    """Sends each request, redirected ones too, through our choice of proxy and with our certificates."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._settings.ssl_context, **kwargs)

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=self._settings.ssl_context, **kwargs)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Nothing: requests would add `certifi`'s certificates to those of our context here."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        proxy = self._settings.proxy_for(request.url or "")
        kwargs["proxies"] = {"http": proxy, "https": proxy} if proxy else {}
        return super().send(request, *args, **kwargs)


def _proxy(environ: Mapping[str, str], name: str) -> str:
    # Where both are set the lower-case one wins, as in curl and urllib.
    return environ.get(name) or environ.get(name.upper()) or ""


def _certificates(environ: Mapping[str, str]) -> tuple[str, str]:
    """(file, folder). `REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE` count where the general ones are not set; requests
    takes a folder in the former too."""
    file, folder = environ.get("SSL_CERT_FILE", ""), environ.get("SSL_CERT_DIR", "")
    if not file and not folder:
        bundle = environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE") or ""
        return ("", bundle) if bundle and Path(bundle).is_dir() else (bundle, "")
    return file, folder


def _netrc_file(environ: Mapping[str, str]) -> str:
    if environ.get("NETRC"):
        return environ["NETRC"]
    candidate = Path(environ["HOME"]) / ".netrc" if environ.get("HOME") else None
    return str(candidate) if candidate is not None and candidate.is_file() else ""


def _query_secrets(query: str) -> set[str]:
    """The query, its parameters, and their values where these are too long to be common words."""
    parameters = query.split("&")
    values = {parameter.partition("=")[2] or parameter for parameter in parameters}
    raw = {query, *parameters, *(value for value in values if len(unquote(value)) >= _MIN_TOKEN_LENGTH)}
    return raw | set(map(unquote, raw))


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _shared_segments(one: str, other: str) -> int:
    """How many path segments two URL paths have in common from the left."""
    shared = 0
    for left, right in zip(one.strip("/").split("/"), other.strip("/").split("/"), strict=False):
        if left != right:
            break
        shared += 1
    return shared


def _bypasses(host: str, port: int | None, no_proxy: str) -> bool:
    """Whether `no_proxy` names the host: `*`, domains (with or without a leading dot), addresses, networks in CIDR
    form, each perhaps with a port. uv reads it in the same way."""
    for entry in (part.strip().lower() for part in no_proxy.split(",")):
        name, _, wanted_port = entry.rpartition(":") if re.fullmatch(r"[^:]+:\d+", entry) else (entry, "", "")
        if not name or (wanted_port and wanted_port != str(port)):
            continue
        domain = name.removeprefix("*").lstrip(".")
        if name == "*" or host == domain or host.endswith(f".{domain}"):
            return True
        with suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False):
                return True
    return False
