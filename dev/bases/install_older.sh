# Sourced by the scripts beside it: have pip install what older.txt says into /opt/venv, from the wheels that lie there.
# shellcheck shell=bash
/opt/venv/bin/python -m pip install --quiet --no-index --no-deps --no-cache-dir --root-user-action=ignore \
  --find-links "$here/wheels" --requirement "$here/older.txt"
