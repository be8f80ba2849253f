#!/bin/sh
# Regenerates all assembly of internal/kernel from its generators, which live in the nested module internal/kernel/gen.
set -eu
cd "$(dirname "$0")/../internal/kernel/gen"
for generator in */main.go; do
	go run "./$(dirname "$generator")" -dir ..
done
