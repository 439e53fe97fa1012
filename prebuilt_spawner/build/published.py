"""Whether an image that a registry has is the environment that its tag says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..environment.base import BaseImage
from ..environment.digest import runtime_config
from ..image.config import merged_environment
from ..image.names import BASE_DIGEST_LABEL, DIGEST_LABEL, PACKAGES_LABEL

_SAME_LABELS = (DIGEST_LABEL, BASE_DIGEST_LABEL, PACKAGES_LABEL)


def flaw_of(
    config: Mapping[str, Any] | None,
    *,
    base: BaseImage,
    labels: Mapping[str, str],
    environment: Mapping[str, str],
) -> str:
    """Why an image of this configuration cannot be used; "" where it can.

    It stands on the very base, starts as the base does, and says of itself what an image that was made here would.
    What is in its own layers, nobody can say without making them.

    Args:
        config: The image's configuration file; None where it is no image for one platform.
        base: What the environment stands on.
        labels, environment: What an image of it that is made here adds to the base's.
    """
    if config is None:
        return "it is no image for one platform"
    try:
        return _flaw(config, base, labels, environment)
    except (TypeError, AttributeError, ValueError) as error:
        return f"its configuration is malformed: {error}"


def _flaw(config: Mapping[str, Any], base: BaseImage, labels: Mapping[str, str], environment: Mapping[str, str]) -> str:
    diff_ids = (config.get("rootfs") or {}).get("diff_ids") or []
    if tuple(diff_ids[: len(base.diff_ids)]) != base.diff_ids:
        return "it does not stand on the layers of the base image"
    if (config.get("os"), config.get("architecture")) != (base.os, base.architecture):
        return f"it is for {config.get('os')}/{config.get('architecture')}"
    found, expected = runtime_config(config.get("config") or {}), runtime_config(base.config)
    found_labels, base_labels = found.pop("Labels", {}), expected.pop("Labels", {})
    for label in _SAME_LABELS:
        if found_labels.get(label) != labels[label]:
            return f"its label {label} is {str(found_labels.get(label))[:100]!r}"
    # The others of ours (which version made it, what its base was called) may differ from hub to hub.
    if {key: found_labels[key] for key in found_labels.keys() - labels.keys()} != {
        key: base_labels[key] for key in base_labels.keys() - labels.keys()
    }:
        return "it has other labels than its base image"
    expected = runtime_config({**expected, "Env": merged_environment(expected.get("Env") or (), environment)})
    different = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    return f"its configuration differs from its base image's in {', '.join(different)}" if different else ""
