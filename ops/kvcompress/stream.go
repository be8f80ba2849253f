package kvcompress

import "stheno/internal/kernel"

// stream is one sequence of a cache. Its tokens are, in order: sinks; those in pages, up to coded; those in the ring.
type stream struct {
	n     int // tokens
	coded int // where the ring begins, at least the number of sinks there is room for
	pages []*page
	first int // pages before this one are dropped, and nil

	owner *owner  // of the slabs of this sequence
	spare []*page // of its slabs, in no use
	room  int     // pages of all its slabs, but for those that were left to Forks
	fixed []*page // of a cache on a card: the memory of every page, by its number; nil otherwise

	sinkK, sinkV []float32 // (heads, sinks, dim)
	ring
}

// ring holds the newest tokens, token t in slot t mod recent of each head: (heads, recent, dim), in float32 or in FP16.
type ring struct {
	k, v         []float32
	halfK, halfV []uint16
}

func newStream(l *layout, fp16 bool) stream {
	s := stream{
		coded: l.sinks, owner: new(owner),
		sinkK: make([]float32, l.heads*l.sinks*l.dk), sinkV: make([]float32, l.heads*l.sinks*l.dv),
	}
	nk, nv := l.heads*l.recent*l.dk, l.heads*l.recent*l.dv
	if fp16 {
		s.halfK, s.halfV = make([]uint16, nk), make([]uint16, nv)
	} else {
		s.k, s.v = make([]float32, nk), make([]float32, nv)
	}
	return s
}

// bytes is what the sequence holds: slabs as a whole, and pages of other slabs that it shares.
func (s *stream) bytes(l *layout) int64 {
	pages := s.room
	for _, p := range s.pages {
		if p != nil && p.owner != s.owner {
			pages++
		}
	}
	return int64(pages*l.pageBytes()) + 4*int64(len(s.sinkK)+len(s.sinkV)+len(s.k)+len(s.v)) + 2*int64(len(s.halfK)+len(s.halfV))
}

func (s *stream) reset(l *layout) {
	s.drop(0)
	s.n, s.coded, s.first = 0, l.sinks, 0
}

// drop forgets the pages from i on.
func (s *stream) drop(i int) {
	for j := i; j < len(s.pages); j++ {
		s.free(j)
	}
	s.pages = s.pages[:i]
}

// free forgets page i, and keeps its memory for another unless a Fork may read it: then the memory is the Fork's alone.
func (s *stream) free(i int) {
	switch p := s.pages[i]; {
	case p == nil || s.fixed != nil:
	case !p.shared.Load():
		s.spare = append(s.spare, p)
	case p.owner == s.owner:
		s.room--
	}
	s.pages[i] = nil
}

// newPage returns a page of memory in no use, for the page after those that there are.
func (s *stream) newPage(l *layout) *page {
	if s.fixed != nil {
		return s.fixed[len(s.pages)]
	}
	if len(s.spare) == 0 {
		n := max(1, l.slabPages(s.room, l.most))
		slab := newSlab(l, s.owner, n)
		s.room += n
		for i := n - 1; i >= 0; i-- {
			s.spare = append(s.spare, &page{slab: slab, i: i})
		}
	}
	last := len(s.spare) - 1
	p := s.spare[last]
	s.spare = s.spare[:last]
	return p
}

// sunk is how many tokens are sinks.
func (s *stream) sunk(l *layout) int { return min(s.n, l.sinks) }

// inRing is how many tokens the ring holds.
func (s *stream) inRing() int { return max(0, s.n-s.coded) }

// put stores token t of all heads in the ring, rows of the heads one after the other.
func (s *stream) put(l *layout, t int, k, v []float32) {
	slot := t % l.recent
	for h := range l.heads {
		s.putHead(l, h, slot, k[h*l.dk:][:l.dk], v[h*l.dv:][:l.dv])
	}
}

func (r *ring) putHead(l *layout, h, slot int, k, v []float32) {
	ak, av := (h*l.recent+slot)*l.dk, (h*l.recent+slot)*l.dv
	if r.halfK != nil {
		kernel.ToFloat16(r.halfK[ak:][:l.dk], k)
		kernel.ToFloat16(r.halfV[av:][:l.dv], v)
		return
	}
	copy(r.k[ak:], k)
	copy(r.v[av:], v)
}

// getKeys and getValues copy tokens t to t+count of head h out of the ring.
func (r *ring) getKeys(l *layout, h, t, count int, dst []float32) {
	for count > 0 {
		slot := t % l.recent
		n := min(count, l.recent-slot)
		at := (h*l.recent + slot) * l.dk
		if r.halfK != nil {
			kernel.FromFloat16(dst[:n*l.dk], r.halfK[at:][:n*l.dk])
		} else {
			copy(dst[:n*l.dk], r.k[at:])
		}
		dst, t, count = dst[n*l.dk:], t+n, count-n
	}
}

func (r *ring) getValues(l *layout, h, t, count int, dst []float32) {
	for count > 0 {
		slot := t % l.recent
		n := min(count, l.recent-slot)
		at := (h*l.recent + slot) * l.dv
		if r.halfV != nil {
			kernel.FromFloat16(dst[:n*l.dv], r.halfV[at:][:n*l.dv])
		} else {
			copy(dst[:n*l.dv], r.v[at:])
		}
		dst, t, count = dst[n*l.dv:], t+n, count-n
	}
}

// place is the page of token t and its place in it.
func (l *layout) place(t int) (page, at int) { return (t - l.sinks) / l.group, (t - l.sinks) % l.group }

// open makes the page of token s.coded writable, and reports whether it is new.
func (s *stream) open(l *layout) (p *page, fresh bool) {
	i, at := l.place(s.coded)
	if at == 0 {
		p = s.newPage(l)
		p.clear(l)
		s.pages = append(s.pages, p)
		return p, true
	}
	if q := s.pages[i]; q.shared.Load() {
		p = s.newPage(l)
		p.copyFrom(l, q)
		s.free(i)
		s.pages[i] = p
	}
	return s.pages[i], false
}

// decodeHead writes what all n tokens of head h stand for: rows of dk and dv numbers, zeros for dropped tokens.
func (s *stream) decodeHead(l *layout, h int, keys, values []float32) {
	sunk := s.sunk(l)
	copy(keys, s.sinkK[h*l.sinks*l.dk:][:sunk*l.dk])
	copy(values, s.sinkV[h*l.sinks*l.dv:][:sunk*l.dv])
	for i, p := range s.pages {
		t := l.sinks + i*l.group
		count := min(l.group, s.coded-t)
		k, v := keys[t*l.dk:][:count*l.dk], values[t*l.dv:][:count*l.dv]
		if p == nil {
			clear(k)
			clear(v)
			continue
		}
		p.decode(l, h, k, v, 0, count)
		l.rotateRows(k)
	}
	if n := s.inRing(); n > 0 {
		s.getKeys(l, h, s.coded, n, keys[s.coded*l.dk:])
		s.getValues(l, h, s.coded, n, values[s.coded*l.dv:])
	}
}
