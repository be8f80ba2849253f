package kernel

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The peak is a rate where there is the instruction, and 0 where there is not.
func TestSampleBytePeak(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		require.Equal(t, bytesVectorized(), SampleBytePeak(1, time.Millisecond) > 0)
	})
}

// Every part of every piece is read in turn, also of pieces that are shorter than a line or than the number of threads.
func TestReader(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		r := NewReader(2, [][]byte{make([]byte, 5000), make([]byte, 1<<18), make([]byte, 1), nil})
		var read []float64
		for range 6 {
			read = append(read, r.round(1))
		}
		require.Equal(t, []float64{2500, 1 << 16, 1 << 16, 0, 0, 2500}, read)
		require.Positive(t, r.Sample(time.Millisecond))
	})
}
