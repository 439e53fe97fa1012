"""What uv says when it fails, as errors of ours. Pure.

uv explains a conflict as a chain of sentences ("Because A depends on B and you require C, we can conclude that …").
From it the sentences for the user are made: which package it is, and what to try. The whole chain goes into the
error's detail. The words differ between uv's versions in line breaks and ornaments only, so those go first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..errors import IndexUnavailable, PrebuiltError, StorageFailure, UnresolvableRequest

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\[[^\]\s]*\])?"
_SPEC = r"(?:(?:[<>=!~]=?|===)[^\s,]+(?:,(?:[<>=!~]=?|===)[^\s,]+)*)"
_PACKAGE = rf"(?:all versions of )?{_NAME}{_SPEC}?"

_ORNAMENT = re.compile("^\\s*(?:\u00d7|cause:)|[\u2500-\u257f\u25b6]", re.MULTILINE)
# `numpy{python_full_version < '3.12'}>=1.23`: which of its forks uv speaks of.
_FORK = re.compile(r"\{[^{}]*\}")
_ABSENT = re.compile(rf"(?P<name>{_NAME}) was not found in the (?:package registry|provided package locations|cache)")
_NEEDS_ONE_OF = re.compile(rf"(?P<who>{_PACKAGE}) depends? on one of: (?P<items>(?:{_NAME}{_SPEC} )+)")
_NEEDS = re.compile(rf"(?P<who>{_PACKAGE}) depends? on (?P<what>{_NAME})(?P<spec>{_SPEC}?)(?:,?(?= |$)|,? we)")
_REQUIRED = re.compile(
    rf"(?<!conclude that )you require (?P<one>{_NAME}{_SPEC}?)(?: and (?P<other>{_NAME}{_SPEC}?)(?=[,.]))?"
)
_BARE_PIN = re.compile(rf"\band (?P<pin>{_NAME}==[^\s,]+), we can conclude")
_NO_VERSION = re.compile(rf"there (?:is|are) no versions? of (?P<name>{_NAME})(?P<spec>{_SPEC}?)")
_ONLY = re.compile(
    rf"only (?P<name>{_NAME})(?P<spec>{_SPEC}) (?:is|are) available and you require (?P<wanted>{_PACKAGE})"
)
_ONLY_FOLLOWING = re.compile(
    rf"only the following versions of (?P<name>{_NAME}) are available: .*? and you require (?P<wanted>{_PACKAGE})"
)
_SOURCE_ONLY = re.compile(rf"(?P<name>{_NAME})(?P<spec>{_SPEC}?) ha(?:s|ve) no (?:usable )?wheels(?! with)")
_NO_FITTING_WHEEL = re.compile(
    rf"(?P<name>{_NAME})(?P<spec>{_SPEC}?) ha(?:s|ve) no wheels with a matching (?P<tag>[A-Za-z ]+) tag"
)
_PYTHON = re.compile(rf"(?P<name>{_NAME})(?P<spec>{_SPEC}?) depends on Python(?P<python>{_SPEC})")
_YANKED = re.compile(rf"(?P<name>{_NAME})==(?P<version>[^\s,]+) was yanked")
_URL_DEPENDENCY = re.compile(rf"for package `(?P<name>{_NAME})==.*was included as a URL dependency")
_LOCKED_OUT = re.compile(
    r"lack of valid authentication credentials|returned a (?:401|403)|\((?:401 Unauthorized|403 Forbidden|407 Proxy)"
    r"|proxy authorization required"
)
_NOT_FETCHED = re.compile(
    r"Failed to fetch|error sending request|Request failed after|tunnel error|timed out|Failed to download|HTTP status"
    r"|dns error|invalid peer certificate|error decoding response body|Failed to read metadata",
    re.IGNORECASE,
)
_DISK = re.compile(r"os error 28\b|No space left on device|os error (?:13|30)\b|Read-only file system", re.IGNORECASE)
_CERTIFICATE = re.compile(r"invalid peer certificate|certificate verify|UnknownIssuer|tls handshake", re.IGNORECASE)

_MAX_CHARACTERS = 100_000
_MAX_WORD_CHARACTERS = 150
_TELL = "Please tell the administrator of this hub."


@dataclass(frozen=True, kw_only=True)
class Question:
    """What uv was asked, as far as messages need it.

    Attributes:
        requirements: What the user asked for, canonical, by normalised name.
        protected: Version by normalised name of what the image's server is made of.
        installed: Version by normalised name of everything that the base has.
        python_version, machine: The base's.
    """

    requirements: Mapping[str, str]
    protected: Mapping[str, str]
    installed: Mapping[str, str]
    python_version: str
    machine: str


def explain(output: str, question: Question) -> PrebuiltError:
    """The error that uv's output stands for.

    Args:
        output: What uv wrote to its standard error, without credentials.
        question: What it was asked.

    Returns:
        `UnresolvableRequest`, `IndexUnavailable` or `StorageFailure`, with the output as detail.
    """
    text = _plain(output)
    error = _surroundings(text, output)
    if error is not None:
        return error
    if "No solution found" not in text and not _URL_DEPENDENCY.search(text):
        return IndexUnavailable(f"The packages could not be looked up. {_TELL}", detail=output)
    derivation = _Derivation(text.partition("hint:")[0], question)
    return UnresolvableRequest(derivation.message(), detail=output)


def _plain(output: str) -> str:
    """On one line, without the marks that a terminal gets, and short enough for the patterns: names and versions in it
    come from strangers."""
    words = _FORK.sub("", _ORNAMENT.sub(" ", output[:_MAX_CHARACTERS])).split()
    return " ".join(word[:_MAX_WORD_CHARACTERS] for word in words)


def _surroundings(text: str, output: str) -> PrebuiltError | None:
    if _DISK.search(text):
        return StorageFailure(f"The hub cannot write to its disk. {_TELL}", detail=output)
    if _LOCKED_OUT.search(text):
        return IndexUnavailable(
            f"The package index, or the proxy before it, refused this hub's credentials. {_TELL}",
            detail=f"Check the credentials in index_url, extra_index_urls, netrc and the proxy's URL.\n{output}",
        )
    if not _NOT_FETCHED.search(text):
        return None
    if _CERTIFICATE.search(text):
        return IndexUnavailable(
            f"The package index cannot be reached: its certificate is not trusted. {_TELL}",
            detail="Install the certificate authority in the hub's system store, or name its file in SSL_CERT_FILE.\n"
            + output,
        )
    return IndexUnavailable(
        f"The package index cannot be reached or does not answer as it should. Try again later. {_TELL}",
        detail=f"Check index_url and extra_index_urls, HTTP_PROXY, HTTPS_PROXY and NO_PROXY.\n{output}",
    )


@dataclass(frozen=True, kw_only=True)
class _Demand:
    """Who wants which versions of a package; `who` is "" for the request itself."""

    who: str
    what: str
    spec: str


class _Derivation:
    """uv's chain of reasons, asked one question after the other: the plainest answer first."""

    def __init__(self, text: str, question: Question) -> None:
        self._text = text
        self._question = question
        self._demands = tuple(self._find_demands())

    def message(self) -> str:
        candidates = (
            self._absent(),
            self._url_dependency(),
            self._protected(),
            self._wrong_python(),
            self._conflict(),
            self._no_fitting_wheel(),
            self._source_only(),
            self._no_version(),
            self._yanked(),
        )
        return next(filter(None, candidates), self._anything())

    def _find_demands(self) -> Iterator[_Demand]:
        for match in _NEEDS.finditer(self._text):
            if match["what"] not in ("Python", "one"):  # "one of: …" comes below
                yield _Demand(who=_name(match["who"]), what=_name(match["what"]), spec=match["spec"])
        for match in _NEEDS_ONE_OF.finditer(self._text):
            items = match["items"].split()
            yield _Demand(who=_name(match["who"]), what=_name(items[0]), spec=" or ".join(map(_spec, items)))
        for match in _REQUIRED.finditer(self._text):
            for item in filter(None, (match["one"], match["other"])):
                yield _Demand(who="", what=_name(item), spec=_spec(item))
        for match in _BARE_PIN.finditer(self._text):
            yield _Demand(who="", what=_name(match["pin"]), spec=_spec(match["pin"]))

    def _absent(self) -> str:
        absent = [_name(match["name"]) for match in _ABSENT.finditer(self._text)]
        for name in absent:
            if name in self._question.requirements:
                return f"{name} is not in the package index. Check the spelling."
        for name in absent:
            return f"{name} is not in the package index, but {self._needing(name)}."
        return ""

    def _url_dependency(self) -> str:
        match = _URL_DEPENDENCY.search(self._text)
        if match is None:
            return ""
        return (
            f"{_name(match['name'])} depends on a file outside the package index, which is not installed. "
            "Try another version of it."
        )

    def _protected(self) -> str:
        """The request against the image's own server."""
        for name, version in self._question.protected.items():
            pin = f"=={version}"
            own = [demand for demand in self._demands if demand.what == name and demand.who == ""]
            if not re.search(rf"(?<![\w.-]){re.escape(name)}{re.escape(pin)}(?![\w.+])", self._text):
                continue
            server = f"the server of this image needs {name} {version}"
            if any(demand.spec not in ("", pin) for demand in own):
                asked = self._question.requirements.get(name, name)
                return f"{asked} cannot be installed: {server}. Leave it out of the list, or choose another image."
            against = next(
                (demand for demand in self._demands if demand.what == name and demand.who and demand.spec != pin), None
            )
            if against is not None:
                return (
                    f"{self._asked_or(against.who)} cannot be installed: {_needs(against)}, but {server}. "
                    f"Try another version of {self._asked_or(against.who)}, or another image."
                )
            both = self._pair()
            if both is not None:
                reason = " and ".join(map(_needs, both))
                return f"These cannot be installed beside the server of this image ({name} {version}): {reason}."
            return f"{self._asked_list()} cannot be installed in this image: {server}."
        return ""

    def _conflict(self) -> str:
        pair = self._pair()
        if pair is None:
            return ""
        one, other = pair
        message = f"These cannot be installed together: {_needs(one)}, and {_needs(other)}."
        for demand in pair:
            installed = self._question.installed.get(demand.who)
            if installed is not None and demand.who not in self._question.requirements:
                message += f" The image comes with {demand.who} {installed}."
        return f"{message} Ask for other versions, or leave one out."

    def _pair(self) -> tuple[_Demand, _Demand] | None:
        """Two demands for versions of one package, from different sides."""
        for index, one in enumerate(self._demands):
            for other in self._demands[index + 1 :]:
                if one.what != other.what or not one.spec or not other.spec or one.spec == other.spec:
                    continue
                if one.who != other.who or one.who == "":
                    # What the user asks for reads better as the second half of the sentence.
                    return (other, one) if one.who == "" else (one, other)
        return None

    def _wrong_python(self) -> str:
        for match in _PYTHON.finditer(self._text):
            name = _name(match["name"])
            return (
                f"{self._version(name, match['spec'])} needs Python {match['python']}, "
                f"and this image has Python {self._question.python_version}{self._because_of(name)}. "
                f"Try an older version of {self._asked_or(name)}, or another image."
            )
        return ""

    def _no_fitting_wheel(self) -> str:
        for match in _NO_FITTING_WHEEL.finditer(self._text):
            name = _name(match["name"])
            python = ".".join(self._question.python_version.split(".")[:2])
            where = f"Linux on {self._question.machine}" if match["tag"].endswith("platform") else f"Python {python}"
            return (
                f"{self._version(name, match['spec'])} has no wheel for {where}{self._because_of(name)}. "
                f"Try another version of {self._asked_or(name)}, or another image."
            )
        return ""

    def _source_only(self) -> str:
        for match in _SOURCE_ONLY.finditer(self._text):
            name = _name(match["name"])
            return (
                f"{self._version(name, match['spec'])} has no wheel, only source, which this hub does not "
                f"build{self._because_of(name)}. Try a version with a wheel, or another package."
            )
        return ""

    def _no_version(self) -> str:
        following = _ONLY_FOLLOWING.search(self._text)
        if following is not None:
            return f"No version of {_name(following['name'])} is {_spec(following['wanted'])}. Try a wider range."
        only = _ONLY.search(self._text)
        if only is not None:
            return self._out_of_range(_name(only["name"]), only["spec"], _spec(only["wanted"]))
        match = _NO_VERSION.search(self._text)
        if match is None:
            return ""
        name = _name(match["name"])
        if match["spec"].startswith("=="):
            return f"{name} has no version {match['spec'].lstrip('=')}{self._because_of(name)}. Try another version."
        return f"No version of {name} is {match['spec'] or 'available'}{self._because_of(name)}. Try another range."

    @staticmethod
    def _out_of_range(name: str, available: str, wanted: str) -> str:
        bound = available.lstrip("<>=")
        if available.startswith("<="):
            hint = f"the newest is {bound}"
        elif available.startswith(">="):
            hint = f"the oldest is {bound}"
        else:
            hint = f"there is only {bound}"
        return f"No version of {name} is {wanted}: {hint}." if wanted else f"No version of {name} can be used: {hint}."

    def _yanked(self) -> str:
        for match in _YANKED.finditer(self._text):
            name = _name(match["name"])
            withdrawn = f"{name} {match['version']} was withdrawn by its authors"
            return f"{withdrawn}{self._because_of(name)}. Try another version."
        return ""

    def _anything(self) -> str:
        return f"{self._asked_list()} cannot be installed in this image. Ask for other versions, or leave some out."

    def _asked_list(self) -> str:
        asked = list(self._question.requirements.values())
        named = [
            requirement
            for name, requirement in self._question.requirements.items()
            if re.search(rf"\b{re.escape(name)}\b", self._text)
        ]
        shown = (named or asked)[:5]
        more = ", …" if len(named or asked) > len(shown) else ""
        return ", ".join(shown) + more

    def _version(self, name: str, spec: str) -> str:
        """`name 1.0` where the request is for that version, else what was asked: uv names whichever it tried last."""
        wanted = self._question.requirements.get(name, name).partition(";")[0]
        return f"{name} {spec.removeprefix('==')}" if spec.startswith("==") and "==" in wanted else wanted

    def _asked_or(self, name: str) -> str:
        """What the user has to change: the asked package that leads to this one where we can tell."""
        seen = set()
        while name not in self._question.requirements and name not in seen:
            seen.add(name)
            name = next((demand.who for demand in self._demands if demand.what == name and demand.who), name)
        return name

    def _because_of(self, name: str) -> str:
        if name in self._question.requirements:
            return ""
        needing = self._needing(name)
        return f" ({needing})"

    def _needing(self, name: str) -> str:
        who = next((demand.who for demand in self._demands if demand.what == name and demand.who), "")
        return f"{who} needs it" if who else "a package that you ask for needs it"


def _name(item: str) -> str:
    """The normalised name that an item of uv's begins with (PEP 503)."""
    match = re.match(rf"(?:all versions of )?(?P<name>{_NAME})", item)
    bare = match["name"].partition("[")[0] if match else item
    return re.sub(r"[-_.]+", "-", bare).lower()


def _spec(item: str) -> str:
    match = re.search(rf"{_SPEC}$", item)
    return match[0] if match else ""


def _needs(demand: _Demand) -> str:
    who = f"{demand.who} needs" if demand.who else "you ask for"
    return f"{who} {demand.what}{demand.spec}"
