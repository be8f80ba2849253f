package kernel

import (
	"time"
	"unsafe"
)

// SampleBytePeak is SamplePeak for products of bytes that are summed in 32 bits (VPDPBUSD), in 10⁹ operations a second: 0 where
// the active instruction set has no instruction for them.
func SampleBytePeak(threads int, d time.Duration) float64 {
	if !bytesVectorized() {
		return 0
	}
	return sampleRate(threads, d, func(int) float64 { return peakBytesSIMD(1 << 12) })
}

// Reader measures how fast memory is read: the ceiling of products that read their weights once.
type Reader struct {
	pieces [][]byte
	places []readPlace
}

// readPlace is how far a goroutine has come.
type readPlace struct {
	piece, at int
	_         [112]byte
}

// NewReader returns a Reader whose goroutines each read their part of every piece, one piece after the other.
func NewReader(threads int, pieces [][]byte) *Reader {
	return &Reader{pieces: pieces, places: make([]readPlace, max(1, threads))}
}

// Sample reads on for a time d and returns the GB/s.
func (r *Reader) Sample(d time.Duration) float64 {
	return sampleRate(len(r.places), d, r.round)
}

// round reads some of what is goroutine t's part of its piece.
func (r *Reader) round(t int) float64 {
	const most = 1 << 16
	p := &r.places[t]
	whole := r.pieces[p.piece]
	part := len(whole) / len(r.places)
	from := min(p.at, part)
	end := min(from+most, part)
	readBytes(whole[t*part+from : t*part+end])
	if p.at = end; end == part {
		p.piece, p.at = (p.piece+1)%len(r.pieces), 0
	}
	return float64(end - from)
}

// readSink keeps the compiler from leaving readBytes out.
var readSink byte

// readBytes reads x.
func readBytes(x []byte) {
	if lines := len(x) / 512 * 8; lines > 0 && codesVectorized[float32]() {
		readMemorySIMD(unsafe.SliceData(x), lines)
		x = x[64*lines:]
	}
	var sum byte
	for _, b := range x {
		sum |= b
	}
	if sum == 1 {
		readSink = sum
	}
}
