package cudamodules

import "unsafe"

// api is the part of the CUDA driver API that this package calls. The tag is the symbol in the library: the versioned names are
// the ones that a driver of any age since 3.2 exports and that mean the same in all of them.
type api struct {
	init               func(flags uint32) Result                                                                               `cuda:"cuInit"`
	driverGetVersion   func(version *int32) Result                                                                             `cuda:"cuDriverGetVersion"`
	getErrorName       func(code Result, name **byte) Result                                                                   `cuda:"cuGetErrorName"`
	getErrorString     func(code Result, text **byte) Result                                                                   `cuda:"cuGetErrorString"`
	deviceGetCount     func(n *int32) Result                                                                                   `cuda:"cuDeviceGetCount"`
	deviceGet          func(device *int32, ordinal int32) Result                                                               `cuda:"cuDeviceGet"`
	deviceGetName      func(name *byte, size int32, device int32) Result                                                       `cuda:"cuDeviceGetName"`
	deviceTotalMem     func(bytes *uintptr, device int32) Result                                                               `cuda:"cuDeviceTotalMem_v2"`
	deviceGetAttribute func(value *int32, attribute Attribute, device int32) Result                                            `cuda:"cuDeviceGetAttribute"`
	primaryRetain      func(context *uintptr, device int32) Result                                                             `cuda:"cuDevicePrimaryCtxRetain"`
	primaryRelease     func(device int32) Result                                                                               `cuda:"cuDevicePrimaryCtxRelease_v2"`
	ctxCreate          func(context *uintptr, flags uint32, device int32) Result                                               `cuda:"cuCtxCreate_v2"`
	ctxDestroy         func(context uintptr) Result                                                                            `cuda:"cuCtxDestroy_v2"`
	ctxPush            func(context uintptr) Result                                                                            `cuda:"cuCtxPushCurrent_v2"`
	ctxPop             func(context *uintptr) Result                                                                           `cuda:"cuCtxPopCurrent_v2"`
	ctxSynchronize     func() Result                                                                                           `cuda:"cuCtxSynchronize"`
	memGetInfo         func(free, total *uintptr) Result                                                                       `cuda:"cuMemGetInfo_v2"`
	memAlloc           func(p *Ptr, bytes uintptr) Result                                                                      `cuda:"cuMemAlloc_v2"`
	memAllocManaged    func(p *Ptr, bytes uintptr, flags uint32) Result                                                        `cuda:"cuMemAllocManaged"`
	memFree            func(p Ptr) Result                                                                                      `cuda:"cuMemFree_v2"`
	memcpyHtoD         func(dst Ptr, src unsafe.Pointer, bytes uintptr) Result                                                 `cuda:"cuMemcpyHtoD_v2"`
	memcpyDtoH         func(dst unsafe.Pointer, src Ptr, bytes uintptr) Result                                                 `cuda:"cuMemcpyDtoH_v2"`
	memcpyDtoDAsync    func(dst, src Ptr, bytes uintptr, stream uintptr) Result                                                `cuda:"cuMemcpyDtoDAsync_v2"`
	memsetD8Async      func(dst Ptr, value uint8, bytes uintptr, stream uintptr) Result                                        `cuda:"cuMemsetD8Async"`
	moduleLoadData     func(module *uintptr, image *byte) Result                                                               `cuda:"cuModuleLoadData"`
	moduleUnload       func(module uintptr) Result                                                                             `cuda:"cuModuleUnload"`
	moduleGetFunction  func(function *uintptr, module uintptr, name string) Result                                             `cuda:"cuModuleGetFunction"`
	funcGetAttribute   func(value *int32, attribute funcAttribute, function uintptr) Result                                    `cuda:"cuFuncGetAttribute"`
	funcSetAttribute   func(function uintptr, attribute funcAttribute, value int32) Result                                     `cuda:"cuFuncSetAttribute"`
	launchKernel       func(f uintptr, gx, gy, gz, bx, by, bz, shared uint32, s uintptr, params, extra *unsafe.Pointer) Result `cuda:"cuLaunchKernel"`
	streamCreate       func(stream *uintptr, flags uint32) Result                                                              `cuda:"cuStreamCreate"`
	streamDestroy      func(stream uintptr) Result                                                                             `cuda:"cuStreamDestroy_v2"`
	streamQuery        func(stream uintptr) Result                                                                             `cuda:"cuStreamQuery"`
	streamSynchronize  func(stream uintptr) Result                                                                             `cuda:"cuStreamSynchronize"`
	streamWaitEvent    func(stream, event uintptr, flags uint32) Result                                                        `cuda:"cuStreamWaitEvent"`
	eventCreate        func(event *uintptr, flags uint32) Result                                                               `cuda:"cuEventCreate"`
	eventDestroy       func(event uintptr) Result                                                                              `cuda:"cuEventDestroy_v2"`
	eventRecord        func(event, stream uintptr) Result                                                                      `cuda:"cuEventRecord"`
	eventSynchronize   func(event uintptr) Result                                                                              `cuda:"cuEventSynchronize"`
	eventElapsed       func(milliseconds *float32, start, end uintptr) Result                                                  `cuda:"cuEventElapsedTime"`
}

// funcAttribute is a CUfunction_attribute.
type funcAttribute int32

const (
	funcMaxThreads       funcAttribute = 0
	funcStaticShared     funcAttribute = 1
	funcLocalBytes       funcAttribute = 3
	funcRegisters        funcAttribute = 4
	funcMaxDynamicShared funcAttribute = 8
)

// Attribute is a CUdevice_attribute.
type Attribute int32

// The attributes of a device that geometry and choice of kernels depend on.
const (
	MaxThreadsPerBlock     Attribute = 1
	MaxBlockDimX           Attribute = 2
	MaxBlockDimY           Attribute = 3
	MaxBlockDimZ           Attribute = 4
	MaxGridDimX            Attribute = 5
	MaxGridDimY            Attribute = 6
	MaxGridDimZ            Attribute = 7
	WarpSize               Attribute = 10
	MultiprocessorCount    Attribute = 16
	L2CacheBytes           Attribute = 38
	ComputeCapabilityMajor Attribute = 75
	ComputeCapabilityMinor Attribute = 76
	ManagedMemory          Attribute = 83
	MaxSharedPerBlockOptin Attribute = 97
)
