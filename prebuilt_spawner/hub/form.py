"""The page on which users choose: from settings and earlier options to HTML, and from the filled-in form to options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader

from ..environment.options import without_refresh
from ..environment.profiles import Profile

if TYPE_CHECKING:
    from .mixin import PrebuiltMixin

_templates = Environment(
    loader=PackageLoader("prebuilt_spawner.hub"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)

# JupyterHub renders the form again when a start fails within a second, without the request at hand and for
# the default server's spawner, whichever server was asked for. Both happen in the request's own task.
_entered: ContextVar[Mapping[str, Any] | None] = ContextVar("entered", default=None)


class LinkFillsForm(Exception):
    """A link fills in the form and starts nothing. Shown above the form; no HTTP error, for the page is a good one."""

    jupyterhub_message = "This link has filled in the form. Look at it, and then start your server."
    jupyterhub_html_message = jupyterhub_message


@dataclass(frozen=True, kw_only=True)
class Entries:
    """What the form's fields hold."""

    profile: str = ""
    packages: str = ""
    image: str = ""
    refresh: bool = False


async def options_form(spawner: PrebuiltMixin) -> str:
    """The form for one user's server, filled with what was just posted, else with the link's or the stored options.

    There always is one: without a form, JupyterHub answers a link by starting the server.
    """
    profiles = await spawner.profiles()
    may_add = [(await spawner.policy(profile)).allow_custom_packages for profile in profiles or (None,)]
    images = spawner._get_allowed_images()
    query = spawner.handler.request.query_arguments if spawner.handler is not None else {}
    return render(
        profiles=sorted(profiles, key=lambda profile: not profile.default),
        images=() if images == "*" else tuple(images or ()),
        any_image=images == "*",
        may_add_packages=any(may_add),
        entries=(
            entered_just_now()
            or entries_from_query(query)
            or entries_from_options(without_refresh(spawner.user_options))
        ),
    )


def options_from_form(form: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The contract's user options from what a browser posts: lists of values by field.

    Empty fields are left out. A field that is not ours is kept, so that it is refused as an unknown option.
    """
    fields = {name: values[0] if len(values) == 1 else list(values) for name, values in form.items() if name != "_xsrf"}
    options = {name: value for name, value in fields.items() if not (isinstance(value, str) and not value.strip())}
    if options.get("refresh") == "on":
        options["refresh"] = True
    _entered.set(options)
    return options


def entries_from_options(options: Mapping[str, Any]) -> Entries:
    """How options, which may have any form, are shown in the fields."""
    packages = options.get("packages")
    if isinstance(packages, list | tuple):
        packages = "\n".join(entry for entry in packages if isinstance(entry, str))
    return Entries(
        profile=_text(options.get("profile")),
        packages=_text(packages),
        image=_text(options.get("image")),
        refresh=options.get("refresh") is True,
    )


def entries_from_query(query: Mapping[str, Sequence[bytes]]) -> Entries | None:
    """What a link puts into the fields, with or without JupyterHub's `opt-`; None where it names none of them.

    Asking for newer versions is an act: a link cannot do it.
    """
    values = {
        name.removeprefix("opt-"): "\n".join(value.decode("utf-8", "replace") for value in values)
        for name, values in query.items()
    }
    if not values.keys() & {"profile", "packages", "image"}:
        return None
    return Entries(
        profile=values.get("profile", ""), packages=values.get("packages", ""), image=values.get("image", "")
    )


def entered_just_now() -> Entries | None:
    """What was posted in the request that is being answered."""
    options = _entered.get()
    return None if options is None else entries_from_options(options)


def render(
    *,
    profiles: Sequence[Profile],
    images: Sequence[str],
    any_image: bool,
    may_add_packages: bool,
    entries: Entries,
) -> str:
    """The fields as HTML; JupyterHub puts the form and its button around them.

    Args:
        profiles: To choose from, the default one first; empty for none.
        images: Keys of `allowed_images`.
        any_image: `allowed_images` is "*".
        may_add_packages: Whether packages can be named at all.
        entries: What the fields hold at first.
    """
    return _templates.get_template("form.html").render(
        profiles=profiles,
        chosen=entries.profile or (profiles[0].slug if profiles else ""),
        images=images,
        any_image=any_image,
        may_add_packages=may_add_packages,
        entries=entries,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
