package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// write prints the results as Markdown.
func (r results) write(w io.Writer, machine, commit, date string) {
	fmt.Fprintf(w, `# Performance

Written by `+"`scripts/bench.sh`"+`; medians. GFLOP/s count useful operations (half of them under a causal mask), and %%peak is
their share of what register-only multiply-adds reach in the same process on the same threads, with the instruction set that
kernel names where it names one (`+"`STHENO_KERNEL`"+`). plain: a graph of Gorgonia's own nodes with gonum's products, over the same
weights. No figure is from a card: the kernels of `+"`cudamodules`"+` have run on an emulated one only (`+"`scripts/gpu.sh`"+`
measures them).

- %s
- %s, commit %s
- %s
`, machine, date, commit, r.runs())
	pkg := ""
	for _, t := range r.tables {
		if t.pkg != pkg {
			pkg = t.pkg
			fmt.Fprintf(w, "\n## %s\n", pkg)
		}
		t.write(w)
	}
}

// runs says how often a case ran, at most.
func (r results) runs() string {
	n := 0
	for _, t := range r.tables {
		for _, c := range t.cases {
			for _, v := range c.values {
				n = max(n, len(v))
			}
		}
	}
	if n == 1 {
		return "one run of each"
	}
	return fmt.Sprintf("the median of %d runs of each", n)
}

func (t *table) write(w io.Writer) {
	head := slices.Clone(t.axes)
	for _, u := range t.units {
		head = append(head, unitName(u))
	}
	fmt.Fprintf(w, "\n### %s\n\n| %s |\n|%s\n", t.name, strings.Join(head, " | "),
		strings.Repeat("---|", len(t.axes))+strings.Repeat("---:|", len(t.units)))
	for _, c := range t.cases {
		var cells []string
		for _, a := range t.axes {
			cells = append(cells, c.axes[a])
		}
		for _, u := range t.units {
			cells = append(cells, cell(u, c.values[u]))
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
}

// unitName is how a unit of go test is called in a table.
func unitName(unit string) string {
	if unit == "ns/op" {
		return "time"
	}
	return unit
}

// cell writes the median of values, which may be none.
func cell(unit string, values []float64) string {
	if len(values) == 0 {
		return ""
	}
	x := median(values)
	if unit == "ns/op" {
		return duration(x)
	}
	if math.Abs(x) >= 1000 || x == math.Trunc(x) {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.3g", x)
}

// duration writes nanoseconds.
func duration(ns float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}} {
		if ns >= u.size {
			return fmt.Sprintf("%.3g %s", ns/u.size, u.name)
		}
	}
	return fmt.Sprintf("%.3g ns", ns)
}

// median returns the middle of values, the mean of the middle two where their number is even.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}
