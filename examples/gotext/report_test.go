package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"stheno"
)

// sample is a comparison with easy numbers.
func sample() comparison {
	var c comparison
	c.training[stheno.Plain] = measurement{Step: 2 * time.Second, Peak: 900 << 20}
	c.training[stheno.Fused] = measurement{Step: 100 * time.Millisecond, Peak: 300 << 20}
	c.inference[stheno.Plain] = measurement{Prefill: 1000, Generate: 500, Peak: 80 << 20, HeldOut: 2.25}
	c.inference[stheno.Fused] = measurement{Prefill: 20000, Generate: 1500, Peak: 40 << 20, HeldOut: 2.25}
	return c
}

func TestFactors(t *testing.T) {
	want := map[string]float64{
		"training step": 20, "prefill": 20, "generate": 3, "peak memory, training": 3, "peak memory, inference": 2,
	}
	for _, r := range sample().rows() {
		require.InDelta(t, want[r.what], r.factor, 1e-9, r.what)
	}
	c := sample()
	c.training[stheno.Plain] = measurement{}
	require.Equal(t, row{"training step", "not measured", "100.0 ms", 0}, c.rows()[0])
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	j := job{opt: options{batch: 8, seq: 256, threads: 1}, gzip: 2.2}
	j.table(&out, sample())
	require.Contains(t, out.String(), "training step                         2.00 s        100.0 ms    20.0 ×\n")
	require.Contains(t, out.String(), "held-out bits per byte                2.2500          2.2500")
}

func TestPicturesOfAnyCourse(t *testing.T) {
	for name, bits := range map[string][]float64{
		"two steps": {8, 7.9},
		"flat":      {3, 3, 3, 3},
		"rising":    {1, 2, 30},
	} {
		for _, gzip := range []float64{0.001, 2.2, 2.21, 9} {
			j := job{text: corpus{name: name}, losses: losses{bits}, gzip: gzip, heldOut: 2.2}
			path := filepath.Join(t.TempDir(), "loss.png")
			require.NoError(t, j.plotLoss(path))
			requirePNG(t, path)
		}
	}
	require.Error(t, plotComparison(filepath.Join(t.TempDir(), "c.png"), comparison{}))
}

func TestTicksAreFew(t *testing.T) {
	for _, high := range []float64{1, 2, 9, 10, 34, 58, 100, 141, 1000, 1500, 99999} {
		ticks := roundTicks{}.Ticks(0, high)
		require.LessOrEqual(t, len(ticks), 10, high)
		require.GreaterOrEqual(t, len(ticks), 2, high)
	}
}

func TestUnits(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 942: "942", 1000: "1.00 k", 12345: "12.3 k", 99960: "100 k", 853000: "853 k", 1840000: "1.84 M", math.MaxInt64: "9223372 T"} {
		require.Equal(t, want, count(n))
	}
	require.Equal(t, "1.5 MiB", memory(3<<19))
	require.Equal(t, "488 MiB", memory(488<<20))
	require.Equal(t, "1m30s", roundly(90*time.Second+300*time.Millisecond))
	require.Equal(t, "212.1ms", roundly(212123*time.Microsecond))
	require.Equal(t, "1.25 s", milliseconds(1.25))
}

func TestPrintable(t *testing.T) {
	require.Equal(t, "a\tb\ncé\uFFFD[2J\uFFFD", printable([]byte("a\tb\ncé\x1b[2J\xff")))
}

func TestTableNamesTheSequenceThatWasMeasured(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte(strings.Repeat("0123456789 abcdef\n", 80)), 0o666)) // 72 bytes held out
	args := []string{"-layers", "1", "-dim", "16", "-heads", "2", "-seq", "100", "-batch", "2", "-tokens", "4", "-prompt", "0"}
	code, stdout, stderr := start(t, t.Context(), append(args, "-data", dir, "-steps", "1", "-out", "")...)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "2 × 71 bytes a training step, prompts of 71 bytes")
}
