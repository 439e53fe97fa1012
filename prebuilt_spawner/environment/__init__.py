"""What an environment is: requests, locks, digests and names. Pure: no I/O, no docker, no jupyterhub."""
