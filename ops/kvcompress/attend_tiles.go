package kvcompress

import (
	"math"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
	"stheno/ops/flashattn"
)

// decodeTokens is how many tokens many decodes at a time.
const decodeTokens = 512

// many computes attention for many rows: runs of tokens, decoded into memory that is used again, through flashattn.Forward, and
// merged by their log-sum-exps.
func (a *attention) many(cfg flashattn.Config) error {
	cfg.Causal = true
	if cfg.Window.Limited {
		cfg.Window.Right = 0
	}
	l := &a.layout
	n := a.seq * a.heads
	width := max(l.group, decodeTokens/l.group*l.group, l.sinks, l.recent)
	need := l.heads*width*(l.dk+l.dv) + n*(l.dv+2)
	if l.rotate > 0 {
		need += n * l.dk
	}
	if cap(a.parts) < need {
		a.parts = make([]float32, need)
	}
	mem := a.parts[:need]
	take := func(n int) []float32 {
		x := mem[:n:n]
		mem = mem[n:]
		return x
	}
	run := manyRun{attention: a, cfg: cfg, k: take(l.heads * width * l.dk), v: take(l.heads * width * l.dv), out: take(n * l.dv), lse: take(n), total: take(n)}
	if l.rotate > 0 {
		run.rotated = take(n * l.dk)
	}
	for b := range a.seqs {
		if err := run.sequence(b); err != nil {
			return err
		}
	}
	return nil
}

// manyRun is the memory of many: keys and values (heads, tokens, dim) of a run of tokens, the run's output (seq, heads, dv) and
// log-sum-exps (heads, seq), and the log-sum-exps of all runs so far.
type manyRun struct {
	*attention
	cfg        flashattn.Config
	k, v, out  []float32
	lse, total []float32
	q, rotated []float32
	b, first   int
}

func (m *manyRun) sequence(b int) error {
	l, s := &m.layout, &m.seqs[b]
	rows := m.counts[b]
	if rows == 0 {
		return nil
	}
	m.b, m.first = b, s.n-rows
	m.q = m.attention.q[b*m.seq*m.heads*l.dk:][:rows*m.heads*l.dk]
	if l.rotate > 0 {
		copy(m.rotated, m.q)
		r := m.rotated[:len(m.q)]
		parallel.Run(rows, func(_ *parallel.Worker, i int) { l.rotateRows(r[i*m.heads*l.dk:][:m.heads*l.dk]) })
	}
	out := m.attention.out[b*m.seq*m.heads*l.dv:][:rows*m.heads*l.dv]
	clear(out)
	for i := range m.total {
		m.total[i] = float32(math.Inf(-1))
	}
	if n := s.sunk(l); n > 0 {
		if err := m.attend(m.q, 0, n, s.sinkK, s.sinkV, l.sinks); err != nil {
			return err
		}
	}
	per := max(1, decodeTokens/l.group)
	oldest := m.from(m.first)
	for i := s.first; i < len(s.pages); i += per {
		end := min(i+per, len(s.pages))
		t := l.sinks + i*l.group
		count := min(s.coded, l.sinks+end*l.group) - t
		if t+count <= oldest {
			continue
		}
		parallel.Run((end-i)*l.heads, func(_ *parallel.Worker, j int) {
			h, p := j%l.heads, j/l.heads
			n := min(l.group, count-p*l.group)
			at := h*count + p*l.group
			s.pages[i+p].decode(l, h, m.k[at*l.dk:][:n*l.dk], m.v[at*l.dv:][:n*l.dv], 0, n)
		})
		q := m.q
		if l.rotate > 0 {
			q = m.rotated[:len(m.q)]
		}
		if err := m.attend(q, t, count, m.k, m.v, count); err != nil {
			return err
		}
	}
	if n := s.inRing(); n > 0 {
		parallel.Run(l.heads, func(_ *parallel.Worker, h int) {
			s.getKeys(l, h, s.coded, n, m.k[h*n*l.dk:])
			s.getValues(l, h, s.coded, n, m.v[h*n*l.dv:])
		})
		if err := m.attend(m.q, s.coded, n, m.k, m.v, n); err != nil {
			return err
		}
	}
	m.finish(out, rows)
	return nil
}

// attend takes count tokens from position t on, (heads, stride, dim), and merges the result into the output.
func (m *manyRun) attend(q []float32, t, count int, k, v []float32, stride int) error {
	l, rows := &m.layout, m.counts[m.b]
	view := func(x []float32, dim int) flashattn.Heads[float32] {
		return flashattn.Heads[float32]{Data: x, Batch: 1, Seq: count, Heads: l.heads, Dim: dim, SeqStride: dim, HeadStride: stride * dim}
	}
	position := [1]int{m.first - t}
	err := flashattn.Forward(
		flashattn.Contiguous(m.out, 1, rows, m.heads, l.dv), flashattn.Contiguous(q, 1, rows, m.heads, l.dk), view(k, l.dk), view(v, l.dv),
		m.cfg, flashattn.Operands[float32]{Positions: position[:], LSE: m.lse[:m.heads*rows]})
	if err != nil {
		return err
	}
	out := m.attention.out[m.b*m.seq*m.heads*l.dv:]
	parallel.Run((rows+mixRows-1)/mixRows, func(_ *parallel.Worker, piece int) {
		for i := piece * mixRows; i < min((piece+1)*mixRows, rows); i++ {
			for h := range m.heads {
				at := i*m.heads + h
				m.mix(out[at*l.dv:][:l.dv], m.out[at*l.dv:][:l.dv], &m.total[at], m.lse[h*rows+i])
			}
		}
	})
	return nil
}

// mixRows is how many rows of all heads a task merges.
const mixRows = 32

// mix replaces dst, the mean of values under weights whose logarithm of the sum is *total, by the mean of those and of src.
func (m *manyRun) mix(dst, src []float32, total *float32, lse float32) {
	if math.IsInf(float64(lse), -1) {
		return
	}
	old, add := float64(*total), float64(lse)
	top := max(old, add)
	sum := math.Exp(old-top) + math.Exp(add-top)
	x, y := float32(math.Exp(old-top)/sum), float32(math.Exp(add-top)/sum)
	kernel.Scale(dst, dst, x)
	kernel.Axpy(dst, y, src)
	*total = float32(top + math.Log(sum))
}

// finish gives sinks their share of the weight.
func (m *manyRun) finish(out []float32, rows int) {
	if m.sinks == nil {
		return
	}
	for i := range rows * m.heads {
		share := 1 / (1 + math.Exp(float64(m.sinks[i%m.heads])-float64(m.total[i])))
		for c := range m.dv {
			out[i*m.dv+c] *= float32(share)
		}
	}
}
