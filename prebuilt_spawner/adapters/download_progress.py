"""How far some downloads are, and whether they are too much."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..build.events import BuildEvent, Phase
from ..environment.lock import LockedFile
from ..environment.sizes import size_in_words
from ..errors import PolicyRefusal
from .wheel_download import Download


class DownloadProgress:
    """How many bytes of some wheels have arrived, whoever asked for them first."""

    def __init__(self, wheels: Sequence[LockedFile], under_way: Callable[[LockedFile], Download | None]) -> None:
        self._under_way = under_way
        self.received = dict.fromkeys(wheels, 0)
        sizes = [wheel.size_bytes for wheel in wheels]
        self._total_bytes = 0 if None in sizes else sum(size or 0 for size in sizes)
        names = ", ".join(wheel.name for wheel in wheels[:3]) + (", …" if len(wheels) > 3 else "")
        self._message = f"Downloading {names}"

    def received_bytes(self) -> int:
        """Of all; never less than before, though a download that is tried again starts anew."""
        for wheel, before in self.received.items():
            download = self._under_way(wheel)
            if download is not None:
                self.received[wheel] = max(before, download.received_bytes)
        return sum(self.received.values())

    def event(self) -> BuildEvent:
        """How far it is now."""
        return BuildEvent(
            phase=Phase.DOWNLOADING, message=self._message, done=self.received_bytes(), total=self._total_bytes
        )

    def last_event(self) -> BuildEvent:
        """All have arrived."""
        done = self._total_bytes or self.received_bytes()
        return BuildEvent(phase=Phase.DOWNLOADING, message=self._message, done=done, total=done)


def refuse_unsized(received_bytes: Mapping[LockedFile, int], max_bytes: int | None) -> None:
    unsized = {wheel: received for wheel, received in received_bytes.items() if wheel.size_bytes is None}
    if max_bytes is not None and sum(unsized.values()) > max_bytes:
        largest = max(unsized, key=lambda wheel: unsized[wheel])
        raise PolicyRefusal(
            f"These packages have more than the {size_in_words(max_bytes)} that are allowed. The largest whose size "
            f"was not known is {largest.name} {largest.version}. Leave it out, or ask the administrator.",
            about="packages",
            package=largest.name,
            entry=largest.name,
        )
