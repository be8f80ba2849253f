package cudamodules

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"unsafe"
)

// LibraryVar names the environment variable that says which library to open instead of the machine's CUDA driver.
const LibraryVar = "STHENO_LIBCUDA"

// minVersion is the oldest driver that takes the PTX of this package (ISA 7.0 came with CUDA 11.0, but 12.0 is what is tested).
const minVersion = 12000

// Driver is the CUDA driver of this machine. It has no state to release, and any number of goroutines may use it.
type Driver struct {
	api     *api
	version int
	devices int

	warpgroups struct {
		sync.Mutex
		verdicts map[int32]verdict // by device
	}
}

var opened struct {
	sync.Mutex
	byPath map[string]*Driver
}

// Open finds the driver (libcuda.so.1, or what the environment variable STHENO_LIBCUDA names) and starts it. The driver of a
// process is opened once; later calls return the same one, while one that failed is tried again.
//
// Errors are ErrNoDriver, ErrOldDriver, ErrNoDevice, or another *Error of the driver.
func Open() (*Driver, error) {
	path := os.Getenv(LibraryVar)
	if path == "" {
		path = libraryName
	}
	return OpenLibrary(path)
}

// OpenLibrary is Open for a library by name.
func OpenLibrary(path string) (*Driver, error) {
	opened.Lock()
	defer opened.Unlock()
	if d := opened.byPath[path]; d != nil {
		return d, nil
	}
	a, err := load(path)
	if err != nil {
		return nil, err
	}
	d, err := start(a)
	if err != nil {
		return nil, err
	}
	if opened.byPath == nil {
		opened.byPath = map[string]*Driver{}
	}
	opened.byPath[path] = d
	return d, nil
}

// start initialises a driver and sees what there is.
func start(a *api) (*Driver, error) {
	d := &Driver{api: a}
	// The version is known even where cuInit fails, and says more than the failure does.
	var version, n int32
	if err := d.check("cuDriverGetVersion", a.driverGetVersion(&version)); err != nil {
		return nil, err
	}
	d.version = int(version)
	if err := d.check("cuInit", a.init(0)); err != nil {
		return nil, err
	}
	if d.version < minVersion {
		return nil, fmt.Errorf("cudamodules: %w: got version %s, want %s or later", ErrOldDriver, versionString(d.version), versionString(minVersion))
	}
	if err := d.check("cuDeviceGetCount", a.deviceGetCount(&n)); err != nil {
		return nil, err
	}
	if n < 1 {
		return nil, fmt.Errorf("cudamodules: %w: the driver (version %s) counts none", ErrNoDevice, versionString(d.version))
	}
	d.devices = int(n)
	return d, nil
}

func versionString(v int) string { return fmt.Sprintf("%d.%d", v/1000, v%1000/10) }

// Version is the CUDA version that the driver serves, as in 12040 for 12.4.
func (d *Driver) Version() int { return d.version }

// Devices is the number of devices, at least 1.
func (d *Driver) Devices() int { return d.devices }

// check makes an error of a result that is not success.
func (d *Driver) check(call string, r Result) error {
	if r == success {
		return nil
	}
	e := &Error{Call: call, Code: r}
	var text *byte
	if d.api.getErrorString != nil && d.api.getErrorString(r, &text) == success {
		e.Text = goString(text)
	}
	return e
}

// goString copies a NUL-terminated string of at most a kilobyte.
func goString(p *byte) string {
	if p == nil {
		return ""
	}
	var s []byte
	for i := 0; i < 1024; i++ {
		c := *(*byte)(unsafe.Add(unsafe.Pointer(p), i))
		if c == 0 {
			break
		}
		s = append(s, c)
	}
	return string(s)
}

// Device is one card.
type Device struct {
	driver *Driver
	id     int32
	name   string
	memory int64
}

// Device opens card i, counted from 0.
func (d *Driver) Device(i int) (*Device, error) {
	if i < 0 || i >= d.devices {
		return nil, fmt.Errorf("cudamodules: %w: got device %d, want 0 to %d", ErrNoDevice, i, d.devices-1)
	}
	dev := &Device{driver: d}
	if err := d.check("cuDeviceGet", d.api.deviceGet(&dev.id, int32(i))); err != nil {
		return nil, err
	}
	name := make([]byte, 256)
	if err := d.check("cuDeviceGetName", d.api.deviceGetName(&name[0], int32(len(name)), dev.id)); err != nil {
		return nil, err
	}
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	dev.name = string(name)
	var total uintptr
	if err := d.check("cuDeviceTotalMem_v2", d.api.deviceTotalMem(&total, dev.id)); err != nil {
		return nil, err
	}
	dev.memory = int64(total)
	return dev, nil
}

// Name is the card's name.
func (d *Device) Name() string { return d.name }

// Memory is the card's memory in bytes.
func (d *Device) Memory() int64 { return d.memory }

// Attribute asks for one of the card's properties.
func (d *Device) Attribute(a Attribute) (int, error) {
	var v int32
	err := d.driver.check("cuDeviceGetAttribute", d.driver.api.deviceGetAttribute(&v, a, d.id))
	return int(v), err
}

// Capability is the compute capability times ten: 80 for 8.0.
func (d *Device) Capability() (int, error) {
	major, err := d.Attribute(ComputeCapabilityMajor)
	if err != nil {
		return 0, err
	}
	minor, err := d.Attribute(ComputeCapabilityMinor)
	return major*10 + minor, err
}
