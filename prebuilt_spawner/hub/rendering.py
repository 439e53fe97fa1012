"""The templates of what is put into JupyterHub's pages: every value is escaped."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader

from ..build.preview import duration

_templates = Environment(
    loader=PackageLoader("prebuilt_spawner.hub"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_templates.filters["duration"] = duration


def html_of(template: str, **values: Any) -> str:
    """The template of this name, filled in."""
    return _templates.get_template(template).render(**values)
