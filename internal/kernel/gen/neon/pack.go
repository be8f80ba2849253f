package main

// pack emits the copies into panels and the transposition.
func (f *file) pack() {
	f.packPanels()
	f.packSix()
	f.transpose()
}

// packPanels emits dst[q][p][:] = src[p][16q : 16q+16], row by row so that the source is read in order.
func (f *file) packPanels() {
	f.function("packPanels", "dst *float32, panel int, src *float32, lds, rows, panels int", "",
		"copies whole panels of 16 columns: dst[q·panel+p·16+j] = src[p·lds+16q+j] for p < rows, q < panels, j < 16.\n"+
			"panel and lds are in bytes. rows ≥ 1, panels ≥ 1.")
	const dst, panel, src, lds, rows, panels, to, from, left gp = 0, 1, 2, 3, 4, 5, 6, 7, 8
	for i, name := range []string{"dst", "panel", "src", "lds", "rows", "panels"} {
		f.arg(name, gp(i))
	}
	row, next := f.label("row"), f.label("panel")
	f.mark(row)
	f.op("MOVD %s, %s", dst, to)
	f.op("MOVD %s, %s", src, from)
	f.op("MOVD %s, %s", panels, left)
	f.mark(next)
	f.loadVectors(from, 0, 4)
	f.storeVectors(0, to, 4)
	f.op("ADD $64, %s", from)
	f.op("ADD %s, %s", panel, to)
	f.op("SUBS $1, %s", left)
	f.op("BNE %s", next)
	f.op("ADD $64, %s", dst)
	f.op("ADD %s, %s", lds, src)
	f.op("SUBS $1, %s", rows)
	f.op("BNE %s", row)
	f.op("RET")
}

// packSix emits dst[g][p][:] = src[p][6g : 6g+6], four rows of the source at a time: they fill whole lines of dst, and are few
// enough that a stride which maps them all to one set of the first-level cache does no harm.
func (f *file) packSix() {
	f.function("packSix", "dst *float32, group int, src *float32, lds, rows, groups int", "",
		"copies groups of six columns: dst[g·group+p·6+i] = src[p·lds+6g+i] for p < rows, g < groups, i < 6.\n"+
			"group and lds are in bytes. rows ≥ 0, groups ≥ 1.")
	const dst, group, src, lds, rows, groups, to, left, from gp = 0, 1, 2, 3, 4, 5, 6, 7, 8 // from+p walks along row p
	for i, name := range []string{"dst", "group", "src", "lds", "rows", "groups"} {
		f.arg(name, gp(i))
	}
	for _, n := range []int{4, 1} {
		chunk, next, done := f.label("chunk"), f.label("group"), f.label("done")
		f.mark(chunk)
		f.op("CMP $%d, %s", n, rows)
		f.op("BLT %s", done)
		f.op("MOVD %s, %s", dst, to)
		f.op("MOVD %s, %s", src, from)
		for p := 1; p < n; p++ {
			f.op("ADD %s, %s, %s", lds, from+gp(p)-1, from+gp(p))
		}
		f.op("MOVD %s, %s", groups, left)
		f.mark(next)
		for p := range n {
			f.op("FMOVQ (%s), F%d", from+gp(p), 2*p)
			f.op("FMOVD 16(%s), F%d", from+gp(p), 2*p+1)
			f.op("ADD $24, %s", from+gp(p))
		}
		for p := range n {
			f.op("FMOVQ F%d, %d(%s)", 2*p, 24*p, to)
			f.op("FMOVD F%d, %d(%s)", 2*p+1, 24*p+16, to)
		}
		f.op("ADD %s, %s", group, to)
		f.op("SUBS $1, %s", left)
		f.op("BNE %s", next)
		f.op("ADD $%d, %s", 24*n, dst)
		for range n {
			f.op("ADD %s, %s", lds, src)
		}
		f.op("SUB $%d, %s", n, rows)
		f.op("B %s", chunk)
		f.mark(done)
	}
	f.op("RET")
}

// transpose emits the transposition of a strip of eight rows, four columns at a time.
func (f *file) transpose() {
	f.function("transpose8", "dst *float32, ldd int, src *float32, lds, blocks int, scale float32", "",
		"turns eight rows into eight columns: dst[j·ldd+i] = scale·src[i·lds+j] for i < 8, j < 4·blocks.\n"+
			"ldd and lds are in bytes. blocks ≥ 1.")
	const dst, ldd, lds, blocks, row gp = 0, 1, 2, 3, 4 // row+i walks along row i
	f.arg("dst", dst)
	f.arg("ldd", ldd)
	f.arg("src", row)
	f.arg("lds", lds)
	f.arg("blocks", blocks)
	const scale = 31
	f.op("FMOVS %s, F%d", f.args["scale"], scale)
	for i := 1; i < 8; i++ {
		f.op("ADD %s, %s, %s", lds, row+gp(i)-1, row+gp(i))
	}
	loop := f.label("loop")
	f.mark(loop)
	for i := range 8 {
		f.op("FMOVQ.P 16(%s), F%d", row+gp(i), i)
	}
	for half := range 2 {
		r, t, o := 4*half, 8+4*half, 16+4*half
		f.op("%s", three("trn1", t, r, r+1)) // columns 0, 2 of rows 0, 1
		f.op("%s", three("trn2", t+1, r, r+1))
		f.op("%s", three("trn1", t+2, r+2, r+3)) // of rows 2, 3
		f.op("%s", three("trn2", t+3, r+2, r+3))
		f.op("%s", three("trn1.2d", o, t, t+2))
		f.op("%s", three("trn1.2d", o+1, t+1, t+3))
		f.op("%s", three("trn2.2d", o+2, t, t+2))
		f.op("%s", three("trn2.2d", o+3, t+1, t+3))
		for j := range 4 {
			f.op("%s", fmulLane(o+j, o+j, scale, 0))
		}
	}
	for j := range 4 {
		f.op("FSTPQ (F%d, F%d), (%s)", 16+j, 20+j, dst)
		f.op("ADD %s, %s", ldd, dst)
	}
	f.op("SUBS $1, %s", blocks)
	f.op("BNE %s", loop)
	f.op("RET")
}
