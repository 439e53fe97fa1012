#!/bin/bash
# The image's entry point, in the manner of docker-stacks: run the hooks, then the command as the notebook user.
#
# Hooks are the files of two folders, in the order of their names: `*.sh` is sourced (and may export variables), another
# executable is run. start-notebook.d comes first; before-notebook.d last, just before the command.
set -e

run_hooks() {
  local hook
  for hook in "$1"/*; do
    case $hook in
      *.sh)
        echo "start.sh: sourcing $hook" >&2
        # shellcheck disable=SC1090
        source "$hook"
        ;;
      *)
        if [[ -f $hook && -x $hook ]]; then
          echo "start.sh: running $hook" >&2
          "$hook"
        fi
        ;;
    esac
  done
}

shopt -s nullglob
[[ $# -gt 0 ]] || set -- bash

run_hooks /usr/local/bin/start-notebook.d
run_hooks /usr/local/bin/before-notebook.d

if [[ $(id -u) == 0 && ${NB_UID:-1000} != 0 ]]; then
  # Started as root, as SystemUserSpawner does: give root up for the user that the variables name.
  export HOME=/home/${NB_USER:-jovyan}
  exec setpriv --reuid="${NB_UID:-1000}" --regid="${NB_GID:-100}" --clear-groups --inh-caps=-all "$@"
fi
exec "$@"
