#!/bin/bash
# A virtual environment with a few packages that pip put there, as older.txt says. Runs in a container of the Debian base.
set -euo pipefail
here=$(dirname "$0")
trap 'rm -rf "$here"' EXIT

source "$here/install_older.sh"
