package cu

import "stheno/cudamodules"

func ptr(p DevicePtr) cudamodules.Ptr { return cudamodules.Ptr(p) }

// Module is a loaded file of kernels.
type Module struct{ m *cudamodules.Module }

// Function is a kernel.
type Function struct{ f *cudamodules.Function }

// LoadData loads PTX on the current card.
func LoadData(ptx string) (Module, error) {
	ctx, err := currentContext()
	if err != nil {
		return Module{}, err
	}
	m, err := ctx.LoadPTX("module", ptx)
	return Module{m}, err
}

// Unload gives the module back.
func (m Module) Unload() error {
	if m.m == nil {
		return nil
	}
	return m.m.Close()
}

// Function finds a kernel.
func (m Module) Function(name string) (Function, error) {
	if m.m == nil {
		return Function{}, errNoContext
	}
	f, err := m.m.Function(name)
	return Function{f}, err
}

// Stream is always the default stream here.
type Stream struct{}

// NoStream is the default stream.
var NoStream Stream
