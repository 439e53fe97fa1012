"""Image plans without wheels: files, and what is taken away, on a base."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from prebuilt_spawner.environment.base import BaseImage
from prebuilt_spawner.image.layer import ImagePlan, Layer, LowerLayers
from prebuilt_spawner.image.names import BASE_DIGEST_LABEL, DIGEST_LABEL
from prebuilt_spawner.image.replacement import parents
from prebuilt_spawner.image.tar import END_OF_ARCHIVE, padding, tar_header


def plan_of(
    base: BaseImage,
    *files: Mapping[str, bytes],
    removed: Iterable[str] = (),
    lower: LowerLayers | None = None,
    labels: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> ImagePlan:
    """A plan with an environment digest that nobody else has.

    Args:
        files: A layer for each mapping: content by path, without the leading slash.
        removed: Paths of the base that go, in a layer below those.
        lower: What it is stacked on; by default the base.
    """
    digest = secrets.token_hex(32)
    whiteouts = {path.rpartition("/")[0] + "/.wh." + path.rpartition("/")[2]: b"" for path in removed}
    return ImagePlan(
        base=base,
        lower=lower or LowerLayers(image_id=base.image_id, diff_ids=base.diff_ids),
        layers=tuple(_layer(each) for each in (whiteouts, *files) if each),
        labels={DIGEST_LABEL: digest, BASE_DIGEST_LABEL: base.digest, **(labels or {})},
        environment=dict(environment or {}),
        digest=digest,
    )


def _layer(files: Mapping[str, bytes]) -> Layer:
    folders = sorted({folder for path in files for folder in parents(path)})
    entries = [tar_header(folder, mode=0o755, kind="folder") for folder in folders]
    for path, content in sorted(files.items()):
        entries += [tar_header(path, size_bytes=len(content), mode=0o644, kind="file"), content, padding(len(content))]
    return Layer(comment="a test's files", parts=(b"".join(entries), END_OF_ARCHIVE))
