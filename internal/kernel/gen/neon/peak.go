package main

// peak emits the loop that measures the most that this instruction set reaches.
func (f *file) peak() {
	f.function("peakFMA", "rounds int", "", "runs rounds of 24 independent multiply-adds of vectors. rounds ≥ 1.")
	const rounds gp = 0
	f.arg("rounds", rounds)
	for v := range 26 {
		f.op("%s", three("eor", v, v, v))
	}
	loop := f.label("loop")
	f.mark(loop)
	for v := range 24 {
		f.op("%s", three("fmla", v, 24, 25))
	}
	f.op("SUBS $1, %s", rounds)
	f.op("BNE %s", loop)
	f.op("RET")
}
