#!/bin/bash
# Finish the root file system in folder $1 (mmdebstrap's customize hook; runs outside of it, as the user that makes it).
#
# Wants RECIPE (folder of this file), UV (a uv executable) and JUPYTERHUB_VERSION in the environment.
set -euo pipefail
root=$1
scratch=$root/root/scratch # /tmp may be mounted over

trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch" "$root/etc/jupyter" "$root/usr/local/bin/start-notebook.d" "$root/usr/local/bin/before-notebook.d"

# The CAs that this machine trusts beside Debian's, so that pip and uv also work in containers behind a proxy with its own CA.
if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
  cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/"
  chroot "$root" update-ca-certificates >/dev/null 2>&1
fi
ca_file=/etc/ssl/certs/ca-certificates.crt
if [[ -f ${SSL_CERT_FILE:-} ]]; then
  cp "$SSL_CERT_FILE" "$scratch/ca.crt"
  ca_file=/root/scratch/ca.crt
fi

cp "$UV" "$scratch/uv"
in_root() { env HOME=/root SSL_CERT_FILE="$ca_file" UV_NO_CACHE=1 UV_NO_PROGRESS=1 chroot "$root" "$@"; }
in_root /root/scratch/uv --quiet venv --no-config --no-python-downloads --python /usr/bin/python3 /opt/venv
in_root /root/scratch/uv --quiet pip install --no-config --python /opt/venv/bin/python --compile-bytecode \
  "jupyterhub==$JUPYTERHUB_VERSION" jupyterlab pip

chroot "$root" useradd --uid 1000 --gid 100 --no-log-init --create-home --shell /bin/bash jovyan
chroot "$root" install -d -o 1000 -g 100 /home/jovyan/work

install -m 0755 "$RECIPE/start.sh" "$RECIPE/start-notebook.py" "$root/usr/local/bin/"
install -m 0755 "$RECIPE/docker_healthcheck.py" "$root/etc/jupyter/"
