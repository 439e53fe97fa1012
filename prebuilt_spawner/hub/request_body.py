"""The body of a start over REST: JupyterHub 5 takes it for the options, 6 reads it. Both mean the same with this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import jupyterhub
from jupyterhub.apihandlers.base import APIHandler
from traitlets import Dict, TraitError

_ENVELOPE = frozenset({"display_name", "user_options"})


class ObjectOnly(Dict):
    """A trait for the options. JupyterHub 5 assigns whatever a body holds; what is no object is the user's mistake."""

    def error(self, obj: Any, value: Any, error: Any = None, info: Any = None) -> NoReturn:
        """Hand it to the spawner, which refuses it."""
        obj.refuse_options(value)
        raise TraitError("not refused")


def is_unread_body(handler: Any) -> bool:
    """Whether the options that JupyterHub hands over are the request's body as it came."""
    return jupyterhub.version_info[0] < 6 and isinstance(handler, APIHandler)


def options_of_body(body: Mapping[str, Any], stored: Any) -> Any:
    """The options that a body stands for, as JupyterHub 6 reads it: `{"user_options": {…}}`, or the options
    themselves; an empty body or null means the stored options."""
    if not body:
        return stored or {}
    if body.keys() <= _ENVELOPE:
        options = body.get("user_options")
        return (stored or {}) if options is None else options
    return body
