#!/bin/sh
# Regenerates all assembly of internal/kernel from its generators, which live in the nested module internal/kernel/gen, and the
# bindings of the notebooks' kernel.
set -eu
cd "$(dirname "$0")/../examples/notebooks/kernel"
go run ./bind -dir bindings
cd ../../../internal/kernel/gen
for generator in */main.go; do
	go run "./$(dirname "$generator")" -dir ..
done
