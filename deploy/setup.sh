#!/usr/bin/env bash
# Sets up what `make` needs. Idempotent; says plainly what is missing and how to get it.
#   setup.sh python          the virtual environment for development, from requirements-dev.lock
#   setup.sh system run      the system packages that a development vault needs
#   setup.sh system test     those, and what the tests need
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
die() { say "strongroom setup: $*"; exit 1; }

find_python() {
  for candidate in python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
}

install_packages() {
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root=(sudo -n); else
      die "missing system packages; run: sudo apt-get install $*"
    fi
  fi
  command -v apt-get >/dev/null ||
    die "missing system packages, and this is no Debian or Ubuntu; install the likes of: $*"
  say "installing system packages: $*"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null 2>&1 || true
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
    die "apt-get could not install: $*"
}

setup_python() {
  local python
  python=$(find_python)
  if [ -z "$python" ]; then
    install_packages python3 python3-venv
    python=$(find_python)
    [ -n "$python" ] || die "Python 3.11 or newer, with venv, is needed"
  fi
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  say "installing locked dependencies into .venv"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
  touch .venv/.ready
}

any_of() {
  for file in "$@"; do [ -e "$file" ] && return 0; done
  return 1
}

have_softhsm() {
  command -v softhsm2-util >/dev/null && any_of /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so \
    /usr/lib64/pkcs11/libsofthsm2.so /usr/lib64/softhsm/libsofthsm2.so /usr/lib/pkcs11/libsofthsm2.so \
    /usr/local/lib/softhsm/libsofthsm2.so
}

setup_system() {
  local missing=()
  have_softhsm || missing+=(softhsm2)
  if [ "$1" = test ]; then
    command -v initdb >/dev/null || any_of /usr/lib/postgresql/*/bin/initdb || missing+=(postgresql)
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    any_of /usr/lib/*/libsoftokn3.so /usr/lib/*/nss/libsoftokn3.so || missing+=(libnss3)
  fi
  [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
  have_softhsm || die "SoftHSM is not where it is looked for; install softhsm2"
}

case "${1:-} ${2:-}" in
  "python ") setup_python ;;
  "system run") setup_system run ;;
  "system test") setup_system test ;;
  *) die "usage: setup.sh python | system run | system test" ;;
esac
