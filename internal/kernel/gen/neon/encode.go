package main

import "fmt"

// form is a vector instruction: the name by which Go's assembler knows it, or else the bits of its word with all registers 0.
type form struct {
	native string
	word   uint32
	shapes [3]string // of destination, first and second source in the mnemonic
}

func native(name, shape string) form {
	return form{native: name, shapes: [3]string{shape, shape, shape}}
}

func coded(word uint32, shape string) form {
	return form{word: word, shapes: [3]string{shape, shape, shape}}
}

// threes are instructions d = n op m; fmla, fmls and bsl read d too.
var threes = map[string]form{
	"fadd":    coded(0x4e20d400, "4s"),
	"fsub":    coded(0x4ea0d400, "4s"),
	"fmul":    coded(0x6e20dc00, "4s"),
	"fdiv":    coded(0x6e20fc00, "4s"),
	"fmax":    coded(0x4e20f400, "4s"), // a NaN where either is
	"fmin":    coded(0x4ea0f400, "4s"),
	"fmaxnm":  coded(0x4e20c400, "4s"), // the number where the other is a NaN
	"faddp":   coded(0x6e20d400, "4s"), // sums of neighbours of n, then of m
	"fmaxnmp": coded(0x6e20c400, "4s"),
	"fcmeq":   coded(0x4e20e400, "4s"),
	"fcmge":   coded(0x6e20e400, "4s"),
	"fcmgt":   coded(0x6ea0e400, "4s"),
	"cmhi":    coded(0x6ea03400, "4s"), // unsigned n > m
	"bic":     coded(0x4e601c00, "16b"),
	"umull":   {word: 0x2ea0c000, shapes: [3]string{"2d", "2s", "2s"}},
	"umull2":  {word: 0x6ea0c000, shapes: [3]string{"2d", "4s", "4s"}},

	"fmla": native("VFMLA", "S4"),
	"fmls": native("VFMLS", "S4"),
	"add":  native("VADD", "S4"),
	"sub":  native("VSUB", "S4"),
	"and":  native("VAND", "B16"),
	"orr":  native("VORR", "B16"),
	"eor":  native("VEOR", "B16"),
	"bsl":  native("VBSL", "B16"),
	"zip1": native("VZIP1", "S4"),
	"zip2": native("VZIP2", "S4"),
	"uzp1": native("VUZP1", "S4"),
	"uzp2": native("VUZP2", "S4"),
	"trn1": native("VTRN1", "S4"),
	"trn2": native("VTRN2", "S4"),

	"trn1.2d": native("VTRN1", "D2"),
	"trn2.2d": native("VTRN2", "D2"),
}

// twos are instructions d = op n.
var twos = map[string]form{
	"fsqrt": coded(0x6ea1f800, "4s"),
	"fabs":  coded(0x4ea0f800, "4s"),
	"fneg":  coded(0x6ea0f800, "4s"),
	"mov":   native("VMOV", "B16"),
}

// scalars are instructions on vector registers that clear all lanes of d but the first.
var scalars = map[string]struct {
	word   uint32
	source string // how the mnemonic names n
}{
	"fmov":    {0x1e204000, "s%d"},
	"fmaxv":   {0x6e30f800, "v%d.4s"},
	"fmaxnmv": {0x6e30c800, "v%d.4s"},
}

// coding is a word with its mnemonic in the margin.
func coding(word uint32, format string, args ...any) string {
	return fmt.Sprintf("WORD $0x%08x // ", word) + fmt.Sprintf(format, args...)
}

func three(name string, d, n, m int) string {
	f, ok := threes[name]
	if !ok {
		panic("neon: no instruction " + name)
	}
	if f.native != "" {
		return fmt.Sprintf("%s V%d.%s, V%d.%s, V%d.%s", f.native, m, f.shapes[2], n, f.shapes[1], d, f.shapes[0])
	}
	return coding(f.word|uint32(m)<<16|uint32(n)<<5|uint32(d), "%s v%d.%s, v%d.%s, v%d.%s", name, d, f.shapes[0], n, f.shapes[1], m, f.shapes[2])
}

func two(name string, d, n int) string {
	if s, ok := scalars[name]; ok {
		return coding(s.word|uint32(n)<<5|uint32(d), "%s s%d, "+s.source, name, d, n)
	}
	f, ok := twos[name]
	if !ok {
		panic("neon: no instruction " + name)
	}
	if f.native != "" {
		return fmt.Sprintf("%s V%d.%s, V%d.%s", f.native, n, f.shapes[1], d, f.shapes[0])
	}
	return coding(f.word|uint32(n)<<5|uint32(d), "%s v%d.%s, v%d.%s", name, d, f.shapes[0], n, f.shapes[1])
}

// fmlaLane is d += n·m[lane].
func fmlaLane(d, n, m, lane int) string {
	return coding(0x4f801000|uint32(lane&1)<<21|uint32(lane>>1)<<11|uint32(m)<<16|uint32(n)<<5|uint32(d),
		"fmla v%d.4s, v%d.4s, v%d.s[%d]", d, n, m, lane)
}

// fmulLane is d = n·m[lane].
func fmulLane(d, n, m, lane int) string {
	return coding(0x4f809000|uint32(lane&1)<<21|uint32(lane>>1)<<11|uint32(m)<<16|uint32(n)<<5|uint32(d),
		"fmul v%d.4s, v%d.4s, v%d.s[%d]", d, n, m, lane)
}

func shiftLeft(d, n, by int) string { return fmt.Sprintf("VSHL $%d, V%d.S4, V%d.S4", by, n, d) }

// shiftRightInt keeps the sign.
func shiftRightInt(d, n, by int) string {
	return coding(0x4f000400|uint32(64-by)<<16|uint32(n)<<5|uint32(d), "sshr v%d.4s, v%d.4s, #%d", d, n, by)
}

// spread fills d with a lane of n.
func spread(d, n, lane int) string { return fmt.Sprintf("VDUP V%d.S[%d], V%d.S4", n, lane, d) }
