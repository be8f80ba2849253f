#!/usr/bin/env bash
# Runs the benchmarks and writes docs/performance.md.
#
#   scripts/bench.sh                       those that the file is about: attention, products, caches, grounding, whole models
#   scripts/bench.sh -n                    prints the Markdown instead
#   scripts/bench.sh [-n] PATTERN PKG…     others, as in go test -bench PATTERN PKG…; these are printed, not written
#
#   STHENO_BENCH_COUNT    how often each runs (default 5)
#   STHENO_BENCH_TIME     for how long each time (default 1s)
#
# The machine should be idle. Memory for GPT-2's shape on plain nodes: about 6 GiB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

print=0
if [[ ${1:-} = -n ]]; then print=1; shift; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go build -o "$work/benchmd" ./scripts/benchmd

# kernel [NAME] has the following benchmarks ask for an instruction set, or for none.
kernel() {
  if [[ -n ${1:-} ]]; then export STHENO_KERNEL=$1; else unset STHENO_KERNEL; fi
  echo "kernel: ${1:-}" >>"$work/raw"
}

# bench PATTERN PKG… adds to the raw results. Each package has a process of its own, one after the other.
bench() {
  local pattern=$1
  shift
  go test -run '^$' -bench "$pattern" -count "${STHENO_BENCH_COUNT:-5}" -benchtime "${STHENO_BENCH_TIME:-1s}" -timeout 6h -p 1 "$@" |
    tee -a "$work/raw" >&2
}

if (( $# )); then
  print=1
  bench "$@"
else
  # Of the grid of attention, one width at three lengths and one length at four widths.
  bench '^Benchmark(Forward|Backward)$/seq=(512|1024|4096)$/d=64$|^Benchmark(Forward|Backward)$/seq=1024$/d=(80|96|128)$|^BenchmarkNodes$|^BenchmarkLong$' ./ops/flashattn
  bench '^BenchmarkForward$/^precision=/seq=(1024|4096)$' ./ops/flashattn
  bench '^BenchmarkLinear$' ./ops
  bench '^BenchmarkMatMul$' ./ops/quantize
  bench '^BenchmarkDecode$' ./ops/kvcompress
  bench '^(BenchmarkGround|BenchmarkPool)$' ./ops/grounding
  for isa in avx512 avx2; do
    grep -q "^flags.*\b${isa/avx512/avx512f}\b" /proc/cpuinfo || continue
    kernel "$isa"
    bench '^Benchmark(Forward|Backward)$/seq=(1024|4096)$/d=64$' ./ops/flashattn
    bench '^BenchmarkLinear$/m=512$' ./ops
  done
  kernel
  bench '^(BenchmarkBlock|BenchmarkTrainStep|BenchmarkPrefill|BenchmarkGenerate)$' .
fi

commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
[[ -z $(git status --porcelain --untracked-files=no 2>/dev/null) ]] || commit="$commit with changes"
"$work/benchmd" -commit "$commit" <"$work/raw" >"$work/performance.md"
if (( print )); then
  cat "$work/performance.md"
else
  cp "$work/performance.md" docs/performance.md
fi
