"""What a package name that no index knows was meant to be. Pure, with a list of names beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from importlib import resources

from packaging.utils import canonicalize_name

_MAX_CHARACTERS = 60
_SHORT_CHARACTERS = 4

MEANT: Mapping[str, str] = {
    "attr": "attrs",
    "azure-blob": "azure-storage-blob",
    "bio": "biopython",
    "bs4": "beautifulsoup4",
    "beautifulsoup": "beautifulsoup4",
    "crypto": "pycryptodome",
    "cv": "opencv-python",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "pymupdf",
    "git": "gitpython",
    "github": "pygithub",
    "igraph-python": "igraph",
    "imblearn": "imbalanced-learn",
    "jwt": "pyjwt",
    "magic": "python-magic",
    "matplotlib-pyplot": "matplotlib",
    "mpl-toolkits": "matplotlib",
    "mysqldb": "mysqlclient",
    "opencv": "opencv-python",
    "openssl": "pyopenssl",
    "osgeo": "gdal",
    "pil": "pillow",
    "pptx": "python-pptx",
    "psycopg2-bin": "psycopg2-binary",
    "pymc3": "pymc",
    "pytables": "tables",
    "pytorch": "torch",
    "pywt": "pywavelets",
    "scikit": "scikit-learn",
    "serial": "pyserial",
    "skbio": "scikit-bio",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "skopt": "scikit-optimize",
    "socks": "pysocks",
    "telegram": "python-telegram-bot",
    "tf": "tensorflow",
    "umap": "umap-learn",
    "usb": "pyusb",
    "win32api": "pywin32",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}
"""Name that is written in programs, or that stands on an index for something else or for nothing -> name to ask for."""


def meant_by(name: str) -> str:
    """The package that people mean when they ask for this name, which is another thing or nothing: `scikit-learn` for
    `sklearn`. "" for most names."""
    return MEANT.get(canonicalize_name(name), "")


def suggestion(name: str, seen: Collection[str] = ()) -> str:
    """The package that was probably meant by a name that does not exist.

    Args:
        name: As it was asked for.
        seen: Normalised names that exist: of a base, or of what was installed before.

    Returns:
        The normalised name nearest to it, of the often used and the seen ones; "" where none is near.
    """
    asked = canonicalize_name(name)
    meant = meant_by(asked)
    if meant:
        return meant
    # Of two letters, every other name is near. The work grows with the square of the length.
    if not 2 < len(asked) <= _MAX_CHARACTERS:
        return ""
    limit = 1 if len(asked) <= _SHORT_CHARACTERS else 2
    popular = popular_names()
    near = _near(asked, popular.union(seen), limit)
    # A name that somebody made up to be near to a known one is known only because somebody asked for it.
    return min(near, key=lambda found: (found[0], found[1] not in popular, found[1]), default=(0, ""))[1]


@cache
def popular_names() -> frozenset[str]:
    """Normalised names of packages that people ask for often. They serve to guess misspelt ones, and nothing else."""
    text = resources.files(__package__).joinpath("popular_names.txt").read_text("ascii")
    return frozenset(text.split())


def _near(asked: str, others: Iterable[str], limit: int) -> list[tuple[int, str]]:
    """(distance, name) of those within the limit, without the name itself."""
    found = []
    for other in others:
        if abs(len(other) - len(asked)) <= limit and other != asked:
            distance = edits(asked, other, limit=limit)
            if distance <= limit:
                found.append((distance, other))
    return found


def edits(one: str, other: str, *, limit: int) -> int:
    """How many letters have to be added, left out, changed or swapped with their neighbour to make one of the other;
    something above the limit where it is more than that (the optimal string alignment distance)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        earlier, before, row = before, row, [i]
        for j, there in enumerate(other, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != there))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == there:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
    return row[-1]
