#!/usr/bin/env bash
# Holds the protos against those of the last release, or of the branch's base: no breaking change.
#   breaking.sh BUF [BASE]
set -euo pipefail
cd "$(dirname "$0")/.."
base=${2:-$(git describe --tags --abbrev=0 2>/dev/null || git rev-parse --verify --quiet HEAD~1 || git rev-parse HEAD)}
old=$(mktemp -d)
trap 'rm -rf "$old"' EXIT
if ! git archive "$base" protos buf.yaml 2>/dev/null | tar -x -C "$old"; then
  echo "breaking: $base has no protos to compare with"
  exit 0
fi
"$1" breaking --against "$old"
echo "breaking: none against $base"
