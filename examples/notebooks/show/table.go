package show

import (
	"fmt"
	"strings"
)

// Table is rows of cells under a head. A cell whose value it is shows it.
type Table struct {
	Head []string
	Rows [][]string
}

// Row adds a row: text as it is, fractions with three digits, anything else as fmt prints it.
func (t *Table) Row(cells ...any) {
	var row []string
	for _, c := range cells {
		switch c.(type) {
		case float32, float64:
			row = append(row, fmt.Sprintf("%.3g", c))
		default:
			row = append(row, fmt.Sprint(c))
		}
	}
	t.Rows = append(t.Rows, row)
}

// Markdown is the table in Markdown, columns of numbers to the right. Short rows end in empty cells.
func (t *Table) Markdown() string {
	n := len(t.Head)
	for _, r := range t.Rows {
		n = max(n, len(r))
	}
	if n == 0 {
		return ""
	}
	var b strings.Builder
	line := func(cells []string) {
		for i := range n {
			b.WriteString("| ")
			if i < len(cells) {
				b.WriteString(strings.NewReplacer("|", `\|`, "\n", " ").Replace(cells[i]))
			}
			b.WriteByte(' ')
		}
		b.WriteString("|\n")
	}
	line(t.Head)
	for i := range n {
		if t.numeric(i) {
			b.WriteString("|---:")
		} else {
			b.WriteString("|:---")
		}
	}
	b.WriteString("|\n")
	for _, r := range t.Rows {
		line(r)
	}
	return b.String()
}

// numeric reports whether every cell of column i that is not empty begins like a number.
func (t *Table) numeric(i int) bool {
	some := false
	for _, r := range t.Rows {
		if i < len(r) && r[i] != "" {
			if !strings.ContainsAny(r[i][:1], "+-.0123456789") {
				return false
			}
			some = true
		}
	}
	return some
}

// String is the table as Markdown shows it.
func (t *Table) String() string { return t.Markdown() }
