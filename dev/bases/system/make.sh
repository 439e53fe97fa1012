#!/bin/bash
# The distribution's Python, with Jupyter in /usr/local as `pip install --break-system-packages` leaves it, beside packages
# of the distribution. Runs in a container of the Debian base.
set -euo pipefail
here=$(dirname "$0")
trap 'rm -rf "$here"' EXIT

source "$here/install_older.sh"
dpkg --install "$here"/packages/*.deb >/dev/null
# What the distribution has, pip does not install once more.
/usr/bin/python3 -IS "$here/packages.py"
rm -rf /opt/venv
