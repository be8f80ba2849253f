// Package cudamodules runs CUDA kernels without a CUDA toolkit and without cgo: the driver is opened at run time, and the kernels
// are embedded as PTX, which the driver compiles for the card it finds.
//
//	driver, err := cudamodules.Open()          // ErrNoDriver, ErrNoDevice, ErrOldDriver …
//	device, err := driver.Device(0)
//	ctx, err := device.Context()
//	defer ctx.Close()
//	mod, err := ctx.Load("norm")               // one of Modules
//	f, err := mod.Function("rmsnorm_f32")
//	err = f.Launch(cudamodules.Geometry{Grid: [3]int{rows}, Block: [3]int{256}}, y, x, gamma, int64(rows), int64(dim), 1e-6)
//
// A failure is an error that says which call of the driver failed and with which code; errors.Is tells the kinds apart. Launches
// on one stream run in order, and an error of a kernel shows at the next call that waits for it.
//
// # Kernels
//
// The sources are in src, one file a module. src/common.cuh says how they are written: each parameter takes 8 bytes, so that
// gorgonia.org/cu can launch them as well. scripts/regen-ptx.sh compiles them into ptx, with clang and no SDK. The very same
// sources compile for the host, where package emulator runs them, thread by thread: that is how they are tested on machines
// without a card.
package cudamodules
