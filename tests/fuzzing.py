"""How much is fuzzed, and with what.

`HYPOTHESIS_PROFILE=long` (`make fuzz`) tries 50,000 cases altogether; without it, a few hundred of each kind.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from .injections import ALL

LONG = os.environ.get("HYPOTHESIS_PROFILE", "") == "long"

Test = TypeVar("Test", bound=Callable[..., Any])


def fuzzed(*, usually: int, long: int) -> Callable[[Test], Test]:
    """So many cases. The same ones each time, but for the long run, which looks for new ones."""
    return settings(
        max_examples=long if LONG else usually,
        derandomize=not LONG,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


NAMES = ("six", "Six", "python-dateutil", "python_dateutil", "alpha", "beta", "gamma", "acme-one", "acme.two", "torch")

_PIECES = (
    *NAMES,
    *(
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        ",",
        ";",
        "\\\n",
        "#",
        "'",
        '"',
        "(",
        ")",
        "[",
        "]",
        "[a]",
        "[b,C]",
        "-",
        "_",
        ".",
    ),
    *("@", "https://", "/", "..", " and ", " or "),
    *("==", ">=", "<", "<=", "!=", "~=", "===", ">", "1", "1.0", "2.5rc1", "1!2", "1.0+x", "*", "1.*", "0", "v1"),
    *("pip install ", "uv add ", "%pip install ", "!", "$ ", "-U", "-q", "-r ", "--pre", "--index-url=", "&&"),
    *(
        '; python_version < "3.8"',
        "; os_name == 'posix'",
        "; extra == 'x'",
        " and ",
        " or ",
        " @ ",
        "https://",
        "/",
        "..",
    ),
)
"""What requirements, and almost requirements, are made of."""

TEXTS: st.SearchStrategy[str] = st.one_of(
    st.text(max_size=60),
    st.sampled_from(ALL),
    st.lists(st.sampled_from(_PIECES), max_size=12).map("".join),
    st.lists(st.one_of(st.sampled_from(ALL), st.sampled_from(NAMES)), min_size=1, max_size=4).map("\n".join),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(NAMES),
        st.sampled_from(["", " ", "\n", ";", ">=1", "=="]),
        st.text(max_size=20),
    ),
    st.builds("{}{}".format, st.sampled_from(ALL), st.text(max_size=10)),
)
"""Requirement text."""

REQUESTS: st.SearchStrategy[Any] = st.one_of(TEXTS, st.lists(TEXTS, max_size=5))
"""What stands in `packages` where it is of the right form."""

_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=True), st.text(max_size=20), st.sampled_from(ALL)
)
JSON: st.SearchStrategy[Any] = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)),
    max_leaves=12,
)
"""Anything that JSON can say."""

_OPTIONS = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "packages": st.one_of(REQUESTS, REQUESTS, JSON),
            "profile": st.one_of(st.sampled_from(["maths", "plain", "", "nope"]), TEXTS, JSON),
            "image": st.one_of(st.sampled_from(["Big", "", "example/base:1"]), TEXTS, JSON),
            "refresh": st.one_of(st.booleans(), JSON),
        },
    ),
    st.fixed_dictionaries({"packages": REQUESTS}),
    st.dictionaries(
        st.one_of(st.sampled_from(["packages", "cmd", "env", "user", "display_name"]), TEXTS), JSON, max_size=3
    ),
)

BODIES: st.SearchStrategy[bytes] = st.one_of(
    st.one_of(_OPTIONS, _OPTIONS.map(lambda options: {"user_options": options}), JSON).map(
        lambda value: json.dumps(value).encode()
    ),
    st.binary(max_size=40),
    TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")),
)
"""Bodies of REST requests."""


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


FORMS: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "packages": TEXTS,
            "profile": st.one_of(st.sampled_from(["maths", "plain"]), TEXTS),
            "image": st.one_of(st.just("Big"), TEXTS),
            "refresh": st.one_of(st.just("on"), TEXTS),
        },
    ),
    st.fixed_dictionaries({"packages": TEXTS}),
    st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=3),
).map(
    lambda fields: {
        key.encode("utf-8", "replace").decode(): value.encode("utf-8", "replace").decode()
        for key, value in fields.items()
    }
)
"""What browsers send."""
