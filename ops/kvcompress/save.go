package kvcompress

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A saved cache is a file of
//
//	magic               8 bytes, with the version
//	length of header    uint32
//	header              JSON: shape, config, lengths
//	numbers             of each sequence: sinks, recent tokens, pages
//	SHA-256             of all before it
//
// with little-endian numbers. It holds tokens of the past as the model saw them: whoever reads it learns about them.
const saveMagic = "sthenkv1"

// maxHeader bounds the header that Restore reads.
const maxHeader = 1 << 20

type saveHeader struct {
	Shape     Shape
	Config    Config
	Sequences []saveSequence
}

type saveSequence struct{ Len, Coded, Dropped int }

// Save writes the cache to a file, which is complete or not there: it is written aside and renamed.
func (c *Compressed) Save(path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*")
	if err != nil {
		return fmt.Errorf("kvcompress: Save: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("kvcompress: Save: %w", err)
		}
	}()
	if err = c.write(f); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (c *Compressed) write(f io.Writer) error {
	sum := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, sum), 1<<16)
	h := saveHeader{Shape: c.shape, Config: c.cfg}
	for b := range c.seqs {
		s := &c.seqs[b]
		h.Sequences = append(h.Sequences, saveSequence{s.n, s.coded, s.first})
	}
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	w.WriteString(saveMagic)
	binary.Write(w, binary.LittleEndian, uint32(len(text)))
	w.Write(text)
	for b := range c.seqs {
		err = c.seqs[b].each(&c.layout, func(part any) error { return binary.Write(w, binary.LittleEndian, part) })
		if err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = f.Write(sum.Sum(nil))
	return err
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
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("kvcompress: Restore: %w", err)
	}
	seqs, err := c.read(data)
	if err != nil {
		return fmt.Errorf("kvcompress: Restore: %s: %w", path, err)
	}
	c.seqs = seqs
	return nil
}

func (c *Compressed) read(data []byte) ([]stream, error) {
	const frame = len(saveMagic) + 4
	if len(data) < frame+sha256.Size || string(data[:len(saveMagic)]) != saveMagic {
		return nil, fmt.Errorf("got %d bytes that do not begin with %q, want a saved cache", len(data), saveMagic)
	}
	body := data[:len(data)-sha256.Size]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], data[len(body):]) {
		return nil, fmt.Errorf("got a checksum that is not that of the contents: the file is damaged")
	}
	n := int(binary.LittleEndian.Uint32(data[len(saveMagic):]))
	if n > maxHeader || n > len(body)-frame {
		return nil, fmt.Errorf("got a header of %d bytes, want at most %d", n, min(maxHeader, len(body)-frame))
	}
	var h saveHeader
	d := json.NewDecoder(bytes.NewReader(body[frame : frame+n]))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	switch {
	case h.Shape != c.shape:
		return nil, fmt.Errorf("got a cache of shape %+v, want %+v", h.Shape, c.shape)
	case h.Config.Model != c.cfg.Model:
		return nil, fmt.Errorf("got a cache of model %q, want %q", h.Config.Model, c.cfg.Model)
	case h.Config != c.cfg:
		return nil, fmt.Errorf("got a cache with %+v, want %+v", h.Config, c.cfg)
	case len(h.Sequences) != len(c.seqs):
		return nil, fmt.Errorf("got %d sequences, want %d", len(h.Sequences), len(c.seqs))
	}
	r := bytes.NewReader(body[frame+n:])
	seqs := make([]stream, len(c.seqs))
	for b, q := range h.Sequences {
		s, err := c.blank(q, r.Len())
		if err != nil {
			return nil, fmt.Errorf("sequence %d: %w", b, err)
		}
		if err := s.each(&c.layout, func(part any) error { return binary.Read(r, binary.LittleEndian, part) }); err != nil {
			return nil, fmt.Errorf("sequence %d: %w", b, err)
		}
		seqs[b] = s
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("got %d bytes too many", r.Len())
	}
	return seqs, nil
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
