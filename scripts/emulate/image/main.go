// Command image writes the memory of a machine that is about to start Linux: a file with every byte of RAM, from 1 MiB
// on, that the kernel needs. The emulator loads it as it is, so no disk, firmware or boot loader takes part.
//
//	image -kernel VMLINUX -init INIT -o RAM [flags] BINARY [ARGS…]
//
// Layout, by physical address:
//
//	0x100000  page tables, one to one: the first GiB and the top 2 MiB below 4 GiB (reset.s)
//	0x104000  hand-over record for reset.s
//	0x105000  boot parameters (the "zero page")
//	0x106000  kernel command line
//	16 MiB…   the kernel's segments where its ELF headers want them
//	then      the initial file system (cpio.go), and the magic word that ends the image
package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

const (
	base       = 0x100000 // of the image
	pageTables = 0x100000
	record     = 0x104000
	bootParams = 0x105000
	cmdlineAt  = 0x106000
	ownEnd     = 0x200000 // first address after the above that the kernel may use
	cmdlineMax = 2048

	magic     = 0x6f6e6568 // must equal MAGIC in reset.s
	pageSize  = 1 << 12
	largePage = 1 << 21
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

type config struct {
	kernel, init, out, dir, cmdline string
	megabytes                       int
	env                             list
	binary                          string
	args                            []string
}

func main() {
	var c config
	flag.StringVar(&c.kernel, "kernel", "", "uncompressed kernel, an ELF `file`")
	flag.StringVar(&c.init, "init", "", "static `program` that the kernel starts first")
	flag.StringVar(&c.out, "o", "", "memory image to write")
	flag.StringVar(&c.dir, "dir", "", "`folder` to copy in as the binary's working directory")
	flag.StringVar(&c.cmdline, "cmdline", "", "kernel command `line`")
	flag.IntVar(&c.megabytes, "memory", 512, "size of the machine's memory in `MiB`, at most 1024")
	flag.Var(&c.env, "env", "`KEY=VALUE` for the binary's environment; may be repeated")
	flag.Parse()
	if flag.NArg() == 0 || c.kernel == "" || c.init == "" || c.out == "" {
		flag.Usage()
		os.Exit(2)
	}
	c.binary, c.args = flag.Arg(0), flag.Args()[1:]
	if err := write(c); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func write(c config) (err error) {
	if c.megabytes < 64 || c.megabytes > 1024 {
		return fmt.Errorf("got %d MiB of memory, want 64 to 1024", c.megabytes)
	}
	if len(c.cmdline) >= cmdlineMax {
		return fmt.Errorf("got a command line of %d bytes, want less than %d", len(c.cmdline), cmdlineMax)
	}
	initrd, err := fileSystem(c)
	if err != nil {
		return err
	}
	f, err := os.Create(c.out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()

	entry, end, err := putKernel(f, c.kernel)
	if err != nil {
		return fmt.Errorf("%s: %w", c.kernel, err)
	}
	initrdAt := roundUp(end, largePage)
	imageEnd := roundUp(initrdAt+uint64(len(initrd))+4, pageSize)
	// Unpacking the file system takes its size once more, and the binary needs room to run.
	if need := imageEnd + uint64(len(initrd)) + 64<<20; need > uint64(c.megabytes)<<20 {
		return fmt.Errorf("got %d MiB of memory, want at least %d", c.megabytes, need>>20+1)
	}

	var handOver [16]byte
	binary.LittleEndian.PutUint32(handOver[0:], magic)
	binary.LittleEndian.PutUint32(handOver[4:], uint32(imageEnd))
	binary.LittleEndian.PutUint32(handOver[8:], uint32(entry))
	binary.LittleEndian.PutUint32(handOver[12:], bootParams)
	for _, part := range []struct {
		at   uint64
		data []byte
	}{
		{pageTables, tables()},
		{record, handOver[:]},
		{bootParams, parameters(initrdAt, uint64(len(initrd)), uint64(c.megabytes)<<20)},
		{cmdlineAt, append([]byte(c.cmdline), 0)},
		{initrdAt, initrd},
		{imageEnd - 4, binary.LittleEndian.AppendUint32(nil, magic)},
	} {
		if _, err := f.WriteAt(part.data, int64(part.at-base)); err != nil {
			return err
		}
	}
	return nil
}

// putKernel copies the kernel's loadable segments to their physical addresses and returns its entry point and the first
// address after it, zero-filled data included.
func putKernel(w io.WriterAt, name string) (entry, end uint64, err error) {
	k, err := elf.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer k.Close()
	if k.Machine != elf.EM_X86_64 {
		return 0, 0, fmt.Errorf("got a kernel for %v, want %v", k.Machine, elf.EM_X86_64)
	}
	for _, p := range k.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if p.Paddr < ownEnd {
			return 0, 0, fmt.Errorf("got a segment at %#x, want none below %#x", p.Paddr, uint64(ownEnd))
		}
		data, err := io.ReadAll(p.Open())
		if err != nil {
			return 0, 0, err
		}
		if _, err := w.WriteAt(data, int64(p.Paddr-base)); err != nil {
			return 0, 0, err
		}
		end = max(end, p.Paddr+p.Memsz)
	}
	if end == 0 || end > 1<<29 {
		return 0, 0, fmt.Errorf("got a kernel that ends at %#x, want one in the first 512 MiB", end)
	}
	return k.Entry, end, nil
}

// tables returns four pages of page tables that map the first GiB and the last 2 MiB below 4 GiB to themselves, in pages of
// 2 MiB. They lie at pageTables: the level-4 table, the level-3 table, and the level-2 tables of GiB 0 and GiB 3.
func tables() []byte {
	const (
		present, write, large = 1, 2, 1 << 7
		level4, level3        = 0, pageSize
		low, high             = 2 * pageSize, 3 * pageSize
	)
	t := make([]byte, 4*pageSize)
	put := func(table, index int, v uint64) { binary.LittleEndian.PutUint64(t[table+8*index:], v|present|write) }
	put(level4, 0, pageTables+level3)
	put(level3, 0, pageTables+low)
	put(level3, 3, pageTables+high)
	for i := range 512 {
		put(low, i, uint64(i)*largePage|large)
	}
	put(high, 511, 1<<32-largePage|large)
	return t
}

// parameters returns the boot parameters (Linux Documentation/arch/x86/zero-page.rst): where the command line and the initial
// file system are, and a memory map.
func parameters(initrdAt, initrdLen, memory uint64) []byte {
	p := make([]byte, pageSize)
	put32 := func(at int, v uint64) { binary.LittleEndian.PutUint32(p[at:], uint32(v)) }
	binary.LittleEndian.PutUint16(p[0x1fe:], 0xaa55)
	copy(p[0x202:], "HdrS")
	p[0x210] = 0xff // loader without a number of its own
	put32(0x218, initrdAt)
	put32(0x21c, initrdLen)
	put32(0x228, cmdlineAt)
	put32(0x230, largePage) // kernel alignment
	put32(0x238, cmdlineMax-1)

	const usable = 1
	regions := [][2]uint64{{pageSize, 0x9f000}, {ownEnd, memory}}
	p[0x1e8] = byte(len(regions))
	b := bytes.NewBuffer(p[:0x2d0]) // writes into p, which has room for 128 regions
	for _, r := range regions {
		entry := binary.LittleEndian.AppendUint64(nil, r[0])
		entry = binary.LittleEndian.AppendUint64(entry, r[1]-r[0])
		b.Write(binary.LittleEndian.AppendUint32(entry, usable))
	}
	return p
}

func roundUp(n, unit uint64) uint64 { return (n + unit - 1) / unit * unit }
