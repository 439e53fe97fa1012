"""Tar headers that other programs read back."""

import io
import subprocess
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from prebuilt_spawner.image.tar import BLOCK_BYTES, END_OF_ARCHIVE, padding, tar_header
from prebuilt_spawner.image.wheel import path_flaw

paths = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=400).filter(
    lambda path: path_flaw(path) is None
)


@given(path=paths, content=st.binary(max_size=1200), mode=st.sampled_from([0o644, 0o755, 0o2775]))
def test_the_standard_library_reads_back_what_was_written(path: str, content: bytes, mode: int) -> None:
    """Whatever the path is, its entry has that path, mode and content, and the next entry begins where it should."""
    header = tar_header(path, size_bytes=len(content), mode=mode, kind="file")
    assert len(header) % BLOCK_BYTES == 0
    folder = tar_header(path, mode=mode, kind="folder", uid=1000, gid=100)
    with tarfile.open(
        fileobj=io.BytesIO(header + content + padding(len(content)) + folder + END_OF_ARCHIVE)
    ) as archive:
        first, second = archive.getmembers()
        stream = archive.extractfile(first)
        assert stream is not None
        assert stream.read() == content
    assert (first.name, first.mode, first.type, first.uid, first.gid) == (path, mode, tarfile.REGTYPE, 0, 0)
    assert (first.mtime, first.uname, first.gname) == (315532800, "", "")
    assert (second.name, second.mode, second.type, second.uid, second.gid) == (path, mode, tarfile.DIRTYPE, 1000, 100)


def test_lengths_around_the_limits_of_ustar() -> None:
    """Paths of every length, with the slash in every place, are read back; short ones without an extended header."""
    for before in (1, 50, 98, 99, 100, 101, 154, 155, 156, 200):
        for after in (1, 97, 98, 99, 100, 101, 150):
            path = f"{'a' * before}/{'b' * after}"
            for kind, slash in (("file", 0), ("folder", 1)):
                header = tar_header(path, mode=0o644, kind=kind)  # type: ignore[arg-type]
                with tarfile.open(fileobj=io.BytesIO(header + END_OF_ARCHIVE)) as archive:
                    assert archive.getnames() == [path]
                fits = len(path) + slash <= 100 or (before <= 155 and after + slash <= 100)
                assert (len(header) == BLOCK_BYTES) == fits


def test_numbers_that_octal_fields_cannot_hold() -> None:
    """Sizes from 8 GiB and owners from 2 million on are read back."""
    header = tar_header("big", size_bytes=8 * 1024**3, mode=0o644, kind="file", uid=3_000_000, gid=4_000_000)
    with tarfile.open(fileobj=io.BytesIO(header + END_OF_ARCHIVE), mode="r|") as archive:
        entry = archive.next()
    assert entry is not None
    assert (entry.name, entry.size, entry.uid, entry.gid) == ("big", 8 * 1024**3, 3_000_000, 4_000_000)


def test_gnu_tar_reads_it() -> None:
    """GNU tar lists long and non-ASCII names as they are."""
    names = ["plain", "a" * 90 + "/" + "b" * 99, "ä" * 80 + "/☃", "c" * 200]
    archive = b"".join(tar_header(name, mode=0o644, kind="file") for name in names) + END_OF_ARCHIVE
    listed = subprocess.run(
        ["tar", "--list", "--quoting-style=literal", "--show-stored-names"],
        input=archive,
        capture_output=True,
        check=True,
    )
    assert listed.stdout.decode().splitlines() == names
    assert listed.stderr == b""
