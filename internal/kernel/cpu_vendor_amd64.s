//go:build !purego

#include "textflag.h"

// func cpuVendorBytes(name *[12]byte)
TEXT ·cpuVendorBytes(SB), NOSPLIT, $0-8
	XORL AX, AX
	XORL CX, CX
	CPUID
	MOVQ name+0(FP), DI
	MOVL BX, (DI)
	MOVL DX, 4(DI)
	MOVL CX, 8(DI)
	RET
