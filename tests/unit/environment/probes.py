"""A base's probe, as tests need it."""

from __future__ import annotations

from typing import Any

from prebuilt_spawner.environment.base import BaseProbe, InstallScheme

SITE = "/opt/venv/lib/python3.11/site-packages"


def make_probe(**changes: Any) -> BaseProbe:
    """A CPython 3.11 on x86-64 with glibc 2.36, with some values changed."""
    values: dict[str, Any] = {
        "python_version": "3.11.2",
        "implementation": "cpython",
        "abi": "cp311",
        "cache_tag": "cpython-311",
        "machine": "x86_64",
        "glibc": (2, 36),
        "interpreter": "/opt/venv/bin/python",
        "stdlib": "/usr/lib/python3.11",
        "virtual": True,
        "markers": {
            "implementation_name": "cpython",
            "implementation_version": "3.11.2",
            "os_name": "posix",
            "platform_machine": "x86_64",
            "platform_python_implementation": "CPython",
            "platform_release": "6.1.0",
            "platform_system": "Linux",
            "platform_version": "1",
            "python_full_version": "3.11.2",
            "python_version": "3.11",
            "sys_platform": "linux",
        },
        "scheme": InstallScheme(
            purelib=SITE, platlib=SITE, headers="/opt/venv/include", scripts="/opt/venv/bin", data="/opt/venv"
        ),
        "user": "jovyan",
        "uid": 1000,
        "gid": 100,
        "home": "/home/jovyan",
    }
    return BaseProbe(**(values | changes))
