"""A base whose server is no more than an HTTP server, for many of them at once."""

from __future__ import annotations

import shlex

import docker

from .hub import changed_base

LIGHT_SERVER = """#!/usr/bin/python3 -IS
import os, signal, sys, urllib.parse
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
port = urllib.parse.urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"]).port
HTTPServer(("", port), Handler).serve_forever()
"""


def make_light_base(client: docker.APIClient, base: str, run: str) -> str:
    """Make it from a base image; returns its name."""
    name = f"prebuilt-spawner-test/{run}-light:1"
    command = f"printf '%s' {shlex.quote(LIGHT_SERVER)} > /usr/local/bin/start-notebook.py"
    # A health check every three seconds would cost more than the server.
    changed_base(client, base, name, command, run, changes={"Healthcheck": {"Test": ["NONE"]}})
    return name
