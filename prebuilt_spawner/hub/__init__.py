"""How the rest sits in JupyterHub."""
