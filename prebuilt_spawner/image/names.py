"""The labels that images and containers of ours carry, and where our own files are in an image."""

from __future__ import annotations

import re

VERSION_LABEL = "prebuilt_spawner.version"
DIGEST_LABEL = "prebuilt_spawner.digest"
BASE_DIGEST_LABEL = "prebuilt_spawner.base_digest"
PACKAGES_LABEL = "prebuilt_spawner.packages"

STEP_LABEL = "prebuilt_spawner.step"
"""On what an engine's builder makes on the way to an image of ours, and on that image too."""

PROBE_LABEL = "prebuilt_spawner.probe"
"""On the containers that ask a base's interpreter about itself, never on an image."""

COMPILER_LABEL = "prebuilt_spawner.compiler"
"""On the containers that compile modules for a base."""

SANDBOX_LABEL = "prebuilt_spawner.sandbox"
"""On the containers that build a wheel from source."""

CHECK_LABEL = "prebuilt_spawner.check"
"""On the containers that are made of an image, and never started, to see that it can be."""

HUB_LABEL = "prebuilt_spawner.hub"
"""On all these containers: which hub made them, so that it can remove them when it starts again."""

OURS = frozenset(
    {
        VERSION_LABEL,
        DIGEST_LABEL,
        BASE_DIGEST_LABEL,
        PACKAGES_LABEL,
        STEP_LABEL,
        PROBE_LABEL,
        COMPILER_LABEL,
        SANDBOX_LABEL,
        CHECK_LABEL,
        HUB_LABEL,
        # Of users' containers, which have them from the spawner.
        "prebuilt_spawner.container",
        "prebuilt_spawner.profile",
    }
)
"""Labels that a base image may not have: its containers, and images on it, would pass for what they are not."""

SHARE_FOLDER = "/usr/local/share/prebuilt-spawner"
"""Where an image says what was installed in it."""

HOLD_TAG = re.compile(r"hold-[0-9a-f]{16}-([0-9a-f]{8})-[0-9a-f]{8}")
"""Tags that keep the layers of an image for a while; the group is when one was made, in seconds since 1970."""
