//go:build !purego

package kernel

import "golang.org/x/sys/cpu"

func supportedSIMD() []ISA {
	var s []ISA
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		s = append(s, AVX2)
		if cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL {
			s = append(s, AVX512)
		}
	}
	return s
}
