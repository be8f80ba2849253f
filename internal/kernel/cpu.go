package kernel

import (
	"fmt"
	"os"
	"strings"
)

// ISA is an instruction set that a family of kernels is written for.
type ISA int

// The instruction sets, from the portable one upwards. A machine runs the last one it supports.
const (
	Generic ISA = iota // portable Go, always compiled; the reference for the others
	NEON               // arm64 Advanced SIMD
	AVX2               // amd64 AVX2 with FMA3 and F16C
	AVX512             // amd64 AVX-512 F, BW, DQ and VL
)

// EnvISA names the environment variable that selects an instruction set below the best supported one. Where there are matrix tiles,
// which AVX512 then uses, "amx" asks for them and "avx512" for AVX-512 alone.
const EnvISA = "STHENO_KERNEL"

// nameAMX is AVX512 with the tiles of AMX.
const nameAMX = "amx"

var isaNames = [...]string{"generic", "neon", "avx2", "avx512"}

// String returns the name that EnvISA accepts.
func (i ISA) String() string {
	if i < 0 || int(i) >= len(isaNames) {
		return fmt.Sprintf("ISA(%d)", int(i))
	}
	return isaNames[i]
}

var active, activeErr = choose(os.Getenv(EnvISA), Supported(), haveMatrices)

// noMatrices turns products in tiles off.
var noMatrices = strings.EqualFold(os.Getenv(EnvISA), AVX512.String())

// Active returns the instruction set whose kernels run in this process.
func Active() ISA { return active }

// ActiveErr reports why the request in EnvISA could not be honoured, nil when it could.
// The process then runs on the best supported set.
func ActiveErr() error { return activeErr }

// Supported lists what this machine and this build can run, Generic first, the fastest last.
func Supported() []ISA { return append([]ISA{Generic}, supportedSIMD()...) }

// choose resolves a request (empty: the best) against what is supported.
func choose(request string, supported []ISA, matrices func() bool) (ISA, error) {
	best := supported[len(supported)-1]
	if request == "" {
		return best, nil
	}
	var names []string
	for _, s := range supported {
		if strings.EqualFold(request, s.String()) {
			return s, nil
		}
		names = append(names, s.String())
	}
	if best == AVX512 && matrices() {
		if strings.EqualFold(request, nameAMX) {
			return best, nil
		}
		names = append(names, nameAMX)
	}
	return best, fmt.Errorf("kernel: %s=%q is not supported here, want one of %s; using %s", EnvISA, request, strings.Join(names, ", "), best)
}

// Use makes the kernels of isa the active ones until restore is called. It is for tests and benchmarks that compare
// instruction sets: it must not run while kernels do.
func Use(isa ISA) (restore func(), err error) {
	for _, s := range Supported() {
		if s == isa {
			old := active
			active = isa
			return func() { active = old }, nil
		}
	}
	return nil, fmt.Errorf("kernel: %s is not supported here", isa)
}
