"""The demo's hub: jupyterhub_config.example.py, with a password, ports and data of its own.

demo_hub.py starts the hub with it, in the folder for its data, and sets the DEMO_ variables.
"""

import os
from pathlib import Path

c = get_config()
load_subconfig("jupyterhub_config.example.py", path=str(Path(__file__).parent.parent))

c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = os.environ["DEMO_PASSWORD"]
c.Authenticator.allow_all = True

# The public address and the proxy's API on loopback only, the hub's API where its containers can reach it.
c.JupyterHub.bind_url = f"http://127.0.0.1:{os.environ['DEMO_PORT']}"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{os.environ['DEMO_PROXY_API_PORT']}"
c.JupyterHub.hub_ip = os.environ["DEMO_HUB_IP"]
c.JupyterHub.hub_port = int(os.environ["DEMO_HUB_PORT"])

c.PrebuiltSpawner.image = os.environ["DEMO_BASE_IMAGE"]

# Ctrl-C leaves no server behind; what the hub could not stop is found by this label.
c.JupyterHub.cleanup_servers = True
c.DockerSpawner.extra_create_kwargs = {"labels": {"prebuilt_spawner.demo": os.environ["DEMO_RUN"]}}
