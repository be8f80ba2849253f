#!/usr/bin/env bash
# Checks the whole module the way CI does.
#
#   scripts/check.sh              every stage
#   scripts/check.sh STAGE…       only these
#   scripts/check.sh -l           lists the stages
#
# A stage that fails shows its output and the others go on; the last line counts them. What a machine cannot do (no emulator,
# no C compiler for the race detector) is left out, with the reason. It takes less than 25 minutes on two cores.
#
#   STHENO_CHECK_FUZZ       time for each fuzz target (default 8s)
#   STHENO_CHECK_CUDA       long: kernels on more inputs, in many more schedules of threads (default short)
#   STHENO_CHECK_EMULATE    seconds for the tests on the emulated AVX-512 machine (default 420)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stages=(
  format
  vet
  test
  purego
  kernels
  generated
  race
  arm64
  cross
  fuzz
  avx512
  cuda
  example
  notebooks
)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# skip ends a stage that this machine cannot run.
skip() { echo "$*" >"$work/skipped"; exit 77; }

go_files() { find . -name '*.go' -not -path './.git/*'; }

# modules lists the folders of this module and the modules nested in it that can be built by themselves. The replacement of
# gorgonia.org/cu cannot: the stage cuda builds it.
modules() { find . -name go.mod -not -path './.git/*' -not -path './cudamodules/cu/*' -printf '%h\n' | sort; }

check_format() {
  local bad
  bad=$(go_files | xargs gofmt -l)
  [[ -z $bad ]] || { echo "gofmt would change:"; echo "$bad"; return 1; }
}

# verify compares the modules in the cache with go.sum. This module, which nested ones replace by its folder, cannot be looked
# up there: its path has no dot.
verify() {
  local bad
  bad=$(go mod verify 2>&1 >/dev/null | grep -v -e '^stheno v0\.0\.0-' -e '^go: downloading')
  [[ -z $bad ]] || { echo "$bad"; return 1; }
}

check_vet() {
  local m
  for m in $(modules); do (cd "$m" && go vet ./... && verify) || return 1; done
}

# The README's test command.
check_test() { go test ./...; }

# The portable code, which is what every machine without assembly of its own runs.
check_purego() { go vet -tags purego ./... && go test -tags purego ./...; }

# The kernels, and the nodes on top of them, on each instruction set that this machine can choose. Go would take the nodes' results
# from the stage before, as the variable is read before tests begin: hence -count=1.
check_kernels() {
  local isa
  for isa in generic avx2 avx512; do
    [[ $isa = generic ]] || grep -qw "${isa/avx512/avx512vl}" /proc/cpuinfo 2>/dev/null || continue
    echo "STHENO_KERNEL=$isa"
    STHENO_KERNEL=$isa go test ./internal/kernel && STHENO_KERNEL=$isa go test -short -count=1 ./ops/... || return 1
  done
}

# Generated files are what their generators write now.
check_generated() {
  local m
  for m in $(modules); do
    [[ $m = . ]] || (cd "$m" && go test ./...) || return 1
  done
}

# What runs on several goroutines, under the race detector.
check_race() {
  [[ $(go env CGO_ENABLED) = 1 ]] && command -v "$(go env CC)" >/dev/null || skip "the race detector wants a C compiler"
  go test -race ./internal/parallel ./internal/op ./ops/kvcompress &&
    go test -race -run 'Thread|Concurren|Machines|BitEqual|Bits|Parallel|Resume|Session|Race|AtOnce' ./ops ./ops/flashattn ./ops/quantize ./ops/grounding . ./internal/kernel
}

# The arm64 build, its tests on an emulated processor unless this is one.
check_arm64() {
  local packages=(./internal/... ./ops/... .)
  if [[ $(go env GOHOSTARCH) = arm64 ]]; then
    go test "${packages[@]}"
  elif command -v qemu-aarch64-static >/dev/null; then
    GOARCH=arm64 CGO_ENABLED=0 go test -short -timeout 15m -exec qemu-aarch64-static "${packages[@]}"
  else
    skip "no qemu-aarch64-static (Debian package qemu-user-static)"
  fi
}

check_cross() {
  local os arch
  for os in linux darwin windows; do
    for arch in amd64 arm64; do
      echo "$os/$arch"
      GOOS=$os GOARCH=$arch CGO_ENABLED=0 go build ./... && GOOS=$os GOARCH=$arch CGO_ENABLED=0 go vet ./... || return 1
    done
  done
}

# Every fuzz target for a moment, from the corpus that is in the tree.
check_fuzz() {
  local file name
  while IFS=: read -r file name; do
    echo "$name in $(dirname "$file")"
    go test -run '^$' -fuzz "^$name\$" -fuzztime "${STHENO_CHECK_FUZZ:-8s}" -fuzzminimizetime 10x "$(dirname "$file")" || return 1
  done < <(grep -rHoE '^func Fuzz[A-Za-z0-9_]*' --include='*_test.go' . | sed 's/func //' | sort)
}

# The AVX-512 kernels where the machine has none: on an emulated one, some hundred times slower, with the sizes of -short. It
# has one processor, so tests about threads and the collector say nothing there.
check_avx512() {
  grep -qw avx512vl /proc/cpuinfo 2>/dev/null && skip "this machine has AVX-512: the stages test and kernels ran it"
  [[ $(uname -sm) = "Linux x86_64" ]] || skip "the emulator wants Linux on amd64"
  command -v bochs >/dev/null || [[ $(id -u) = 0 ]] || skip "no emulator (Debian packages bochs and bochs-term)"
  CGO_ENABLED=0 go test -c -o "$work/kernel.test" ./internal/kernel || return 1
  local code=0
  scripts/emulate.sh -t "${STHENO_CHECK_EMULATE:-420}" STHENO_KERNEL=avx512 "$work/kernel.test" -test.short -test.v \
    -test.skip 'Threads|Allocations|Collector|Exhaustive|NotOverflow|NearestEven' >"$work/avx512" 2>&1 || code=$?
  # 125: there is no emulated machine here, which says nothing about the kernels.
  (( code != 125 )) || { tail -n 3 "$work/avx512"; skip "the emulated machine did not start: $(tail -n 1 "$work/avx512")"; }
  grep -E '^(---|ok|PASS|FAIL|panic)' "$work/avx512" | tail -n 40
  if (( code == 124 )); then
    grep -q '^--- FAIL' "$work/avx512" && return 1
    skip "no end within ${STHENO_CHECK_EMULATE:-420} s; $(grep -c '^--- PASS' "$work/avx512") tests passed, none failed"
  fi
  (( code == 0 )) || { tail -n 60 "$work/avx512"; return 1; }
}

# The build for CUDA and its tests, with kernels on the emulated card. Neither a card nor a toolkit is needed, but Gorgonia's own
# files for that build use cgo.
check_cuda() {
  [[ $(uname -s) = Linux ]] || skip "the emulated card wants Linux"
  [[ $(go env CGO_ENABLED) = 1 ]] && command -v "$(go env CC)" >/dev/null || skip "Gorgonia's files for CUDA want a C compiler"
  command -v "${CXX:-g++}" >/dev/null || skip "the emulated card wants a C++ compiler (Debian package g++)"
  local tags=(-tags cuda -modfile=go.cuda.mod) short=(-short)
  [[ ${STHENO_CHECK_CUDA:-short} != long ]] || short=()
  command -v "${CLANG:-clang++-19}" >/dev/null || echo "no clang 19: PTX is compared by the hash of its sources only"
  go build "${tags[@]}" ./... &&
    go vet "${tags[@]}" ./cudamodules/... ./internal/op . ./ops/... gorgonia.org/cu gorgonia.org/cu/blas gorgonia.org/cu/dnn &&
    STHENO_CHECK_CUDA=${STHENO_CHECK_CUDA:-short} go test "${short[@]}" ./cudamodules/... &&
    go test "${tags[@]}" ./internal/card || return 1
  # Each test of nodes has a schedule of threads by its name; the long set moves all of them through the others.
  local schedule
  for schedule in 0 1 2 3 4 5; do
    STHENO_SCHEDULE=$schedule go test "${tags[@]}" -run 'OnTheCard|GiveTheCardBack' . ./internal/op ./ops/... || return 1
    [[ ${STHENO_CHECK_CUDA:-short} = long ]] || break
  done
}

# The examples from end to end, at sizes that take seconds.
check_example() {
  local sizes=(-layers 1 -dim 32 -heads 2 -seq 64 -batch 2 -tokens 16 -steps 20)
  go run ./examples/gotext "${sizes[@]}" -save "$work/w.safetensors" -out "$work/pictures" &&
    go run ./examples/gotext -load "$work/w.safetensors" -seq 64 -tokens 16 -compare=false -out '' &&
    go run ./examples/gotext "${sizes[@]}" -arch gpt2 -data docs -compare=false -out '' &&
    [[ -s $work/pictures/loss.png && -s $work/pictures/comparison.png ]] &&
    go run ./examples/grounding -steps 20 -scenes 8 -out "$work/grounding"
}

# The notebooks, from end to end, on a kernel that is built for it. Bindings are compared in the stage generated.
check_notebooks() {
  if [[ ! -x /usr/bin/jupyter-nbconvert ]] && ! jupyter nbconvert --version >/dev/null 2>&1; then
    [[ $(id -u) = 0 ]] && command -v apt-get >/dev/null || skip "no jupyter nbconvert (Debian packages jupyter-client jupyter-nbconvert python3-nbclient python3-nbconvert)"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends jupyter-client jupyter-nbconvert python3-nbclient \
      python3-nbconvert >/dev/null || skip "jupyter nbconvert could not be installed"
  fi
  examples/notebooks/run.sh
}

case ${1:-} in
  -l) printf '%s\n' "${stages[@]}"; exit 0 ;;
  -*) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2 ;;
esac
(( $# )) && stages=("$@")

passed=0 failed=0 begun=$SECONDS
for stage in "${stages[@]}"; do
  declare -F "check_$stage" >/dev/null || { echo "check.sh: got stage $stage, want one of those that -l lists" >&2; exit 2; }
done
for stage in "${stages[@]}"; do
  start=$SECONDS code=0
  ("check_$stage") >"$work/log" 2>&1 || code=$?
  took=$((SECONDS - start))
  case $code in
    0) passed=$((passed + 1)); printf 'ok    %-10s %4d s\n' "$stage" "$took" ;;
    77) printf 'skip  %-10s %4d s  %s\n' "$stage" "$took" "$(cat "$work/skipped")" ;;
    *) failed=$((failed + 1)); printf 'FAIL  %-10s %4d s\n' "$stage" "$took"; tail -n 200 "$work/log" ;;
  esac
done
printf '\n%d s in all\n%d passed, %d failed\n' "$((SECONDS - begun))" "$passed" "$failed"
(( failed == 0 ))
