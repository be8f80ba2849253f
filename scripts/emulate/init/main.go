//go:build linux

// Command init is the first and only process of the emulated machine besides the binary it starts: it mounts what a Go
// program expects to find, runs /binary with /args and /env in /work, says how that ended, and reboots, which ends the
// emulation.
//
// The binary's output goes to the second serial port. The first is the console: kernel messages and init's own words, of
// which the last is "emulate: exit N". N follows the shell: the binary's exit status, or 128 plus the signal that ended it.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"unsafe"
)

const outputPort = "/dev/ttyS1"

func main() {
	code, err := run()
	if err != nil {
		fmt.Println("emulate:", err)
	} else {
		fmt.Println("emulate: exit", code)
	}
	syscall.Sync()
	drain(os.Stdout)
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
}

func run() (int, error) {
	for _, m := range []struct{ kind, at string }{
		{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"},
	} {
		if err := syscall.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return 0, fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	out, err := os.OpenFile(outputPort, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return 0, err
	}
	if err := raw(out); err != nil {
		return 0, fmt.Errorf("%s: %w", outputPort, err)
	}
	args, err := zeroEnded("/args")
	if err != nil {
		return 0, err
	}
	env, err := zeroEnded("/env")
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("/binary", args...)
	cmd.Env = append([]string{"HOME=/tmp", "TMPDIR=/tmp", "USER=root"}, env...)
	cmd.Dir = "/work"
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	drain(out)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return 0, err
	}
	if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// zeroEnded reads a file of strings that each end in a zero byte.
func zeroEnded(name string) ([]string, error) {
	b, err := os.ReadFile(name)
	if err != nil || len(b) == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}

// raw makes a serial port pass bytes on as they are, without turning "\n" into "\r\n".
func raw(f *os.File) error {
	var t syscall.Termios
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TCGETS, uintptr(unsafe.Pointer(&t))); errno != 0 {
		return errno
	}
	const baudMask = 0x100f // CBAUD
	t.Oflag &^= syscall.OPOST
	t.Lflag &^= syscall.ECHO | syscall.ICANON | syscall.ISIG
	t.Cflag = t.Cflag&^baudMask | syscall.B115200 | syscall.CLOCAL
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TCSETS, uintptr(unsafe.Pointer(&t))); errno != 0 {
		return errno
	}
	return nil
}

// drain waits until a serial port has sent everything. A port that cannot say so has nothing more to give.
func drain(f *os.File) {
	const tcsbrk = 0x5409 // with argument 1: wait, and send no break
	_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), tcsbrk, 1)
}
