#!/usr/bin/env bash
# Runs the notebooks without a browser and fails at the first cell that fails.
#
#   examples/notebooks/run.sh [NOTEBOOK…]       all of them by default; what is committed stays as it is
#   examples/notebooks/run.sh -w [NOTEBOOK…]    writes the results into the notebooks
#
# It builds the kernel into a folder of its own, and needs Go and jupyter with nbconvert (Debian: jupyter-client,
# jupyter-nbconvert, python3-nbclient, python3-nbconvert). Nothing that Jupyter has set up elsewhere is touched.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

write=
if [[ ${1:-} = -w ]]; then write=1; shift; fi
if (( $# )); then notebooks=("$@"); else notebooks=("$here"/*.ipynb); fi

# Debian's jupyter runs on the system's Python, whichever comes first in the PATH.
jupyter=jupyter
[[ -x /usr/bin/jupyter-nbconvert ]] && jupyter=/usr/bin/jupyter
"$jupyter" nbconvert --version >/dev/null || { echo "run.sh: got no jupyter nbconvert, want it installed" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export JUPYTER_DATA_DIR=$work/data JUPYTER_RUNTIME_DIR=$work/runtime JUPYTER_CONFIG_DIR=$work/config
"$here/install.sh" >/dev/null

mkdir "$work/done"
for n in "${notebooks[@]}"; do
  start=$SECONDS
  "$jupyter" nbconvert --log-level=ERROR --to notebook --execute --ExecutePreprocessor.timeout=300 \
    --ExecutePreprocessor.record_timing=False --output-dir "$work/done" "$n"
  # gophernotes does not say how Go is to be coloured.
  sed -i.bak -e 's/"pygments_lexer": ""/"pygments_lexer": "go"/' -e 's/"codemirror_mode": ""/"codemirror_mode": "go"/' "$work/done/$(basename "$n")"
  printf '%-24s %3d s\n' "$(basename "$n")" $((SECONDS - start))
done
rm -f "$work/done"/*.bak

(cd "$here" && STHENO_NOTEBOOKS=$work/done go test -count=1 -run 'Executed' .)
if [[ $write ]]; then
  for n in "${notebooks[@]}"; do cp "$work/done/$(basename "$n")" "$n"; done
fi
