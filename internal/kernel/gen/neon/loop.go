package main

import "fmt"

const (
	lanes       = 4
	vectorBytes = 4 * lanes
)

// It is one step of a loop: a full vector, or a single element in lane 0.
type It struct {
	k      *K
	walk   map[gp]gp // pointers that walk along with the loop, by where they start
	order  *[]gp     // of walk's keys, as first used
	disp   int
	U      int // which of the unrolled vectors this is, 0 in the rest
	single bool
}

// Range runs body over n elements: unroll vectors a turn, then single vectors, then single elements. Neither n nor a pointer
// that body reads or writes is changed.
func (k *K) Range(n gp, unroll int, body func(it *It)) {
	var order []gp
	walk := make(map[gp]gp)
	// The loop's pointers are known once its body is written.
	k.code = append(k.code, instruction{text: func([]int) string {
		s := ""
		for _, p := range order {
			s += fmt.Sprintf("\tMOVD %s, %s\n", p, walk[p])
		}
		return s
	}})
	left := k.gp()
	k.line("MOVD %s, %s", n, left)
	turn := func(step int, run func()) {
		loop, done := k.label("loop"), k.label("done")
		k.line("SUBS $%d, %s", step, left)
		k.line("BLT %s", done)
		begin := len(k.code)
		k.mark(loop)
		run()
		for _, p := range order {
			k.line("ADD $%d, %s", 4*step, walk[p])
		}
		k.line("SUBS $%d, %s", step, left)
		k.line("BGE %s", loop)
		k.loops = append(k.loops, [2]int{begin, len(k.code)})
		k.mark(done)
		if step > 1 {
			k.line("ADD $%d, %s", step, left)
		}
	}
	it := It{k: k, walk: walk, order: &order}
	if unroll > 1 {
		turn(unroll*lanes, func() {
			begin := len(k.code)
			for u := range unroll {
				step := it
				step.disp, step.U = u*vectorBytes, u
				body(&step)
			}
			interleave(k.code[begin:], unroll)
		})
	}
	turn(lanes, func() { step := it; body(&step) })
	turn(1, func() { step := it; step.single = true; body(&step) })
	k.free(left)
	for _, p := range order {
		k.free(walk[p])
	}
}

// interleave takes turns between parts of equal length, which are independent but for sums that they add to in order: the
// latencies of one then hide those of the others.
func interleave(code []instruction, parts int) {
	size := len(code) / parts
	mixed := make([]instruction, 0, len(code))
	for i := range size {
		for p := range parts {
			mixed = append(mixed, code[p*size+i])
		}
	}
	copy(code, mixed)
}

// pointer is the register that walks along from p.
func (it *It) pointer(p gp) gp {
	w, ok := it.walk[p]
	if !ok {
		w = it.k.gp()
		it.walk[p] = w
		*it.order = append(*it.order, p)
	}
	return w
}

// Load reads the step's elements of p; a single one leaves 0 in the other lanes.
func (it *It) Load(p gp) V {
	if it.single {
		return it.k.Load1(it.pointer(p), 0)
	}
	return it.k.Load4(it.pointer(p), it.disp)
}

// LoadAll is Load with a single element in every lane.
func (it *It) LoadAll(p gp) V {
	if !it.single {
		return it.Load(p)
	}
	v := it.k.fresh()
	it.k.emit(fmt.Sprintf("VLD1R (%s), [V%%d.S4]", it.pointer(p)), v)
	return v
}

// Keep returns v with 0 in the lanes that are not the step's.
func (it *It) Keep(v V) V {
	if !it.single {
		return v
	}
	return it.k.unary("fmov", v)
}

// Store writes the step's elements to p.
func (it *It) Store(p gp, v V) {
	if it.single {
		it.k.Store1(it.pointer(p), 0, v)
		return
	}
	it.k.Store4(it.pointer(p), it.disp, v)
}

// Width is the number of the step's elements.
func (it *It) Width() int {
	if it.single {
		return 1
	}
	return lanes
}

// Rows runs body count times, count ≥ 0; body advances its own pointers. The register counts down.
func (k *K) Rows(count gp, body func()) {
	loop, end := k.label("row"), k.label("end")
	k.line("CBZ %s, %s", count, end)
	begin := len(k.code)
	k.mark(loop)
	body()
	k.line("SUBS $1, %s", count)
	k.line("BNE %s", loop)
	k.loops = append(k.loops, [2]int{begin, len(k.code)})
	k.mark(end)
}
