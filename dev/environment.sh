# Sourced by the scripts beside it: where the project is, and the environment that its tools run in.
# shellcheck shell=bash
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$project" || exit 1
mkdir -p .dev

export PATH="$project/.venv/bin:$project/.dev/node_modules/.bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_PROGRESS=1

# Python's, Node's and uv's tools bring CA lists of their own. Behind a proxy with a private CA only the system's list will do.
bundle=/etc/ssl/certs/ca-certificates.crt
if [[ -f $bundle ]]; then
  export SSL_CERT_FILE=${SSL_CERT_FILE:-$bundle} REQUESTS_CA_BUNDLE=${REQUESTS_CA_BUNDLE:-$bundle}
  export PIP_CERT=${PIP_CERT:-$bundle} NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-$bundle}
fi
unset bundle

say() { printf '%s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}
