package kvcompress

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// The file of a Compressed is a frame with, of each sequence, sinks, recent tokens and pages.
const saveMagic = "sthenkv1"

type saveHeader struct {
	Shape     Shape
	Config    Config
	Sequences []saveSequence
}

type saveSequence struct{ Len, Coded, Dropped int }

// Save writes the cache to a file, which is complete or not there: it is written aside and renamed.
func (c *Compressed) Save(path string) error {
	h := saveHeader{Shape: c.shape, Config: c.cfg}
	for b := range c.seqs {
		s := &c.seqs[b]
		h.Sequences = append(h.Sequences, saveSequence{s.n, s.coded, s.first})
	}
	return saveFrame(path, saveMagic, h, func(put func(part any) error) error {
		for b := range c.seqs {
			if err := c.seqs[b].each(&c.layout, put); err != nil {
				return err
			}
		}
		return nil
	})
}

// each calls f with every run of numbers that belongs to a token, in the order of a file: slices of float32, uint16 and uint8.
func (s *stream) each(l *layout, f func(part any) error) error {
	var parts []any
	sunk := s.sunk(l)
	for h := range l.heads {
		parts = append(parts, s.sinkK[h*l.sinks*l.dk:][:sunk*l.dk], s.sinkV[h*l.sinks*l.dv:][:sunk*l.dv])
		for t, left := s.coded, s.inRing(); left > 0; {
			slot := t % l.recent
			n := min(left, l.recent-slot)
			at := h*l.recent + slot
			if s.halfK != nil {
				parts = append(parts, s.halfK[at*l.dk:][:n*l.dk], s.halfV[at*l.dv:][:n*l.dv])
			} else {
				parts = append(parts, s.k[at*l.dk:][:n*l.dk], s.v[at*l.dv:][:n*l.dv])
			}
			t, left = t+n, left-n
		}
		for _, p := range s.pages {
			if p != nil {
				codes, halves := p.head(l, h)
				parts = append(parts, codes, halves)
			}
		}
	}
	for _, p := range parts {
		if err := f(p); err != nil {
			return err
		}
	}
	return nil
}

// Restore replaces what is cached by what Save wrote. A file that is damaged, or that belongs to a cache of another shape or
// another Config, Config.Model included, is refused, and the cache is left as it was.
func (c *Compressed) Restore(path string) error {
	return restoreFrame(path, saveMagic, c.read)
}

func (c *Compressed) read(header []byte, r *bytes.Reader) error {
	var h saveHeader
	if err := readHeader(header, &h); err != nil {
		return err
	}
	if err := sameCache(h.Shape, c.shape, h.Config, c.cfg, len(h.Sequences)); err != nil {
		return err
	}
	seqs := make([]stream, len(c.seqs))
	for b, q := range h.Sequences {
		s, err := c.blank(q, r.Len())
		if err != nil {
			return fmt.Errorf("sequence %d: %w", b, err)
		}
		if err := s.each(&c.layout, func(part any) error { return binary.Read(r, binary.LittleEndian, part) }); err != nil {
			return fmt.Errorf("sequence %d: %w", b, err)
		}
		seqs[b] = s
	}
	if r.Len() > 0 {
		return fmt.Errorf("got %d bytes too many", r.Len())
	}
	if !c.OnCard() {
		c.seqs = seqs
		return nil
	}
	for b := range seqs { // memory of the card stays where nodes know it
		c.seqs[b].reset(&c.layout)
		c.seqs[b].hold(&c.layout, &seqs[b])
	}
	return nil
}

// blank is a sequence with room for what a header announces, of which there are left bytes.
func (c *Compressed) blank(q saveSequence, left int) (stream, error) {
	l := &c.layout
	pages, full := 0, 0
	if q.Coded > l.sinks {
		full = (q.Coded - l.sinks) / l.group
		pages = (q.Coded - l.sinks + l.group - 1) / l.group
	}
	if q.Len < 0 || q.Len > c.shape.Capacity || q.Coded < l.sinks || q.Coded > max(q.Len, l.sinks) || q.Len-q.Coded > l.recent ||
		q.Dropped < 0 || q.Dropped > full || q.Dropped > 0 && c.cfg.Window == 0 {
		return stream{}, fmt.Errorf("got %d tokens, %d of them coded, and %d pages dropped, which no cache of %d has", q.Len, q.Coded, q.Dropped, c.shape.Capacity)
	}
	if need := (pages - q.Dropped) * l.pageBytes(); need > left {
		return stream{}, fmt.Errorf("got %d bytes, want %d and more", left, need)
	}
	s := newStream(l, c.cfg.RecentFP16)
	s.n, s.coded, s.first = q.Len, q.Coded, q.Dropped
	s.pages = make([]*page, q.Dropped, pages)
	for len(s.pages) < pages {
		s.pages = append(s.pages, s.newPage(l))
	}
	return s, nil
}
