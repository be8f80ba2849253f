#!/usr/bin/env bash
# Builds the kernel that runs these notebooks and installs it into your Jupyter folder, as "Go (Stheno)".
#
#   examples/notebooks/install.sh
#
# It needs Go; Jupyter may come later. JUPYTER_DATA_DIR names another folder than the usual one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/kernel"

case $(uname -s) in
  Darwin) usual=$HOME/Library/Jupyter ;;
  *) usual=${XDG_DATA_HOME:-$HOME/.local/share}/jupyter ;;
esac
to=${JUPYTER_DATA_DIR:-$usual}/kernels/stheno
mkdir -p "$to"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# gophernotes is a program: nothing can import it, and the file that mends it must stand beside its own. An overlay shows
# the compiler both in one folder, and copies nothing.
go mod download github.com/gopherdata/gophernotes
from=$(go list -m -f '{{.Dir}}' github.com/gopherdata/gophernotes)
{
  echo '{"Replace": {'
  comma=
  for f in "$from"/*.go; do
    [[ $f = *_test.go ]] && continue
    printf '%s"%s": "%s"' "$comma" "$PWD/gophernotes/$(basename "$f")" "$f"
    comma=$',\n'
  done
  echo '}}'
} >"$work/overlay.json"
CGO_ENABLED=0 go build -tags gophernotes -overlay "$work/overlay.json" -o "$work/kernel" ./gophernotes

# The interpreter takes types from the bindings where it finds no Go to ask, which starts it in a second.
cat >"$work/kernel.json" <<JSON
{
  "argv": ["$to/kernel", "{connection_file}"],
  "display_name": "Go (Stheno)",
  "language": "go",
  "env": {"GOROOT": "/nonexistent"}
}
JSON
mv "$work/kernel" "$to/kernel"
mv "$work/kernel.json" "$to/kernel.json"
echo "installed in $to"
