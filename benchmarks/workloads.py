"""What is asked for in the measurements."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

W1 = ("pandas", "scikit-learn", "matplotlib", "seaborn", "requests", "sqlalchemy", "tqdm", "pyarrow")
"""The usual list of a class in data analysis: 18 wheels and 505 MB on a JupyterLab base."""

ONE_SMALL = ("tabulate",)
SMALL = ("humanize", "toolz", "more-itertools", "cachetools", "sortedcontainers")
"""Packages of one small wheel each that nothing in W1 needs: another one in each repetition."""
LEFT_OUT = ("tqdm", "seaborn", "sqlalchemy", "scikit-learn", "pyarrow")
"""Packages of W1 that no other of it needs: another one is left out in each repetition."""
OVERLAPPING = tuple(package for package in W1 if package != "tqdm")
"""To which each repetition adds a small one: of its wheels nine in ten are W1's, and neither holds the other."""
CANNOT_BE_RESOLVED = ("pandas==2.2.3", "numpy==1.21.0", "scikit-learn")
HEAVY = ("torch",)

DIFFERENT = (
    ("pandas", "matplotlib"),
    ("scikit-learn",),
    ("seaborn",),
    ("sqlalchemy", "pandas"),
    ("scipy", "tqdm"),
    ("networkx", "matplotlib"),
    ("sympy",),
    ("openpyxl", "pandas", "tqdm"),
)
"""Eight users who want different lists at once."""

POPULAR = (
    "numpy", "pandas", "matplotlib", "scikit-learn", "scipy", "seaborn", "requests", "sqlalchemy", "tqdm", "pillow",
)  # fmt: skip
TAIL = (
    "networkx", "sympy", "openpyxl", "tabulate", "humanize", "toolz", "more-itertools", "cachetools",
    "sortedcontainers", "plotly", "statsmodels", "lxml", "nltk", "altair", "bokeh", "duckdb", "shapely", "xarray",
    "polars", "numba",
)  # fmt: skip
CLASS_SEED = 20261125
CLASS_SIZE = 40
CLASS_FILE = Path(__file__).with_name("class_requests.json")


@dataclass(frozen=True, kw_only=True)
class ClassRequest:
    """What one of a class asks for."""

    user: str
    packages: tuple[str, ...]


def draw_class(seed: int = CLASS_SEED, size: int = CLASS_SIZE) -> tuple[ClassRequest, ...]:
    """Requests as a class makes them: what is popular often, and now and then something that hardly anybody wants.

    One in three asks for what somebody before has asked for, in another order.
    """
    draw = random.Random(seed)
    weights = [1 / (place + 1) for place in range(len(POPULAR))]
    made: list[ClassRequest] = []
    for number in range(size):
        if made and draw.random() < 1 / 3:
            packages = list(draw.choice(made).packages)
        else:
            packages = sorted({*draw.choices(POPULAR, weights, k=draw.randint(2, 5))})
            packages += draw.sample(TAIL, draw.choice((0, 0, 1, 1, 2)))
        draw.shuffle(packages)
        made.append(ClassRequest(user=f"student{number:02}", packages=tuple(packages)))
    return tuple(made)


def class_requests() -> tuple[ClassRequest, ...]:
    """The class that is measured, as the repository has it."""
    listed = json.loads(CLASS_FILE.read_text())
    return tuple(ClassRequest(user=each["user"], packages=tuple(each["packages"])) for each in listed)


def patched_base_lists(count: int) -> tuple[tuple[str, ...], ...]:
    """Different lists that stand on one base, most of them of a class's packages."""
    draw = random.Random(CLASS_SEED)
    found: set[tuple[str, ...]] = set()
    while len(found) < count:
        found.add(tuple(sorted({*draw.choices(POPULAR, k=2), *draw.sample(TAIL, 1)})))
    return tuple(sorted(found))
