package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const output = `goos: linux
goarch: amd64
pkg: stheno/ops
cpu: Some CPU @ 2.00GHz
BenchmarkLinear/m=512/threads=1-2         	     100	   1000000 ns/op	        90.50 %peak	       120.0 GFLOP/s
BenchmarkLinear/m=512/threads=1-2         	     100	   3000000 ns/op	        88.50 %peak	       100.0 GFLOP/s
BenchmarkLinear/m=512/threads=1-2         	     100	   1100000 ns/op	        89.50 %peak	       110.0 GFLOP/s
BenchmarkLinear/m=1/threads=2-2           	  100000	       950 ns/op	        12.00 GB/s
PASS
ok  	stheno/ops	3.2s
pkg: stheno
BenchmarkGenerate/model=gotext/nodes=plain-2 	 10	 2500000000 ns/op	 1234 tok/s
BenchmarkSimple-2 	 10	 25 ns/op
PASS
kernel: avx2
pkg: stheno/ops
BenchmarkLinear/m=512/threads=1-2         	     100	   2200000 ns/op	        80.50 %peak	       60.00 GFLOP/s
kernel:
pkg: stheno
BenchmarkSimple-2 	 10	 25 ns/op
`

func TestTables(t *testing.T) {
	r, err := parse(strings.NewReader(output))
	require.NoError(t, err)
	var out bytes.Buffer
	r.write(&out, r.cpu+", 2 logical processors", "abc1234", "2026-01-02")
	text := out.String()
	for _, want := range []string{
		"- Some CPU @ 2.00GHz, 2 logical processors\n- 2026-01-02, commit abc1234\n- the median of 3 runs of each\n",
		"## stheno/ops\n\n### Linear\n\n| m | threads | kernel | time | %peak | GFLOP/s | GB/s |\n|---|---|---|---:|---:|---:|---:|\n" +
			"| 512 | 1 |  | 1.1 ms | 89.5 | 110 |  |\n| 1 | 2 |  | 950 ns |  |  | 12 |\n| 512 | 1 | avx2 | 2.2 ms | 80.5 | 60 |  |\n",
		"## stheno\n\n### Generate\n\n| model | nodes | time | tok/s |\n|---|---|---:|---:|\n| gotext | plain | 2.5 s | 1234 |\n",
		"### Simple\n\n| time |\n|---:|\n| 25 ns |\n",
	} {
		require.Contains(t, text, want)
	}
	require.Equal(t, 1, strings.Count(text, "## stheno/ops\n"))
}

func TestFailuresAreErrors(t *testing.T) {
	for _, text := range []string{
		"--- FAIL: BenchmarkX\n", "FAIL\tstheno/ops [build failed]\n", "BenchmarkX-2 10 wide ns/op\n",
	} {
		_, err := parse(strings.NewReader(text))
		require.Error(t, err, text)
	}
}

func TestMedian(t *testing.T) {
	require.Equal(t, 2.0, median([]float64{3, 1, 2}))
	require.Equal(t, 2.5, median([]float64{4, 1, 2, 3}))
}
