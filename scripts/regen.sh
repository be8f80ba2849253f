#!/bin/sh
# Regenerates all assembly of internal/kernel from its generators, which live in the nested module internal/kernel/gen, the
# bindings of the notebooks' kernel, the module file of the build for CUDA and, where there is a clang for it, the PTX.
set -eu
cd "$(dirname "$0")/.."
{ cat go.mod; printf '\nreplace gorgonia.org/cu => ./cudamodules/cu\n'; } >go.cuda.mod
cp go.sum go.cuda.sum
if command -v "${CLANG:-clang++-19}" >/dev/null; then scripts/regen-ptx.sh; else echo "no clang 19: PTX left as it is" >&2; fi
cd examples/notebooks/kernel
go run ./bind -dir bindings
cd ../../../internal/kernel/gen
for generator in */main.go; do
	go run "./$(dirname "$generator")" -dir ..
done
