#!/usr/bin/python3 -IS
"""Exit 0 when the server in this container answers on its API. Only the standard library: it runs every 3 seconds."""

import os
import sys
import urllib.parse
import urllib.request

# A hub tells its servers where to listen, with the prefix; the host part of it is a wildcard, so only the rest counts.
service = urllib.parse.urlsplit(os.environ.get("JUPYTERHUB_SERVICE_URL", ""))
port = service.port or int(os.environ.get("JUPYTER_PORT", "8888"))
prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX") or service.path or "/"

# No proxy: a proxy of the environment must never be asked for a loopback address.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with opener.open(f"http://127.0.0.1:{port}{prefix.rstrip('/')}/api", timeout=0.9) as answer:
        answer.read()
except OSError as error:
    sys.exit(f"the server does not answer: {error}")
