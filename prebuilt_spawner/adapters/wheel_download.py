"""Downloading one wheel, in a thread: verified against its lock before it gets its name."""

from __future__ import annotations

import hashlib
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests

from ..build.failure import TELL, Failure, Kind, disk_failure
from ..environment.lock import LockedFile
from ..errors import PrebuiltError
from ..image.whole_file import appearing_whole
from .network import NetworkSettings

_CHUNK_BYTES = 256 * 1024
_FIRST_PAUSE_SECONDS = 0.5
_LATER = "Try again later, or tell the administrator of this hub."


class Stopped(Exception):  # not an error of ours: nobody but the one who stopped it sees it
    """The download was stopped from outside."""


class _TryAgain(Exception):
    """Failed in a way that may pass.

    Args:
        kind: What to call it if it does not.
        reason: For the log.
    """

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Download:
    """One wheel on its way to one file.

    Args:
        wheel: What to get.
        target: Where to put it; its folder exists.
        network: How.
        silence_seconds: How long the server may send nothing.
        retries: How often to try again after what may pass.

    Attributes:
        received_bytes: What has arrived in the present attempt; read it from any thread.
    """

    def __init__(
        self, wheel: LockedFile, target: Path, network: NetworkSettings, *, silence_seconds: float, retries: int
    ) -> None:
        self.received_bytes = 0
        self._wheel = wheel
        self._target = target
        self._network = network
        self._silence_seconds = silence_seconds
        self._retries = retries
        self._stopped = threading.Event()
        self._response: requests.Response | None = None

    def stop(self) -> None:
        """Make `run` end soon; from any thread."""
        self._stopped.set()
        response = self._response
        if response is not None:
            # Wakes a thread that waits for the server. Absent in older urllib3, and there is nothing to do where the
            # connection has just ended.
            with suppress(AttributeError, OSError, ValueError, RuntimeError):
                response.raw.shutdown()

    def run(self, session: requests.Session) -> None:
        """Get it. Whatever fails, no file is left behind.

        Raises:
            IndexUnavailable: It cannot be had, or is not what was locked.
            StorageFailure: It cannot be written.
            Stopped: `stop` was called.
        """
        try:
            with appearing_whole(self._target) as stream:
                for attempt in range(self._retries + 1):
                    try:
                        self._attempt(session, stream)
                        return
                    except _TryAgain as failure:
                        if attempt == self._retries:
                            raise self._given_up(failure) from None
                    if self._stopped.wait(_FIRST_PAUSE_SECONDS * 2**attempt):
                        raise Stopped
        except OSError as error:
            raise disk_failure(error).error(detail=f"{self._target}: {error}") from error

    @property
    def _named(self) -> str:
        return f"{self._wheel.name} {self._wheel.version}"

    def _attempt(self, session: requests.Session, stream: BinaryIO) -> None:
        stream.seek(0)
        stream.truncate()
        self.received_bytes = 0
        digest = hashlib.sha256()
        local = urlsplit(self._wheel.url).scheme == "file"
        for chunk in self._from_folder() if local else self._from_server(session):
            if self._stopped.is_set():
                raise Stopped
            digest.update(chunk)
            stream.write(chunk)
            self.received_bytes += len(chunk)
            if self._wheel.size_bytes is not None and self.received_bytes > self._wheel.size_bytes:
                raise self._mismatch(f"more than the {self._wheel.size_bytes} bytes that were locked")
        if digest.hexdigest() != self._wheel.sha256:
            raise self._mismatch(f"SHA-256 {digest.hexdigest()}, {self.received_bytes} bytes")

    def _from_folder(self) -> Iterator[bytes]:
        """A `file://` URL: the index is a folder."""
        path = Path(url2pathname(urlsplit(self._wheel.url).path))
        try:
            # Whatever a listing names, a pipe or a device is not opened.
            if not stat.S_ISREG(path.stat().st_mode):
                raise FileNotFoundError(f"{path} is not a file")
            with path.open("rb") as source:
                while chunk := source.read(_CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise self._gone(error) from error

    def _from_server(self, session: requests.Session) -> Iterator[bytes]:
        """The bytes that the server sends.

        Errors of the network are `OSError`s for requests, too: they are told from those of the disk here.
        """
        try:
            with session.get(
                self._network.request_url(self._wheel.url),
                stream=True,
                timeout=(min(10.0, self._silence_seconds), self._silence_seconds),
                # A wheel is compressed; a server that packs it once more would change its bytes.
                headers={"Accept-Encoding": "identity"},
            ) as response:
                self._response = response
                # `stop` says so first and then looks for a response; so one of the two notices.
                if self._stopped.is_set():
                    raise Stopped
                self._check_status(response)
                yield from response.iter_content(_CHUNK_BYTES)
        # What requests raises may hold the whole address, its query too, and who logs an error with its causes would
        # write it down: it ends here, `from None`, and its text goes on without secrets.
        except requests.exceptions.SSLError as error:
            self._raise_if_stopped(error)
            what = "The package index cannot be reached: its certificate is not trusted."
            raise self._unavailable(Kind.INDEX_CERTIFICATE, what, TELL, error) from None
        except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL) as error:
            what = f"The address of {self._named} cannot be used."
            raise self._unavailable(Kind.INDEX_BROKEN, what, TELL, error) from None
        except requests.exceptions.RequestException as error:
            self._raise_if_stopped(error)
            raise _TryAgain(_kind_of(error), self._network.redact(str(error))) from None
        except OSError as error:  # a certificate file that is not there
            what = "The package index cannot be reached."
            raise self._unavailable(Kind.INDEX_UNREACHABLE, what, TELL, error) from error
        finally:
            self._response = None

    def _check_status(self, response: requests.Response) -> None:
        status = response.status_code
        if status == requests.codes.ok:
            return
        said = f"HTTP {status} {response.reason}"
        if status in (401, 403, 407):
            what = "The package index, or the proxy before it, refused this hub's credentials."
            raise self._unavailable(Kind.INDEX_CREDENTIALS, what, TELL, said)
        if status in (404, 410):
            raise self._gone(said)
        if status in (408, 425, 429) or status >= 500:
            raise _TryAgain(Kind.INDEX_BROKEN, said)
        what = f"The package index does not deliver {self._named}."
        raise self._unavailable(Kind.INDEX_BROKEN, what, TELL, said)

    def _raise_if_stopped(self, error: Exception) -> None:
        if self._stopped.is_set():
            raise Stopped from None

    def _given_up(self, failure: _TryAgain) -> PrebuiltError:
        what = {
            Kind.INDEX_SILENT: f"The package index stopped sending {self._named}.",
            Kind.INDEX_UNREACHABLE: f"The package index cannot be reached for {self._named}.",
        }.get(failure.kind, f"The package index does not deliver {self._named}.")
        return self._unavailable(failure.kind, what, _LATER, failure)

    def _gone(self, reason: object) -> PrebuiltError:
        what = f"The package index does not serve {self._named} any more."
        advice = "Ask for newer versions, or tell the administrator of this hub."
        return self._unavailable(Kind.FILE_MISSING, what, advice, reason)

    def _mismatch(self, reason: str) -> PrebuiltError:
        return self._unavailable(
            Kind.HASH_MISMATCH,
            f"The package index served another file for {self._named} than the one that was locked.",
            TELL,
            f"{reason}; locked: SHA-256 {self._wheel.sha256}, {self._wheel.size_bytes} bytes",
        )

    def _unavailable(self, kind: Kind, what: str, advice: str, reason: object) -> PrebuiltError:
        failure = Failure(kind=kind, what=what, advice=advice, package=self._wheel.name)
        return failure.error(detail=self._network.redact(f"{self._wheel.url}: {reason}"))


def _kind_of(error: requests.exceptions.RequestException) -> Kind:
    # A pause within the body is a ConnectionError for requests.
    if isinstance(error, requests.exceptions.ReadTimeout) or "Read timed out" in str(error):
        return Kind.INDEX_SILENT
    if isinstance(error, requests.exceptions.ProxyError) and "407" in str(error):
        return Kind.INDEX_CREDENTIALS
    return Kind.INDEX_UNREACHABLE if isinstance(error, requests.exceptions.ConnectionError) else Kind.INDEX_BROKEN
