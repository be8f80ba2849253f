package cu

import (
	"fmt"

	"stheno/cudamodules"
)

// Device is the number of a card, or CPU.
type Device int32

// CPU is not a card.
const CPU Device = -1

// BadDevice is no device at all.
const BadDevice Device = -2

func (d Device) String() string {
	if d == CPU {
		return "CPU"
	}
	return fmt.Sprintf("GPU(%d)", int(d))
}

// IsGPU says whether d is a card.
func (d Device) IsGPU() bool { return d >= 0 }

// NumDevices counts the cards. Without a driver it is an error, such as cudamodules.ErrNoDriver.
func NumDevices() (int, error) {
	driver, err := cudamodules.Open()
	if err != nil {
		return 0, err
	}
	return driver.Devices(), nil
}

// GetDevice is card i.
func GetDevice(i int) (Device, error) {
	if _, err := Device(i).open(); err != nil {
		return BadDevice, err
	}
	return Device(i), nil
}

func (d Device) open() (*cudamodules.Device, error) {
	driver, err := cudamodules.Open()
	if err != nil {
		return nil, err
	}
	return driver.Device(int(d))
}

// Name is the card's name.
func (d Device) Name() (string, error) {
	dev, err := d.open()
	if err != nil {
		return "", err
	}
	return dev.Name(), nil
}

// DeviceAttribute is a property of a card.
type DeviceAttribute int

// The properties that Gorgonia asks for, with the numbers of CUDA.
const (
	MaxThreadsPerBlock     = DeviceAttribute(cudamodules.MaxThreadsPerBlock)
	MaxBlockDimX           = DeviceAttribute(cudamodules.MaxBlockDimX)
	MaxBlockDimY           = DeviceAttribute(cudamodules.MaxBlockDimY)
	MaxBlockDimZ           = DeviceAttribute(cudamodules.MaxBlockDimZ)
	MaxGridDimX            = DeviceAttribute(cudamodules.MaxGridDimX)
	MaxGridDimY            = DeviceAttribute(cudamodules.MaxGridDimY)
	MaxGridDimZ            = DeviceAttribute(cudamodules.MaxGridDimZ)
	WarpSize               = DeviceAttribute(cudamodules.WarpSize)
	ComputeCapabilityMajor = DeviceAttribute(cudamodules.ComputeCapabilityMajor)
	ComputeCapabilityMinor = DeviceAttribute(cudamodules.ComputeCapabilityMinor)
)

// Attributes asks for several properties.
func (d Device) Attributes(attributes ...DeviceAttribute) ([]int, error) {
	dev, err := d.open()
	if err != nil {
		return nil, err
	}
	values := make([]int, len(attributes))
	for i, a := range attributes {
		if values[i], err = dev.Attribute(cudamodules.Attribute(a)); err != nil {
			return nil, err
		}
	}
	return values, nil
}
