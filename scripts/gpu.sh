#!/usr/bin/env bash
# The checks and figures that want a real card.
#
#   scripts/gpu.sh build [FOLDER]    builds the test binaries (default folder: gpu), which need no Go and no CUDA toolkit where they run
#   scripts/gpu.sh run [FOLDER]      on the machine with the card: kernels and graphs against the CPU, then with compute-sanitizer
#                                    where it is, then speed; results in FOLDER/results.txt
#   scripts/gpu.sh                   both
#
# Wanted: Go and a C compiler to build; an NVIDIA driver of 12.0 or later to run. To another machine, copy the folder and this script.
#
# Not covered yet: the bars of attention in BF16 and of decoding, which have no kernels, and PyTorch beside them.
set -uo pipefail

step=${1:-all} folder=${2:-gpu}
case $step in
  build | run | all) ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2 ;;
esac

if [[ $step != run ]]; then
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  mkdir -p "$folder"
  folder=$(cd "$folder" && pwd)
  (cd "$root" &&
    go test -c -o "$folder/kernels.test" ./cudamodules/emulator &&
    go test -c -tags cuda -modfile=go.cuda.mod -o "$folder/ops.test" ./ops &&
    go test -c -tags cuda -modfile=go.cuda.mod -o "$folder/op.test" ./internal/op &&
    go test -c -tags cuda -modfile=go.cuda.mod -o "$folder/flashattn.test" ./ops/flashattn &&
    go test -c -tags cuda -modfile=go.cuda.mod -o "$folder/decoder.test" . &&
    git rev-parse --short HEAD >"$folder/commit") || exit 1
fi
[[ $step != build ]] || exit 0

export STHENO_LIBCUDA=${STHENO_LIBCUDA:-libcuda.so.1}
cd "$folder" || exit 1
# Those tests are about the emulated card itself.
kernels=(-test.skip 'Fault|EachBarrier|HeldAfterClose|BuildErrors')
report() { echo; echo "== $*"; "$@" || echo "FAILED: $*"; }
{
  echo "commit $(cat commit), $(date -u +%Y-%m-%d)"
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"
  for run in 1 2; do report ./kernels.test -test.count=1 "${kernels[@]}"; done
  report ./op.test -test.run 'OnTheCard|GiveTheCardBack'
  report ./ops.test -test.run OnTheCard
  report ./flashattn.test -test.run OnTheCard
  report ./decoder.test -test.run OnTheCard
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck; do
      report compute-sanitizer --tool "$tool" --error-exitcode 1 ./kernels.test -test.short -test.count=1 "${kernels[@]}"
    done
  else
    echo "no compute-sanitizer: memcheck, racecheck and initcheck left out"
  fi
  report ./kernels.test -test.run '^$' -test.bench BenchmarkCard -test.benchtime 50x -test.count 3
} 2>&1 | tee results.txt
grep -q '^FAILED' results.txt && exit 1
exit 0
