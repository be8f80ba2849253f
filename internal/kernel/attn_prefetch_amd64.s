//go:build !purego

#include "textflag.h"

// func prefetch(x uintptr, stride, rows, bytes int)
TEXT ·prefetch(SB), NOSPLIT, $0-32
	MOVQ x+0(FP), SI
	MOVQ stride+8(FP), DX
	MOVQ rows+16(FP), CX
	MOVQ bytes+24(FP), BX
	LEAQ -1(SI)(BX*1), DI // the row's last byte

row:
	MOVQ SI, AX

line:
	PREFETCHT1 (AX)
	ADDQ       $64, AX
	CMPQ       AX, DI
	JLS        line
	PREFETCHT1 (DI) // the line that a row which begins inside one ends in
	ADDQ       DX, SI
	ADDQ       DX, DI
	DECQ       CX
	JNZ        row
	RET
