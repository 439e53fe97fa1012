"""The page on which users choose: from what is offered to HTML, and from the filled-in form to options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..build.preview import in_words
from ..environment.options import without_refresh
from ..environment.pasted import rules_for_page
from .entries import Entries, Reason, entries_from_options, entries_from_query, just_posted, note_posted
from .offers import Offers, chooser_for, fitting, offers_for
from .rendering import html_of

if TYPE_CHECKING:
    from .mixin import PrebuiltMixin


class LinkFillsForm(Exception):
    """A link fills in the form and starts nothing. The form itself says so, and JupyterHub, which calls it an error,
    says nothing. No HTTP error, for the page is a good one."""

    jupyterhub_message = ""
    jupyterhub_html_message = ""


async def options_form(spawner: PrebuiltMixin) -> str:
    """The form for one user's server; "" where there is nothing to choose.

    It is filled with what was just posted, else with the link's, with what failed last, or with the stored options.
    """
    chooser = await chooser_for(spawner)
    query = spawner.handler.request.query_arguments if spawner.handler is not None else {}
    link = entries_from_query(query)
    stored = entries_from_options(without_refresh(spawner.stored_options()))
    attempt = just_posted() or (None if link else spawner.last_failure())
    entries = attempt.entries if attempt else link or stored
    reason = attempt.reason if attempt else None
    fields, left_out = fitting(chooser, entries, keep=reason is not None)
    offers = await offers_for(spawner, chooser, fields)
    # Options from when there was more to choose would be refused at each start, and only a form can replace them.
    if not offers.is_choice and entries == Entries() and not spawner.answers_link():
        return ""
    is_link = link is not None and attempt is None
    return render(offers, entries=fields, reason=reason, left_out=() if reason else left_out, is_link=is_link)


def options_from_form(form: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The contract's user options from what a browser posts: lists of values by field.

    Empty fields are left out. A field that is not ours is kept, so that it is refused as an unknown option.
    """
    fields = {name: values[0] if len(values) == 1 else list(values) for name, values in form.items() if name != "_xsrf"}
    options = {name: value for name, value in fields.items() if not (isinstance(value, str) and not value.strip())}
    if options.get("refresh") == "on":
        options["refresh"] = True
    note_posted(options)
    return options


def render(
    offers: Offers,
    *,
    entries: Entries,
    reason: Reason | None = None,
    left_out: Sequence[str] = (),
    is_link: bool = False,
) -> str:
    """The fields as HTML; JupyterHub puts the form and its button around them.

    Args:
        offers: What can be chosen.
        entries: What the fields hold at first.
        reason: Why a start with these entries failed, if one did.
        left_out: What was wished and cannot be chosen.
        is_link: Whether the entries come from a link.
    """
    if reason is not None:
        if offers.outlook.endswith(reason.message):
            offers = replace(offers, outlook="Cannot work as it is; the reason is above.")
        if reason.about not in offers.fields:
            reason = replace(reason, about="")
    chosen = entries.profile or next((offer.profile.slug for offer in offers.profiles), "")
    return html_of(
        "form.html",
        offers=offers,
        chosen=chosen,
        entries=entries,
        reason=reason,
        left_out=left_out,
        is_link=is_link,
        some_extras=[offer.profile.display_name for offer in offers.profiles if offer.extras],
        all_extras=all(offer.extras for offer in offers.profiles),
        data=_data(offers, entries, reason),
        css=_asset("form.css"),
        scripts=[_asset("packages.js"), _asset("form.js")],
    )


def _data(offers: Offers, entries: Entries, reason: Reason | None) -> dict[str, Any]:
    """What the form's script needs to know."""
    known = [(Entries(profile=offer.profile.slug), offer.preview) for offer in offers.profiles]
    known += [(offer.entries, offer.preview) for offer in offers.recent]
    return {
        "rules": rules_for_page(),
        "now": {**asdict(entries), "outlook": offers.outlook},
        "known": [{**asdict(entries), "outlook": in_words(preview)} for entries, preview in known],
        "default": offers.profiles[0].profile.slug if offers.profiles else "",
        "image": offers.default_image,
        "extras": [offer.profile.slug for offer in offers.profiles if offer.extras],
        "reason": asdict(reason) if reason and reason.about == "packages" else None,
    }


@cache
def _asset(name: str) -> Markup:
    """A static file as it is put into the page: there is no place of ours that a browser could get it from."""
    text = resources.files(__package__).joinpath("static", name).read_text("utf-8")
    return Markup(text)  # noqa: S704  # our own file
