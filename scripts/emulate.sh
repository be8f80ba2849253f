#!/usr/bin/env bash
# Runs a static Linux program, such as a Go test binary, on an emulated CPU that has AVX-512.
#
#   scripts/emulate.sh [-t SECONDS] [-m MEGABYTES] [-d FOLDER] [-c MODEL] [KEY=VALUE…] BINARY [ARGS…]
#
#   -t  give up after this much wall time and exit with 124 (default 600)
#   -m  memory of the machine in MiB, 64 to 1024 (default 512)
#   -d  folder to copy in as the working directory, for tests that read testdata
#   -c  CPU model of the emulator: corei7_skylake_x (the default: AVX-512 F, CD, BW, DQ, VL) or corei7_icelake_u (VNNI, too;
#       a Go program must then be built with GOEXPERIMENT=nogreenteagc, see below). None has BF16.
#
# For example, a package's tests on their AVX-512 path:
#
#   CGO_ENABLED=0 go test -c -o kernel.test ./internal/kernel
#   scripts/emulate.sh STHENO_KERNEL=avx512 kernel.test -test.v -test.run 'Dot|Axpy'
#
# BINARY sees GOMAXPROCS=1, the caller's STHENO_* and GO* settings named below, and every KEY=VALUE given. Its output goes to
# standard output as it comes, and the script exits as it did (128 + n for signal n). If the machine did not get as far as an
# exit status, its console is shown and the script exits with 125.
#
# The emulator (Bochs) interprets about 50 million instructions a second, 25 to 200 times slower than the real
# thing, and its clock counts instructions, so benchmarks mean nothing here. Starting the machine takes a few seconds.
#
# Wanted: bochs with its terminal display, binutils, lz4, Go, and Debian's package tools for the kernel. As root on Debian,
# what is missing is installed. $STHENO_EMULATE_KERNEL may name an x86-64 bzImage to use instead of Debian's; the unpacked
# kernel is kept in ${XDG_CACHE_HOME:-~/.cache}/stheno-emulate.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/stheno-emulate

# The emulated clock: this many instructions are one second. It is close to what Bochs reaches, so that timeouts and sleeps
# inside the machine last about as long as they say.
readonly ips=50000000

readonly passed_on='^(STHENO_[A-Z0-9_]*|GODEBUG|GOGC|GOMEMLIMIT|GOTRACEBACK)='

fail() { echo "emulate.sh: $*" >&2; exit 125; }

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }

# require makes sure that every command of the form COMMAND:PACKAGE is there.
require() {
  local missing=() packages=() want
  for want; do
    command -v "${want%%:*}" >/dev/null || { missing+=("${want%%:*}"); packages+=("${want#*:}"); }
  done
  # The terminal display is a plugin in a package of its own; without it, Bochs would want a screen.
  if command -v dpkg-query >/dev/null && ! dpkg-query -W -f '${Status}' bochs-term 2>/dev/null | grep -q ' installed'; then
    missing+=("bochs's terminal display"); packages+=(bochs-term)
  fi
  (( ${#missing[@]} )) || return 0
  if [[ $(id -u) = 0 ]] && command -v apt-get >/dev/null; then
    { apt-get update -q && apt-get install -q -y --no-install-recommends "${packages[@]}"; } >&2 ||
      fail "could not install: ${packages[*]}"
  else
    fail "missing: ${missing[*]} (Debian packages: ${packages[*]})"
  fi
}

# fetch_kernel prints the name of a bzImage: Debian's kernel for virtual machines, downloaded without installing it.
fetch_kernel() {
  local meta=linux-image-cloud-amd64 package dir=$1
  require apt-get:apt dpkg:dpkg
  package=$(apt-cache depends "$meta" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
  if [[ -z $package ]]; then
    [[ $(id -u) = 0 ]] && apt-get update -q >&2
    package=$(apt-cache depends "$meta" | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
  fi
  [[ -n $package ]] || fail "apt knows no package $meta: run apt-get update"
  (cd "$dir" && { apt-get download -qq "$package" || { apt-get update -q && apt-get download -qq "$package"; }; } >&2) ||
    fail "could not download $package"
  dpkg -x "$dir/$package"_*.deb "$dir/root" >&2
  echo "$dir"/root/boot/vmlinuz-*
}

# prepare_kernel leaves an uncompressed kernel in the cache. The last step is a rename, so two runs at once do no harm.
prepare_kernel() {
  local image=${STHENO_EMULATE_KERNEL:-}
  if [[ -n $image ]]; then
    kernel=$work/vmlinux
    "$work/vmlinux-tool" "$image" "$kernel"
    return
  fi
  kernel=$cache/vmlinux
  [[ -s $kernel ]] && return
  image=$(fetch_kernel "$work")
  mkdir -p "$cache"
  "$work/vmlinux-tool" "$image" "$kernel.$$"
  mv "$kernel.$$" "$kernel"
}

seconds=600 memory=512 folder='' model=corei7_skylake_x
while getopts 't:m:d:c:h' option; do
  case $option in
    t) seconds=$OPTARG ;;
    m) memory=$OPTARG ;;
    d) folder=$OPTARG ;;
    c) model=$OPTARG ;;
    h) usage; exit 0 ;;
    *) usage >&2; exit 125 ;;
  esac
done
shift $((OPTIND - 1))

settings=(-env GOMAXPROCS=1)
while IFS= read -r -d '' pair; do
  if [[ $pair =~ $passed_on ]]; then settings+=(-env "$pair"); fi
done < <(env -0)
while [[ ${1:-} =~ ^[A-Za-z_][A-Za-z0-9_]*= ]]; do settings+=(-env "$1"); shift; done
(( $# )) || { usage >&2; exit 125; }
[[ -r $1 ]] || fail "cannot read the binary $1"

require bochs:bochs as:binutils ld:binutils lz4:lz4 timeout:coreutils
command -v go >/dev/null || fail "missing: go"

# Go 1.26's garbage collector uses GFNI and AVX512VBMI where it finds them, and Bochs 2.7 gets one of the instructions wrong:
# the heap is soon corrupt. Skylake has neither extension. No GODEBUG setting hides them, so the binary must be built without
# that collector to run on a later model.
if [[ $model != corei7_skylake_x ]] && go version -m "$1" >/dev/null 2>&1 &&
   ! go version -m "$1" | grep -q 'GOEXPERIMENT=.*nogreenteagc'; then
  fail "for -c $model, build $1 with GOEXPERIMENT=nogreenteagc"
fi

work=$(mktemp -d)
machine=''
clean_up() {
  [[ -z $machine ]] || kill -KILL -- "-$machine" 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

tool() { (cd "$here/.." && CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -o "$work/$1" "./scripts/emulate/$2"); }
tool vmlinux-tool vmlinux
tool image-tool image
tool init init
as --64 -o "$work/reset.o" "$here/emulate/reset.s"
ld -m elf_x86_64 -Ttext=0xfffff000 --oformat binary -o "$work/reset.rom" "$work/reset.o"
prepare_kernel

# Kernel settings, by purpose.
cmdline=(
  # The console is for kernel messages of the gravest kind and for init.
  console=ttyS0,115200 quiet loglevel=1 8250.nr_uarts=2 rdinit=/init
  # There is no ACPI, no PCI and no interrupt controller but the oldest. A panic or reboot resets the machine, which ends it.
  pci=off nolapic idle=halt reboot=t panic=-1
  # Time comes from the instruction counter. Its frequency is $ips, whatever CPUID says.
  tsc=reliable "tsc_early_khz=$((ips / 1000))"
  # What Bochs reports but Linux cannot use: PKU (515), XSAVES and XSAVEC (323, 321) have the wrong state sizes, the APERF and
  # performance counters (124, 107) do not exist. With all of UMIP, RDPID, LA57, FSGSBASE, IBT and FSRM (514, 534, 528, 288,
  # 596, 580) the kernel of a later model than Skylake loses its per-CPU base while it starts; which of them does it is not known.
  clearcpuid=515,323,321,124,107,514,534,528,288,596,580 nofsgsbase
  # Nothing here needs protection, and a random seed is at hand.
  mitigations=off random.trust_cpu=on lsm=capability init_on_alloc=0 nowatchdog
  # These would take most of the time to boot.
  cryptomgr.notests
  initcall_blacklist=load_system_certificate_list,trace_eval_init,init_kprobe_trace,cubictcp_register
)

"$work/image-tool" -kernel "$kernel" -init "$work/init" -o "$work/ram" -memory "$memory" -dir "$folder" \
  -cmdline "${cmdline[*]}" "${settings[@]}" -- "$@" || fail "could not make the memory image"

mkfifo "$work/output"
cat > "$work/bochsrc" <<BOCHSRC
config_interface: textconfig
display_library: term
cpu: model=$model, count=1, ips=$ips, reset_on_triple_fault=1
megs: $memory
romimage: file="$work/reset.rom"
optramimage1: file="$work/ram", address=0x100000
clock: sync=none, time0=utc
com1: enabled=1, mode=file, dev="$work/console"
com2: enabled=1, mode=file, dev="$work/output"
log: "$work/log"
panic: action=fatal
error: action=ignore
info: action=ignore
BOCHSRC

cat "$work/output" &
reader=$!

# Debian's Bochs starts in its debugger, where "c" means "continue"; others ignore their standard input. It catches SIGTERM.
# timeout(1) leads a process group of its own, which is what clean_up ends.
TERM=vt100 timeout -s KILL "$seconds" bochs -q -f "$work/bochsrc" <<<c >"$work/display" 2>&1 &
machine=$!
status=0
{ wait "$machine" || status=$?; } 2>/dev/null # without bash's word about a killed job
machine=''

# A last writer, so that the reader sees an end even if the machine never started.
: 3<>"$work/output"
wait "$reader" || true

# Bochs leaves with status 1 when the guest switches itself off, so only the console tells how things went.
touch "$work/console" # Bochs creates it with the first byte
code=$(tr -d '\r' <"$work/console" | sed -n 's/^emulate: exit \([0-9]*\)$/\1/p' | tail -n 1)
if [[ -n $code ]]; then
  exit "$code"
elif (( status == 137 )); then
  echo "emulate.sh: no end after $seconds s" >&2
  exit 124
fi
tail -n 20 "$work/display" "$work/log" >&2 || true
cat "$work/console" >&2
fail "the machine stopped before $1 ended"
