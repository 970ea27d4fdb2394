# Sourced by the other scripts: makes .venv once, with what the script needs, and puts it on the PATH.
#   source scripts/_env.sh EXTRAS     e.g. cpu,dev
# PYTHON chooses the interpreter, VENV the folder (.venv); SYSTEM_SITE_PACKAGES=1 lets it see the system's packages.
# OLDEST=1 installs the oldest versions that pyproject.toml allows, of all but the developers' tools.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${VENV:-.venv}

fail() { echo "edgeinfer: error: $1" >&2; exit 69; }

usable() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.13 python3.10}; do
    if usable "$candidate"; then command -v "$candidate"; return; fi
  done
  return 1
}

make_venv() {
  local python
  python=$(find_python) || fail "no Python 3.10 to 3.13 found; install one, or name it: PYTHON=/path/to/python3 $0"
  "$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python has no venv module; on Debian and Ubuntu: apt install python3-venv"
  echo "edgeinfer: making $venv with $("$python" --version)" >&2
  "$python" -m venv --clear ${SYSTEM_SITE_PACKAGES:+--system-site-packages} "$venv" || fail "could not make $venv; is there room, and is the folder writable?"
}

# What is installed is written down with what it was made from; only a change of either installs again.
wanted="$1 $PWD ${OLDEST:-} $(cksum <pyproject.toml)"
stamp=$venv/.edgeinfer-$1
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  if ! usable "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then make_venv; fi
  echo "edgeinfer: installing $1 into $venv (a minute or two, once)" >&2
  constraints=$venv/constraints.txt
  if [ "${OLDEST:-}" = 1 ]; then
    sed -n '/^\[project\]/,/^dev = /p' pyproject.toml | grep -oE '"[a-z0-9-]+>=[0-9.]+' | sed 's/"//; s/>=/==/' >"$constraints"
  else
    : >"$constraints"
  fi
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$1]" --constraint "$constraints" ||
    fail "pip could not install the dependencies (the lines above say which); is there a network, or a package mirror in pip's settings?"
  printf '%s' "$wanted" >"$stamp"
fi
PATH="$(cd "$venv/bin" && pwd):$PATH"
export PATH
