"""Which source distributions there are: the pages of the package indexes that uv asks too (PEP 503 and PEP 691).

uv itself is never asked for a source distribution: to learn what one needs, it would run it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urldefrag, urljoin, urlsplit, urlunsplit
from urllib.request import url2pathname

import requests
import uv as uv_package
from packaging.utils import InvalidSdistFilename, canonicalize_name, parse_sdist_filename
from packaging.version import InvalidVersion, Version

from ..build.failure import TELL, Failure, Kind
from ..build.sources import ListedSource
from ..environment.lock import SDIST_FILENAME, LockedFile
from ..environment.urls import index_name_and_url
from ..errors import PrebuiltError
from .network import NetworkSettings

_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
_MOST_BYTES = 128 << 20
"""Of one page; the largest of the public index has 20 MB."""
_CHUNK_BYTES = 256 * 1024
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_OLD_ARCHIVE = re.compile(r"\.(?:tgz|tar\.bz2|tar\.xz)$")
_LATER = "Try again later, or tell the administrator of this hub."
_DEFAULT_INDEX = re.compile(r"^--index-url (\S+)$", re.MULTILINE)
_ASK_DEFAULT = ("pip", "compile", "--no-config", "--emit-index-url", "--offline", "--no-cache")
_UV_SECONDS = 30


class SimpleIndex:
    """Implements `prebuilt_spawner.build.sources.SourceIndex`.

    Args:
        network: Indexes, proxies, certificates and credentials.
        uv: The uv program, which knows its own default index; None for the one of the `uv` package.
        silence_seconds: How long an index may send nothing.
        retries: How often it is asked again after what may pass.
    """

    def __init__(
        self, network: NetworkSettings, *, uv: str | None = None, silence_seconds: float = 30, retries: int = 3
    ) -> None:
        self._network = network
        self._uv = uv or uv_package.find_uv_bin()
        self._silence_seconds = silence_seconds
        self._retries = retries
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="source-index")
        self._default_url = network.index_url

    async def sources(self, name: str) -> Sequence[ListedSource]:
        """See `prebuilt_spawner.build.sources.SourceIndex`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._listed, name)

    async def close(self) -> None:
        """See `prebuilt_spawner.build.sources.SourceIndex`. A thread that a silent index holds ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _listed(self, name: str) -> list[ListedSource]:
        """Of the first index that has the name, whatever versions others have, as uv is told to take them."""
        for entry in (*self._network.extra_index_urls, self._default()):
            page_url = _page_url(urlsplit(index_name_and_url(entry)[1]), name)
            page = self._page(page_url)
            if page is not None:
                kind, content = page
                read = _from_json if kind.startswith(_JSON) else _from_html
                try:
                    found = read(content, page_url)
                    return [self._without_secrets(one) for one in found if canonicalize_name(one.file.name) == name]
                except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
                    raise self._broken(Kind.INDEX_BROKEN, repr(error)) from None
        return []

    def _default(self) -> str:
        if not self._default_url:
            # Only uv knows: its default, or what its own configuration says.
            command = [self._uv, *_ASK_DEFAULT, "--python", sys.executable, "-"]
            try:
                said = subprocess.run(  # noqa: S603 - nothing in it comes from a user
                    command,
                    input=b"",
                    capture_output=True,
                    timeout=_UV_SECONDS,
                    check=False,
                    env={"PATH": self._network.search_path, "HOME": os.devnull},
                ).stdout.decode(errors="replace")
            except (OSError, subprocess.SubprocessError) as error:
                raise self._broken(Kind.INDEX, f"uv cannot be asked: {error}") from error
            match = _DEFAULT_INDEX.search(said)
            if match is None:
                raise self._broken(Kind.INDEX, f"uv does not say which index it asks: {said!r}")
            self._default_url = match[1]
        return self._default_url

    def _page(self, url: str) -> tuple[str, bytes] | None:
        """(media type, content); None where there is no such page."""
        if urlsplit(url).scheme not in ("http", "https"):
            return self._page_of_folder(url)
        try:
            with self._network.session() as session:
                for attempt in range(self._retries + 1):
                    try:
                        return self._asked(session, url)
                    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout, _Busy):
                        if attempt == self._retries:
                            raise
        except requests.exceptions.SSLError as error:
            what = "The package index cannot be reached: its certificate is not trusted."
            raise self._broken(Kind.INDEX_CERTIFICATE, error, what=what, advice=TELL) from None
        except requests.exceptions.Timeout as error:
            what = "The package index does not answer."
            raise self._broken(Kind.INDEX_SILENT, error, what=what) from None
        except (requests.exceptions.ConnectionError, OSError) as error:
            what = "The package index cannot be reached."
            raise self._broken(Kind.INDEX_UNREACHABLE, error, what=what) from None
        except (_Busy, requests.exceptions.RequestException) as error:
            raise self._broken(Kind.INDEX_BROKEN, error) from None
        raise AssertionError("unreachable")

    def _asked(self, session: requests.Session, url: str) -> tuple[str, bytes] | None:
        timeout = (min(10.0, self._silence_seconds), self._silence_seconds)
        with session.get(url, headers={"Accept": _ACCEPT}, stream=True, timeout=timeout) as response:
            if response.status_code in (404, 410):
                return None
            if response.status_code in (401, 403, 407):
                what = "The package index, or the proxy before it, refused this hub's credentials."
                reason = f"HTTP {response.status_code}"
                raise self._broken(Kind.INDEX_CREDENTIALS, reason, what=what, advice=TELL)
            if response.status_code != requests.codes.ok:
                raise _Busy(f"HTTP {response.status_code} {response.reason}")
            content = bytearray()
            for chunk in response.iter_content(_CHUNK_BYTES):
                content += chunk
                if len(content) > _MOST_BYTES:
                    raise _Busy("a page of absurd size")
            return response.headers.get("Content-Type", ""), bytes(content)

    def _page_of_folder(self, url: str) -> tuple[str, bytes] | None:
        path = Path(url2pathname(urlsplit(url).path)) / "index.html"
        try:
            return "text/html", path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._broken(Kind.INDEX_BROKEN, error) from error

    def _without_secrets(self, one: ListedSource) -> ListedSource:
        url = self._network.stored_url(one.file.url)
        if urlsplit(url).scheme not in ("http", "https") and not self._network.reads_folders:
            what = f"The package index names a file of this machine for {one.file.name}, which is not read."
            raise Failure(kind=Kind.INDEX_BROKEN, what=what, advice=TELL, package=one.file.name).error()
        file = LockedFile(**{**vars(one.file), "url": url})
        return ListedSource(file=file, requires_python=one.requires_python, yanked=one.yanked)

    def _broken(
        self,
        kind: Kind,
        reason: object,
        *,
        what: str = "The package index does not answer as it should.",
        advice: str = _LATER,
    ) -> PrebuiltError:
        return Failure(kind=kind, what=what, advice=advice).error(detail=self._network.redact(str(reason)))


class _Busy(Exception):
    """The index answered with what it may not answer tomorrow."""


def _page_url(index: SplitResult, name: str) -> str:
    """Its query stays, where some indexes want a token."""
    return urlunsplit(index._replace(path=f"{index.path.rstrip('/')}/{name}/", fragment=""))


def _from_json(content: bytes, page_url: str) -> Iterator[ListedSource]:
    for file in json.loads(content)["files"]:
        one = _source(
            str(file["filename"]),
            urljoin(page_url, str(file["url"])),
            sha256=str(file["hashes"].get("sha256", "")),
            size=file.get("size"),
            requires_python=str(file.get("requires-python") or ""),
            yanked=bool(file.get("yanked")),
        )
        if one is not None:
            yield one


def _from_html(content: bytes, page_url: str) -> Iterator[ListedSource]:
    parser = _Links()
    parser.feed(content.decode("utf-8", "replace"))
    base = urljoin(page_url, parser.base)
    for attributes in parser.links:
        url, fragment = urldefrag(urljoin(base, attributes["href"] or ""))
        filename = urlsplit(url).path.rpartition("/")[2]
        one = _source(
            filename,
            url,
            sha256=fragment.partition("sha256=")[2],
            size=None,
            requires_python=attributes.get("data-requires-python") or "",
            yanked="data-yanked" in attributes,
        )
        if one is not None:
            yield one


class _Links(HTMLParser):
    """The links of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.base = ""
        self.links: list[Mapping[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes)
        elif tag == "base" and not self.base:
            self.base = attributes.get("href") or ""


def _source(
    filename: str, url: str, *, sha256: str, size: Any, requires_python: str, yanked: bool
) -> ListedSource | None:
    """None for what is no source distribution, or has no hash."""
    try:
        # Names that stand for themselves: the tool that parses them knows the two endings of today only.
        name, version = parse_sdist_filename(_OLD_ARCHIVE.sub(".tar.gz", filename))
    except (InvalidSdistFilename, InvalidVersion):
        return None
    if not _SHA256.fullmatch(sha256) or not SDIST_FILENAME.fullmatch(filename):
        return None
    file = LockedFile(
        name=name,
        version=str(Version(str(version))),
        filename=filename,
        url=url,
        sha256=sha256.lower(),
        size_bytes=size if isinstance(size, int) and size >= 0 else None,
    )
    return ListedSource(file=file, requires_python=requires_python, yanked=yanked)
