// Command vmlinux takes the uncompressed kernel out of a Linux x86 bzImage.
//
//	vmlinux BZIMAGE VMLINUX
//
// The kernel would unpack itself at boot; doing it once, outside the emulator, saves most of the boot time.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
)

// Offsets into the setup header (Linux Documentation/arch/x86/boot.rst).
const (
	offSetupSects    = 0x1f1 // uint8: 512-byte sectors of real-mode code after the first; 0 means 4
	offMagic         = 0x202 // "HdrS"
	offPayload       = 0x248 // uint32: start of the payload in the protected-mode code
	offPayloadLength = 0x24c // uint32
	headerEnd        = 0x268
)

// decompressors maps the first bytes of a payload to the command that unpacks it from stdin to stdout.
var decompressors = []struct {
	magic string
	argv  []string
}{
	{"\x02\x21\x4c\x18", []string{"lz4", "-dc"}},
	{"\xfd7zXZ\x00", []string{"xz", "-dc"}},
	{"\x28\xb5\x2f\xfd", []string{"zstd", "-dc"}},
}

func main() {
	if len(os.Args) != 3 {
		fatal(fmt.Errorf("got %d arguments, want BZIMAGE VMLINUX", len(os.Args)-1))
	}
	img, err := os.ReadFile(os.Args[1])
	if err != nil {
		fatal(err)
	}
	p, err := payload(img)
	if err != nil {
		fatal(fmt.Errorf("%s: %w", os.Args[1], err))
	}
	elf, err := unpack(p)
	if err != nil {
		fatal(fmt.Errorf("%s: %w", os.Args[1], err))
	}
	if err := os.WriteFile(os.Args[2], elf, 0o644); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "vmlinux:", err)
	os.Exit(1)
}

// payload returns the compressed kernel within a bzImage.
func payload(img []byte) ([]byte, error) {
	if len(img) < headerEnd || string(img[offMagic:offMagic+4]) != "HdrS" {
		return nil, fmt.Errorf("no setup header, want a bzImage")
	}
	sects := int(img[offSetupSects])
	if sects == 0 {
		sects = 4
	}
	start := (sects+1)*512 + int(binary.LittleEndian.Uint32(img[offPayload:]))
	n := int(binary.LittleEndian.Uint32(img[offPayloadLength:]))
	if n < 4 || start+n > len(img) {
		return nil, fmt.Errorf("got a payload of %d bytes at %d in a file of %d", n, start, len(img))
	}
	return img[start : start+n-4], nil // the last 4 bytes are the unpacked size, which no format knows about
}

// unpack runs the decompressor that the payload's first bytes ask for and checks that an ELF file came out.
func unpack(p []byte) ([]byte, error) {
	for _, d := range decompressors {
		if !bytes.HasPrefix(p, []byte(d.magic)) {
			continue
		}
		cmd := exec.Command(d.argv[0], d.argv[1:]...)
		cmd.Stdin = bytes.NewReader(p)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.argv[0], err)
		}
		if !bytes.HasPrefix(out, []byte("\x7fELF")) {
			return nil, fmt.Errorf("%s: got %d bytes that are no ELF file", d.argv[0], len(out))
		}
		return out, nil
	}
	return nil, fmt.Errorf("got a payload that begins with % x, want lz4, xz or zstd", p[:min(6, len(p))])
}
