"""What uv says when it fails, as errors of ours. Pure.

uv explains a conflict as a chain of sentences ("Because A depends on B and you require C, we can conclude that …").
From it the sentences for the user are made: which package it is, and what to try. The whole chain goes into the
error's detail. The words differ between uv's versions in line breaks and ornaments only, so those go first.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ..build.failure import SOURCE_ADVICE, TELL, Failure, Kind
from ..environment.names import meant_by, suggestion
from ..environment.parsing import parsed_requirement
from ..errors import PrebuiltError, UnresolvableRequest
from .uv_surroundings import surroundings_error

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
_SOURCES_MAY_HELP = frozenset(
    {Kind.SOURCE_ONLY, Kind.NO_FITTING_WHEEL, Kind.CONFLICT, Kind.NO_SUCH_VERSION, Kind.UNRESOLVABLE}
)
_MAX_CHARACTERS = 100_000
_MAX_WORD_CHARACTERS = 150


@dataclass(frozen=True, kw_only=True)
class Question:
    """What uv was asked, as far as messages need it.

    Attributes:
        requirements: What the user asked for, canonical, by normalised name.
        protected: Version by normalised name of what the image's server is made of.
        installed: Version by normalised name of everything that the base has.
        python_version, machine: The base's.
        seen: Normalised names of packages that exist, for guessing what a misspelt one meant.
    """

    requirements: Mapping[str, str]
    protected: Mapping[str, str]
    installed: Mapping[str, str]
    python_version: str
    machine: str
    seen: Collection[str] = ()


def explain(output: str, question: Question) -> PrebuiltError:
    """The error that uv's output stands for.

    Args:
        output: What uv wrote to its standard error, without credentials.
        question: What it was asked.

    Returns:
        `UnresolvableRequest`, `IndexUnavailable` or `StorageFailure`, with the output as detail.
    """
    text = _plain(output)
    error = surroundings_error(text, output)
    if error is not None:
        return error
    if "No solution found" not in text and not _URL_DEPENDENCY.search(text):
        return Failure(kind=Kind.INDEX, what="The packages could not be looked up.", advice=TELL).error(detail=output)
    derivation = _Derivation(text.partition("hint:")[0], question)
    failure = derivation.failure()
    found = failure.error(detail=output)
    if isinstance(found, UnresolvableRequest) and failure.kind in _SOURCES_MAY_HELP:
        found.sources = tuple(derivation.sources())
    return found


def _plain(output: str) -> str:
    """On one line, without the marks that a terminal gets, and short enough for the patterns: names and versions in it
    come from strangers."""
    words = _FORK.sub("", _ORNAMENT.sub(" ", output[:_MAX_CHARACTERS])).split()
    return " ".join(word[:_MAX_WORD_CHARACTERS] for word in words)


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

    def failure(self) -> Failure:
        candidates = (
            self._absent,
            self._url_dependency,
            self._protected,
            self._wrong_python,
            self._conflict,
            self._no_fitting_wheel,
            self._source_only,
            self._no_version,
            self._yanked,
        )
        return next((failure for candidate in candidates if (failure := candidate()) is not None), self._anything())

    def sources(self) -> Iterator[str]:
        """What has no fitting wheel, with the versions that are wanted of it."""
        matches = (*_SOURCE_ONLY.finditer(self._text), *_NO_FITTING_WHEEL.finditer(self._text))
        for name in dict.fromkeys(_name(match["name"]) for match in matches):
            asked = self._question.requirements.get(name, name)
            wanted = SpecifierSet(str(parsed_requirement(asked).specifier))
            for demand in self._demands:
                if demand.what == name and demand.who:
                    with suppress(InvalidSpecifier):  # "this or that"
                        wanted &= SpecifierSet(demand.spec)
            yield f"{name}{wanted}"

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

    def _absent(self) -> Failure | None:
        absent = [_name(match["name"]) for match in _ABSENT.finditer(self._text)]
        for name in absent:
            if name in self._question.requirements:
                near = suggestion(name, self._question.seen)
                return Failure(
                    kind=Kind.NO_SUCH_PACKAGE,
                    what=f"{name} is not in the package index.",
                    advice=f"Did you mean {near}?" if near else "Check the spelling.",
                    package=name,
                )
        for name in absent:
            return Failure(
                kind=Kind.NO_SUCH_PACKAGE,
                what=f"{name} is not in the package index, but {self._needing(name)}.",
                advice=f"Leave {self._asked_or(name)} out, or try another version of it.",
                package=name,
            )
        return None

    def _url_dependency(self) -> Failure | None:
        match = _URL_DEPENDENCY.search(self._text)
        if match is None:
            return None
        name = _name(match["name"])
        return Failure(
            kind=Kind.OUTSIDE_INDEX,
            what=f"{name} depends on a file outside the package index, which is not installed.",
            advice="Try another version of it.",
            package=name,
        )

    def _protected(self) -> Failure | None:
        """The request against the image's own server."""
        for name, version in self._question.protected.items():
            pin = f"=={version}"
            own = [demand for demand in self._demands if demand.what == name and demand.who == ""]
            if not re.search(rf"(?<![\w.-]){re.escape(name)}{re.escape(pin)}(?![\w.+])", self._text):
                continue
            server = f"the server of this image needs {name} {version}"
            package, advice = name, "Ask for other versions, or leave one out."
            against = next(
                (demand for demand in self._demands if demand.what == name and demand.who and demand.spec != pin), None
            )
            both = self._pair()
            if any(demand.spec not in ("", pin) for demand in own):
                what = f"{self._question.requirements.get(name, name)} cannot be installed: {server}."
                advice = "Leave it out of the list, or choose another image."
            elif against is not None:
                package = self._asked_or(against.who)
                what = f"{package} cannot be installed: {_needs(against)}, but {server}."
                advice = f"Try another version of {package}, or another image."
            elif both is not None:
                reason = " and ".join(map(_needs, both))
                what = f"These cannot be installed beside the server of this image ({name} {version}): {reason}."
                package = both[0].what
            else:
                what = f"{self._asked_list()} cannot be installed in this image: {server}."
            return Failure(kind=Kind.CONFLICT, what=what, advice=advice, package=package)
        return None

    def _conflict(self) -> Failure | None:
        pair = self._pair()
        if pair is None:
            return None
        one, other = pair
        comes_with = [
            f"{demand.who} {self._question.installed[demand.who]}"
            for demand in pair
            if demand.who in self._question.installed and demand.who not in self._question.requirements
        ]
        image = f" (the image comes with {' and '.join(comes_with)})" if comes_with else ""
        return Failure(
            kind=Kind.CONFLICT,
            what=f"These cannot be installed together: {_needs(one)}, and {_needs(other)}{image}.",
            advice="Ask for other versions, or leave one out.",
            package=one.what,
        )

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

    def _wrong_python(self) -> Failure | None:
        for match in _PYTHON.finditer(self._text):
            name = _name(match["name"])
            return Failure(
                kind=Kind.OTHER_PYTHON,
                what=f"{self._version(name, match['spec'])} needs Python {match['python']}, "
                f"and this image has Python {self._question.python_version}{self._because_of(name)}.",
                advice=f"Try an older version of {self._asked_or(name)}, or another image.",
                package=name,
            )
        return None

    def _no_fitting_wheel(self) -> Failure | None:
        for match in _NO_FITTING_WHEEL.finditer(self._text):
            name = _name(match["name"])
            python = ".".join(self._question.python_version.split(".")[:2])
            where = f"Linux on {self._question.machine}" if match["tag"].endswith("platform") else f"Python {python}"
            return Failure(
                kind=Kind.NO_FITTING_WHEEL,
                what=f"{self._version(name, match['spec'])} has no wheel for {where}{self._because_of(name)}.",
                advice=f"Try another version of {self._asked_or(name)}, or another image.",
                package=name,
            )
        return None

    def _source_only(self) -> Failure | None:
        for match in _SOURCE_ONLY.finditer(self._text):
            name = _name(match["name"])
            meant = meant_by(name) if name in self._question.requirements else ""
            return Failure(
                kind=Kind.SOURCE_ONLY,
                what=f"{self._version(name, match['spec'])} has no wheel, only source, which this hub does not "
                f"build{self._because_of(name)}.",
                advice=f"Did you mean {meant}? {SOURCE_ADVICE}" if meant else SOURCE_ADVICE,
                package=name,
            )
        return None

    def _no_version(self) -> Failure | None:
        following = _ONLY_FOLLOWING.search(self._text)
        only = _ONLY.search(self._text)
        match = following or only or _NO_VERSION.search(self._text)
        if match is None:
            return None
        name, advice = _name(match["name"]), "Try a wider range."
        if following is not None:
            what = f"No version of {name} is {_spec(following['wanted'])}."
        elif only is not None:
            what = _out_of_range(name, only["spec"], _spec(only["wanted"]))
        elif match["spec"].startswith("=="):
            what = f"{name} has no version {match['spec'].lstrip('=')}{self._because_of(name)}."
            advice = "Try another version."
        else:
            what = f"No version of {name} is {match['spec'] or 'available'}{self._because_of(name)}."
        return Failure(kind=Kind.NO_SUCH_VERSION, what=what, advice=advice, package=name)

    def _yanked(self) -> Failure | None:
        for match in _YANKED.finditer(self._text):
            name = _name(match["name"])
            return Failure(
                kind=Kind.WITHDRAWN,
                what=f"{name} {match['version']} was withdrawn by its authors{self._because_of(name)}.",
                advice="Try another version.",
                package=name,
            )
        return None

    def _anything(self) -> Failure:
        return Failure(
            kind=Kind.UNRESOLVABLE,
            what=f"{self._asked_list()} cannot be installed in this image.",
            advice="Ask for other versions, or leave some out.",
        )

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


def _out_of_range(name: str, available: str, wanted: str) -> str:
    bound = available.lstrip("<>=")
    if available.startswith("<="):
        hint = f"the newest is {bound}"
    elif available.startswith(">="):
        hint = f"the oldest is {bound}"
    else:
        hint = f"there is only {bound}"
    return f"No version of {name} is {wanted}: {hint}." if wanted else f"No version of {name} can be used: {hint}."


def _spec(item: str) -> str:
    match = re.search(rf"{_SPEC}$", item)
    return match[0] if match else ""


def _needs(demand: _Demand) -> str:
    who = f"{demand.who} needs" if demand.who else "you ask for"
    return f"{who} {demand.what}{demand.spec}"
