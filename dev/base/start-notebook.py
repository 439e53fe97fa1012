#!/usr/bin/env python3
"""The image's command: JupyterHub's single-user server where a hub started us, else JupyterLab by itself."""

import os
import sys

if os.environ.get("JUPYTERHUB_API_TOKEN"):
    command = ["jupyterhub-singleuser"]
else:
    command = ["jupyter", "lab", "--ServerApp.ip=0.0.0.0", f"--ServerApp.port={os.environ.get('JUPYTER_PORT', '8888')}"]

command += sys.argv[1:]
os.execvp(command[0], command)
