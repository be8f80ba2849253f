package main

import (
	"fmt"
	"math"
)

// kernel is a function on vectors and how Go calls it. A chunked one is elementwise over n elements: the caller cuts long
// slices so that no call keeps the garbage collector waiting. doc continues the function's name.
type kernel struct {
	name, params, result, doc string
	chunked                   bool
	body                      func(k *K)
}

// K writes the body of one function in vectors without register numbers; finish assigns those.
type K struct {
	*file
	code      []instruction
	loops     [][2]int // of code, inner ones before those around them
	vectors   int      // V made so far
	pinned    map[[4]uint32]V
	general   [30]bool // general registers in use
	constants bool     // whether the table of constants is read
}

// V is a vector of four words, or a constant one. What returns a V made a new one.
type V struct {
	id    int
	bits  [4]uint32
	fixed bool
}

// C is the vector that holds x four times.
func C(x float64) V { return Bits(math.Float32bits(float32(x))) }

// Bits is the vector that holds a word four times.
func Bits(w uint32) V { return Words(w, w, w, w) }

// Words is a vector of words, the first at the lowest address.
func Words(a, b, c, d uint32) V { return V{bits: [4]uint32{a, b, c, d}, fixed: true} }

// instruction is a line of code, and the vectors in it.
type instruction struct {
	v    []int
	text func(r []int) string // from the registers of v
}

// General registers that a kernel may not use: R18 is the platform's, R27 the assembler's, R28 holds the goroutine.
const (
	tableBase   gp = 26
	lastGeneral    = 25
	platformGP     = 18
)

// kernel writes a function to the file.
func (f *file) kernel(fn kernel) {
	f.function(fn.name, fn.params, fn.result, fn.doc)
	k := &K{file: f, pinned: make(map[[4]uint32]V)}
	k.general[platformGP] = true
	fn.body(k)
	k.line("RET")
	k.finish()
}

// finish assigns registers and writes the code.
func (k *K) finish() {
	first, last := make([]int, k.vectors), make([]int, k.vectors)
	for v := range first {
		first[v] = -1
	}
	for i, c := range k.code {
		for _, v := range c.v {
			if first[v] < 0 {
				first[v] = i
			}
			last[v] = i
		}
	}
	// What a loop needs from before it is alive until the loop ends. Loops are listed from the inside out, so that one pass is
	// enough.
	for _, l := range k.loops {
		for v := range first {
			if first[v] < l[0] && last[v] >= l[0] {
				last[v] = max(last[v], l[1]-1)
			}
		}
	}
	if k.constants {
		k.op("MOVD $constants<>(SB), %s", tableBase)
	}
	var holder [32]int // the V in each register, plus 1
	register := make([]int, k.vectors)
	next := 0
	for i, c := range k.code {
		for _, v := range c.v { // a result may take the place of an operand that is read for the last time
			if first[v] < i && last[v] == i {
				holder[register[v]] = 0
			}
		}
		r := make([]int, len(c.v))
		for j, v := range c.v {
			if first[v] == i && holder[register[v]] != v+1 {
				tries := 0
				for ; holder[next] != 0; next = (next + 1) % 32 {
					if tries++; tries > 32 {
						panic("neon: out of vector registers")
					}
				}
				register[v], holder[next] = next, v+1
				next = (next + 1) % 32
			}
			r[j] = register[v]
		}
		for _, v := range c.v {
			if last[v] == i && holder[register[v]] == v+1 {
				holder[register[v]] = 0
			}
		}
		k.text.WriteString(c.text(r))
	}
}

// line adds an instruction without vectors.
func (k *K) line(format string, args ...any) { k.emit(fmt.Sprintf(format, args...)) }

// mark puts a label here.
func (k *K) mark(label string) {
	k.code = append(k.code, instruction{text: func([]int) string { return fmt.Sprintf("\n%s:\n", label) }})
}

// emit adds an instruction, in whose format the registers of v appear in order.
func (k *K) emit(format string, v ...V) {
	k.with(func(r []int) string {
		args := make([]any, len(r))
		for i := range r {
			args[i] = r[i]
		}
		return fmt.Sprintf(format, args...)
	}, v...)
}

// with adds the instruction that text writes for the registers of v.
func (k *K) with(text func(r []int) string, v ...V) {
	in := instruction{text: func(r []int) string { return "\t" + text(r) + "\n" }}
	for _, x := range v {
		if x.fixed {
			panic("neon: a constant is not in a register")
		}
		in.v = append(in.v, x.id)
	}
	k.code = append(k.code, in)
}

// fresh is a new vector without a value.
func (k *K) fresh() V {
	k.vectors++
	return V{id: k.vectors - 1}
}

// Reg returns v in a register: a constant is read from the table unless it is pinned.
func (k *K) Reg(v V) V {
	if !v.fixed {
		return v
	}
	if p, ok := k.pinned[v.bits]; ok {
		return p
	}
	return k.Mut(v)
}

// Mut returns a copy that may be changed.
func (k *K) Mut(v V) V {
	d := k.fresh()
	if !v.fixed {
		k.with(func(r []int) string { return two("mov", r[0], r[1]) }, d, v)
		return d
	}
	if v.bits == [4]uint32{} {
		k.with(func(r []int) string { return three("eor", r[0], r[0], r[0]) }, d)
		return d
	}
	k.constants = true
	k.emit(fmt.Sprintf("FMOVQ %d(%s), F%%d", k.constant(v.bits), tableBase), d)
	return d
}

// Pin keeps constants in registers from here on.
func (k *K) Pin(cs ...V) {
	for _, c := range cs {
		k.pinned[c.bits] = k.Mut(c)
	}
}

// gp returns a free general register.
func (k *K) gp() gp {
	for r := range lastGeneral + 1 {
		if !k.general[r] {
			k.general[r] = true
			return gp(r)
		}
	}
	panic("neon: out of general registers")
}

// free gives general registers back.
func (k *K) free(rs ...gp) {
	for _, r := range rs {
		k.general[r] = false
	}
}

// Arg loads an argument.
func (k *K) Arg(name string) gp {
	r := k.gp()
	k.line("MOVD %s, %s", k.args[name], r)
	return r
}

// Bytes loads an argument that counts words and makes it count bytes.
func (k *K) Bytes(name string) gp {
	r := k.Arg(name)
	k.line("LSL $2, %s", r)
	return r
}

// Scalar returns a 32-bit argument in every lane.
func (k *K) Scalar(name string) V {
	s := k.fresh()
	k.emit(fmt.Sprintf("FMOVS %s, F%%d", k.args[name]), s)
	return k.Spread(s, 0)
}

// Result stores lane 0 as the function's result.
func (k *K) Result(v V) { k.emit(fmt.Sprintf("FMOVS F%%d, %s", k.args["ret"]), v) }

// Move adds a register to a pointer.
func (k *K) Move(p, by gp) { k.line("ADD %s, %s", by, p) }

// Skip adds a number of bytes to a pointer.
func (k *K) Skip(p gp, bytes int) { k.line("ADD $%d, %s", bytes, p) }

// At returns p[i] in every lane.
func (k *K) At(p gp, i int) V { return k.Spread(k.Load1(p, 4*i), 0) }

// Load1 returns the word at p+disp in lane 0, 0 in the others.
func (k *K) Load1(p gp, disp int) V {
	v := k.fresh()
	k.emit(fmt.Sprintf("FMOVS %d(%s), F%%d", disp, p), v)
	return v
}

// Load4 returns the vector at p+disp.
func (k *K) Load4(p gp, disp int) V {
	v := k.fresh()
	k.emit(fmt.Sprintf("FMOVQ %d(%s), F%%d", disp, p), v)
	return v
}

// Store1 writes lane 0 to p+disp.
func (k *K) Store1(p gp, disp int, v V) { k.emit(fmt.Sprintf("FMOVS F%%d, %d(%s)", disp, p), v) }

// Store4 writes a vector to p+disp.
func (k *K) Store4(p gp, disp int, v V) { k.emit(fmt.Sprintf("FMOVQ F%%d, %d(%s)", disp, p), v) }
