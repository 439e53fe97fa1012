"""Small source distributions, made for tests: each has its own build backend, so that no other is needed."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping

from tests.crafted_wheels import PublishedFile, normalise

_BACKEND = '''
import base64, hashlib, os, subprocess, sys, time, zipfile

NAME, VERSION = {name!r}, {version!r}


def write_wheel(folder, name=NAME, version=VERSION, files=None, requires=(), says="", tag="py3-none-any"):
    """Write a wheel; its file name."""
    stem = name.replace("-", "_") + "-" + version
    lines = ["Metadata-Version: 2.1", "Name: " + (says or name), "Version: " + version]
    lines += ["Requires-Dist: " + requirement for requirement in requires]
    contents = dict(files or {{name.replace("-", "_") + ".py": "word = 'built'\\n"}})
    contents[stem + ".dist-info/METADATA"] = "\\n".join(lines) + "\\n"
    contents[stem + ".dist-info/WHEEL"] = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: " + tag + "\\n"
    record = ""
    with zipfile.ZipFile(os.path.join(folder, stem + "-" + tag + ".whl"), "w") as archive:
        for path, text in contents.items():
            content = text.encode()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            record += path + ",sha256=" + digest + "," + str(len(content)) + "\\n"
            archive.writestr(path, content)
        record += stem + ".dist-info/RECORD,,\\n"
        archive.writestr(stem + ".dist-info/RECORD", record)
    return stem + "-" + tag + ".whl"


def build_wheel(folder, config_settings=None, metadata_directory=None):
{body}
'''


def sdist(
    name: str,
    version: str,
    body: str = "return write_wheel(folder)",
    *,
    requires: Iterable[str] = (),
    python_requires: str = "",
) -> PublishedFile:
    """A source distribution whose `build_wheel(folder)` has this body; `write_wheel(folder, …)` writes a wheel in it.

    Args:
        requires: Its `build-system.requires`.
        python_requires: What the index says.
    """
    indented = "".join(f"    {line}\n" for line in body.strip().splitlines())
    project = (
        f'[build-system]\nrequires = {json.dumps(list(requires))}\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    backend = _BACKEND.format(name=name, version=version, body=indented)
    files = {"pyproject.toml": project, "backend.py": backend}
    return sdist_of(name, version, files, python_requires=python_requires)


def sdist_of(name: str, version: str, files: Mapping[str, str], *, python_requires: str = "") -> PublishedFile:
    """A source distribution of these files, by their paths in its folder; a path that begins with `/` is taken as it
    is, without the slash."""
    folder = f"{normalise(name).replace('-', '_')}-{version}"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in {**files, "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"}.items():
            content = text.encode()
            member = tarfile.TarInfo(path[1:] if path.startswith("/") else f"{folder}/{path}")
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return PublishedFile(
        name=normalise(name),
        version=version,
        filename=f"{folder}.tar.gz",
        content=buffer.getvalue(),
        requires_python=python_requires,
    )
