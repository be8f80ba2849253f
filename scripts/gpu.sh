#!/usr/bin/env bash
# The checks and figures that want a real card, in the order of what is to be known first if there are only ten minutes on one.
#
#   scripts/gpu.sh build [FOLDER]    builds what runs on the card's machine (default folder: gpu), which needs no Go and no CUDA toolkit there
#   scripts/gpu.sh run [FOLDER]      on the machine with the card; FOLDER/results.txt has everything, FOLDER/table.md the figures
#   scripts/gpu.sh                   both
#   scripts/gpu.sh dry [FOLDER]      both on the emulated card, with -short, to see that it would run
#
# Wanted: Go and a C compiler to build; an NVIDIA driver of 12.0 or later to run. To another machine, copy the folder, which has this
# script: ./gpu.sh run .
#
# The parts, each of which goes on if another fails or does not end:
#
#   kernels       every kernel against float64 on the CPU
#   speed         figures of kernels and memory, kernels.test alone
#   pytorch       its attention and products, where PyTorch is
#   nodes …       graphs on the card against the CPU
#   again         kernels a second time
#   sanitizer …   compute-sanitizer's memcheck, racecheck and initcheck of the kernels, where it is
#
# STHENO_GPU_PART_SECONDS bounds a part (default 180). Not covered: attention over a compressed cache in large, whole models.
set -uo pipefail

step=${1:-all} folder=${2:-gpu}
case $step in
  build | run | all | dry) ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2 ;;
esac

if [[ $step != run ]]; then
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  mkdir -p "$folder"
  folder=$(cd "$folder" && pwd)
  (cd "$root" &&
    go test -c -o "$folder/kernels.test" ./cudamodules/emulator &&
    for package in ops internal/op ops/flashattn ops/quantize ops/kvcompress ops/grounding internal/card .; do
      name=${package//\//-}
      go test -c -tags cuda -modfile=go.cuda.mod -o "$folder/${name/#./stheno}.test" "./$package" || exit 1
    done &&
    cp scripts/gpu.sh "$folder/" &&
    git rev-parse --short HEAD >"$folder/commit") || exit 1
  if [[ $step = dry ]]; then
    STHENO_LIBCUDA=$(cd "$root" && go run ./cudamodules/emulator/library) || exit 1
    export STHENO_EMULATED_CAPABILITY=${STHENO_EMULATED_CAPABILITY:-90}
  fi
fi
[[ $step != build ]] || exit 0

export STHENO_LIBCUDA=${STHENO_LIBCUDA:-libcuda.so.1}
cd "$folder" || exit 1
export STHENO_CARD_TABLE=$PWD/table.md
short=()
[[ $step != dry ]] || short=(-test.short)
: >summary

# part NAME COMMAND… runs a part and goes on.
part() {
  local name=$1 begun=$SECONDS code=0 how
  shift
  echo; echo "== $name: $*"
  timeout -k 10 "${STHENO_GPU_PART_SECONDS:-180}" "$@" || code=$?
  case $code in
    0) how=passed ;;
    124 | 137) how='FAILED: no end' ;;
    *) how="FAILED: status $code" ;;
  esac
  printf '%-24s %-22s %4d s\n' "$name" "$how" "$((SECONDS - begun))" >>summary
}
left_out() { printf '%-24s left out: %s\n' "$1" "$2" >>summary; }

pytorch() {
  cat <<'PYTHON'
import statistics, torch
from torch.nn.attention import SDPBackend, sdpa_kernel
card = "cuda"
cold = torch.empty(256 << 20, dtype=torch.uint8, device=card)
def median(f):
    times = []
    for i in range(23):
        cold.fill_(i)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record(); f(); end.record(); end.synchronize()
        if i >= 3: times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)
def line(what, work, unit, f):
    try:
        t = median(f)
        print(f"| {what} | {t * 1e6:.1f} µs | | {work / t:.4g} {unit} |", flush=True)
    except Exception as e:
        print(f"| {what} | not to be had: {str(e).splitlines()[0]} | | |", flush=True)
print(f"\nPyTorch {torch.__version__}, {torch.cuda.get_device_name()}\n\n| what | median | | rate |\n|---|---|---|---|")
for seq in (2048, 16384):
    for d in (64, 128):
        q, k, v = (torch.randn(1, 16, seq, d, device=card, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        do = torch.randn_like(q)
        work = 2 * seq * seq * d * 16 / 1e12
        for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
            with sdpa_kernel(backend):
                attend = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
                def forward():
                    with torch.no_grad(): attend()
                what = f"{backend.name}, BF16, causal, {seq} × 16 heads of {d}"
                line(what, work, "TFLOP/s", forward)
                try: out = attend()
                except Exception: continue
                line("its gradient", 2.5 * work, "TFLOP/s", lambda: torch.autograd.grad(out, (q, k, v), do, retain_graph=True))
n = 4096
for dtype in (torch.float32, torch.bfloat16):
    a, b = (torch.randn(n, n, device=card, dtype=dtype) for _ in range(2))
    line(f"product in {dtype}, {n}³", 2 * n ** 3 / 1e12, "TFLOP/s", lambda: a @ b)
a, b = (torch.randint(-127, 128, (n, n), device=card, dtype=torch.int8) for _ in range(2))
line(f"INT8 × INT8, {n}³", 2 * n ** 3 / 1e12, "TOP/s", lambda: torch._int_mm(a, b.t()))
PYTHON
}

{
  echo "commit $(cat commit), $(date -u +%Y-%m-%d)"
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.sm,power.limit --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"
  # Those tests are about the emulated card itself, or read its sources.
  kernels=("${short[@]}" -test.count=1 -test.skip 'Fault|EachModule|BuildErrors|CardSpeed')
  part kernels ./kernels.test "${kernels[@]}"
  part speed ./kernels.test -test.v -test.run CardSpeed
  if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    pytorch >pytorch.py
    part pytorch python3 pytorch.py
  else
    left_out pytorch "no PyTorch that sees a card"
  fi
  for binary in *.test; do
    [[ $binary = kernels.test ]] || part "nodes ${binary%.test}" "./$binary" "${short[@]}" -test.count=1 -test.run 'OnTheCard|GiveTheCardBack|SharedMemory' \
      -test.skip OrExplained # it reads sources
  done
  part again ./kernels.test "${kernels[@]}"
  for tool in memcheck racecheck initcheck; do
    if command -v compute-sanitizer >/dev/null; then
      part "sanitizer $tool" compute-sanitizer --tool "$tool" --error-exitcode 1 ./kernels.test -test.short "${kernels[@]}"
    else
      left_out "sanitizer $tool" "no compute-sanitizer"
    fi
  done
  echo; echo "== summary"
  cat summary
} 2>&1 | tee results.txt
! grep -q FAILED summary
