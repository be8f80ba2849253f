package main

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// results are the benchmarks of one run of go test, in the order of its output.
type results struct {
	cpu    string
	tables []*table
}

// table is one benchmark with all its cases.
type table struct {
	pkg, name string
	axes      []string // of the names of its cases: k in k=v
	units     []string
	cases     []*benchCase
}

// benchCase is one case, such as seq=512/causal=true.
type benchCase struct {
	path   string
	axes   map[string]string
	values map[string][]float64 // one for each time it ran, by unit
}

// procs is the GOMAXPROCS that go test puts behind a name.
var procs = regexp.MustCompile(`-\d+$`)

// parse reads the output of go test -bench. A package that failed is an error. A line "kernel: NAME" gives all cases up to the next
// such line the axis kernel=NAME: they ran with this instruction set asked for; no name ends that.
func parse(r io.Reader) (results, error) {
	out := results{cpu: "unknown processor"}
	pkg, kernel := "", ""
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, "pkg: "); ok {
			pkg = rest
		} else if rest, ok := strings.CutPrefix(line, "cpu: "); ok {
			out.cpu = rest
		} else if rest, ok := strings.CutPrefix(line, "kernel:"); ok {
			if kernel = strings.TrimSpace(rest); kernel != "" {
				kernel = "/kernel=" + kernel
			}
		} else if strings.HasPrefix(line, "FAIL") || strings.HasPrefix(line, "--- FAIL") {
			return out, fmt.Errorf("the benchmarks failed: %s", line)
		}
		f := strings.Fields(line)
		if len(f) < 4 || len(f)%2 != 0 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		if err := out.add(pkg, procs.ReplaceAllString(strings.TrimPrefix(f[0], "Benchmark"), "")+kernel, f[2:]); err != nil {
			return out, fmt.Errorf("%q: %w", line, err)
		}
	}
	return out, lines.Err()
}

// add notes one line: a benchmark's path and its pairs of value and unit.
func (r *results) add(pkg, path string, pairs []string) error {
	name, rest, _ := strings.Cut(path, "/")
	t := r.table(pkg, name)
	c := t.find(path, rest)
	for i := 0; i+1 < len(pairs); i += 2 {
		v, err := strconv.ParseFloat(pairs[i], 64)
		if err != nil {
			return err
		}
		unit := pairs[i+1]
		c.values[unit] = append(c.values[unit], v)
		if !slices.Contains(t.units, unit) {
			t.units = append(t.units, unit)
		}
	}
	return nil
}

func (r *results) table(pkg, name string) *table {
	for _, t := range r.tables {
		if t.pkg == pkg && t.name == name {
			return t
		}
	}
	t := &table{pkg: pkg, name: name}
	r.tables = append(r.tables, t)
	return t
}

// find returns the case of a path. Parts of a path without a = have the axis "case".
func (t *table) find(path, rest string) *benchCase {
	for _, c := range t.cases {
		if c.path == path {
			return c
		}
	}
	c := &benchCase{path: path, axes: map[string]string{}, values: map[string][]float64{}}
	for part := range strings.SplitSeq(rest, "/") {
		if part == "" {
			continue
		}
		key, value, ok := strings.Cut(part, "=")
		if !ok {
			key, value = "case", strings.TrimSpace(c.axes["case"]+" "+part)
		}
		if !slices.Contains(t.axes, key) {
			t.axes = append(t.axes, key)
		}
		c.axes[key] = value
	}
	t.cases = append(t.cases, c)
	return c
}
