package cudamodules

import (
	"errors"
	"fmt"
	"strings"
)

// What can go wrong, for errors.Is. Each error also carries the driver's own code and name as an *Error where there is one.
var (
	ErrNoDriver    = errors.New("no CUDA driver on this machine")
	ErrNoDevice    = errors.New("no CUDA device")
	ErrOldDriver   = errors.New("the CUDA driver is too old")
	ErrOutOfMemory = errors.New("out of device memory")
	// ErrLaunch is a kernel that could not be started, or that failed while it ran. After the latter every call on the context
	// fails: close it.
	ErrLaunch = errors.New("kernel launch failed")
	ErrBadPTX = errors.New("the driver does not take the module")
	ErrClosed = errors.New("used after Close")
)

// Result is a CUresult.
type Result int32

// Error is a call of the driver that failed.
type Error struct {
	Call string // the function of the driver API, such as cuMemAlloc_v2
	Code Result
	Text string // the driver's own description, where it has one
}

func (e *Error) Error() string {
	s := fmt.Sprintf("cudamodules: %s: %s (%d)", e.Call, e.Code, int32(e.Code))
	if e.Text != "" {
		s += ": " + e.Text
	}
	return s
}

// Is makes errors.Is(err, ErrOutOfMemory) and the like work.
func (e *Error) Is(target error) bool {
	kind := resultKinds[e.Code]
	if kind == nil && strings.HasPrefix(e.Call, "cuLaunch") {
		kind = ErrLaunch
	}
	return kind != nil && target == kind
}

// String is the name that CUDA's headers give the code.
func (r Result) String() string {
	if name, ok := resultNames[r]; ok {
		return name
	}
	return fmt.Sprintf("CUresult %d", int32(r))
}

const (
	success     Result = 0
	outOfMemory Result = 2
	notReady    Result = 600
)

var resultKinds = map[Result]error{
	2:  ErrOutOfMemory,
	34: ErrNoDriver, // the toolkit's stub library
	35: ErrOldDriver, 222: ErrOldDriver, 803: ErrOldDriver, 804: ErrOldDriver,
	100: ErrNoDevice,
	200: ErrBadPTX, 209: ErrBadPTX, 218: ErrBadPTX,
	700: ErrLaunch, 701: ErrLaunch, 702: ErrLaunch, 703: ErrLaunch, 710: ErrLaunch, 714: ErrLaunch, 715: ErrLaunch, 716: ErrLaunch,
	717: ErrLaunch, 718: ErrLaunch, 719: ErrLaunch, 720: ErrLaunch,
}

var resultNames = map[Result]string{
	0:   "CUDA_SUCCESS",
	1:   "CUDA_ERROR_INVALID_VALUE",
	2:   "CUDA_ERROR_OUT_OF_MEMORY",
	3:   "CUDA_ERROR_NOT_INITIALIZED",
	4:   "CUDA_ERROR_DEINITIALIZED",
	34:  "CUDA_ERROR_STUB_LIBRARY",
	35:  "CUDA_ERROR_INSUFFICIENT_DRIVER",
	46:  "CUDA_ERROR_DEVICE_UNAVAILABLE",
	100: "CUDA_ERROR_NO_DEVICE",
	101: "CUDA_ERROR_INVALID_DEVICE",
	200: "CUDA_ERROR_INVALID_IMAGE",
	201: "CUDA_ERROR_INVALID_CONTEXT",
	209: "CUDA_ERROR_NO_BINARY_FOR_GPU",
	214: "CUDA_ERROR_ECC_UNCORRECTABLE",
	218: "CUDA_ERROR_INVALID_PTX",
	222: "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
	304: "CUDA_ERROR_OPERATING_SYSTEM",
	400: "CUDA_ERROR_INVALID_HANDLE",
	401: "CUDA_ERROR_ILLEGAL_STATE",
	500: "CUDA_ERROR_NOT_FOUND",
	600: "CUDA_ERROR_NOT_READY",
	700: "CUDA_ERROR_ILLEGAL_ADDRESS",
	701: "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
	702: "CUDA_ERROR_LAUNCH_TIMEOUT",
	703: "CUDA_ERROR_LAUNCH_INCOMPATIBLE_TEXTURING",
	709: "CUDA_ERROR_CONTEXT_IS_DESTROYED",
	710: "CUDA_ERROR_ASSERT",
	714: "CUDA_ERROR_HARDWARE_STACK_ERROR",
	715: "CUDA_ERROR_ILLEGAL_INSTRUCTION",
	716: "CUDA_ERROR_MISALIGNED_ADDRESS",
	717: "CUDA_ERROR_INVALID_ADDRESS_SPACE",
	718: "CUDA_ERROR_INVALID_PC",
	719: "CUDA_ERROR_LAUNCH_FAILED",
	720: "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE",
	800: "CUDA_ERROR_NOT_PERMITTED",
	801: "CUDA_ERROR_NOT_SUPPORTED",
	802: "CUDA_ERROR_SYSTEM_NOT_READY",
	803: "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
	804: "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
	999: "CUDA_ERROR_UNKNOWN",
}
