#!/bin/bash
# conda's layout, as docker-stacks have it: /opt/conda with an interpreter of its own, conda's records, and everything
# writable for the notebook user's group. Runs in a container of the Debian base.
set -euo pipefail
here=$(dirname "$0")
trap 'rm -rf "$here"' EXIT

source "$here/install_older.sh"
/usr/bin/python3 -IS "$here/python.py"
/opt/conda/bin/python3 -IS "$here/packages.py"
rm -rf /opt/venv
install -m 0755 "$here/10activate-conda-env.sh" /usr/local/bin/before-notebook.d/

# docker-stacks' fix-permissions
chown -R 1000:100 /opt/conda
find /opt/conda ! -type l -exec chmod g+rwX {} +
find /opt/conda -type d -exec chmod +6000 {} +
