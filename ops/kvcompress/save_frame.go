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
//	magic               8 bytes: the kind of cache, and the version
//	length of header    uint32
//	header              JSON: shape, config, and what there is of each sequence
//	numbers
//	SHA-256             of all before it
//
// with little-endian numbers. It holds tokens of the past as the model saw them: whoever reads it learns about them, so that only its
// owner may.

// maxHeader bounds the header that is read.
const maxHeader = 1 << 20

// saveFrame writes a file aside and renames it. numbers calls put with slices of numbers.
func saveFrame(path, magic string, header any, numbers func(put func(part any) error) error) (err error) {
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
	if err = writeFrame(f, magic, header, numbers); err != nil {
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

func writeFrame(f io.Writer, magic string, header any, numbers func(put func(part any) error) error) error {
	sum := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, sum), 1<<16)
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	w.WriteString(magic)
	binary.Write(w, binary.LittleEndian, uint32(len(text)))
	w.Write(text)
	if err := numbers(func(part any) error { return binary.Write(w, binary.LittleEndian, part) }); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = f.Write(sum.Sum(nil))
	return err
}

// restoreFrame calls read with the header and the numbers of a whole file.
func restoreFrame(path, magic string, read func(header []byte, numbers *bytes.Reader) error) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("kvcompress: Restore: %w", err)
	}
	header, numbers, err := openFrame(data, magic)
	if err == nil {
		err = read(header, bytes.NewReader(numbers))
	}
	if err != nil {
		return fmt.Errorf("kvcompress: Restore: %s: %w", path, err)
	}
	return nil
}

func openFrame(data []byte, magic string) (header, numbers []byte, err error) {
	frame := len(magic) + 4
	if len(data) < frame+sha256.Size || string(data[:len(magic)]) != magic {
		return nil, nil, fmt.Errorf("got %d bytes that do not begin with %q, want a saved cache", len(data), magic)
	}
	body := data[:len(data)-sha256.Size]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], data[len(body):]) {
		return nil, nil, fmt.Errorf("got a checksum that is not that of the contents: the file is damaged")
	}
	n := int(binary.LittleEndian.Uint32(data[len(magic):]))
	if n > maxHeader || n > len(body)-frame {
		return nil, nil, fmt.Errorf("got a header of %d bytes, want at most %d", n, min(maxHeader, len(body)-frame))
	}
	return body[frame : frame+n], body[frame+n:], nil
}

func readHeader(text []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	return nil
}

// sameCache reports a file of another cache.
func sameCache(shape, wantShape Shape, cfg, want Config, sequences int) error {
	switch {
	case shape != wantShape:
		return fmt.Errorf("got a cache of shape %+v, want %+v", shape, wantShape)
	case cfg.Model != want.Model:
		return fmt.Errorf("got a cache of model %q, want %q", cfg.Model, want.Model)
	case cfg != want:
		return fmt.Errorf("got a cache with %+v, want %+v", cfg, want)
	case sequences != shape.Batch:
		return fmt.Errorf("got %d sequences, want %d", sequences, shape.Batch)
	}
	return nil
}
