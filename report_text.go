package stheno

import (
	"encoding/json"
	"fmt"
	"html"
	"math"
	"strings"

	"stheno/internal/parallel"
)

func threads() int { return parallel.Threads() }

// precisionSummary says how many layers have which precision: 28 int8, 1 f32.
func (m *Model) precisionSummary() string {
	count := map[Precision]int{}
	for _, l := range m.Layers() {
		count[l.Precision]++
	}
	var out []string
	for p := Auto; p >= F32; p-- {
		if count[p] > 0 {
			out = append(out, fmt.Sprintf("%d %v", count[p], p))
		}
	}
	return strings.Join(out, ", ")
}

var reportHeads = []string{
	"", "layers", "prefill tok/s", "generate tok/s", "weights", "cache", "peak memory", "bits/token", "perplexity loss", "mean KL", "same top token",
	"longest sequence", "largest batch",
}

// cells are the table's rows, as text.
func (r *ReportResult) cells() [][]string {
	var out [][]string
	for i, row := range r.Rows {
		peak := "not measured"
		if row.PeakBytes > 0 {
			peak = mib(row.PeakBytes)
		}
		loss, kl := fmt.Sprintf("%+.3f %%", 100*row.Loss), fmt.Sprintf("%.2e", row.KL)
		if i == 0 {
			loss, kl = "", ""
		}
		out = append(out, []string{
			row.Name, r.Precision[i], fmt.Sprintf("%.0f", row.Prefill), fmt.Sprintf("%.0f", row.Generate), mib(row.WeightBytes), mib(row.CacheBytes), peak,
			fmt.Sprintf("%.4f", row.Bits), loss, kl, fmt.Sprintf("%.2f %%", 100*row.Top1), fitting(row.LongestSequence), fmt.Sprint(row.LargestBatch),
		})
	}
	return out
}

// fitting is how many tokens fit, in words where a cache does not grow with them.
func fitting(n int64) string {
	if n >= math.MaxInt32 {
		return "any"
	}
	return fmt.Sprint(n)
}

func mib(n int64) string {
	switch x := float64(n) / (1 << 20); {
	case x < 10:
		return fmt.Sprintf("%.2f MiB", x)
	case x < 100:
		return fmt.Sprintf("%.1f MiB", x)
	default:
		return fmt.Sprintf("%.0f MiB", x)
	}
}

// caption says what the table is about.
func (r *ReportResult) caption() string {
	return fmt.Sprintf("%d tokens in stretches of %d; %d threads. KL in nats a token, from the model as it is. The last two columns: what fits "+
		"into the memory of weights and cache that the model as it is takes with one sequence of %d.", r.Tokens, r.Seq, r.Threads, r.Seq)
}

// Markdown is the report as a table.
func (r *ReportResult) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(reportHeads, " | "), strings.Repeat("---|", len(reportHeads)))
	for _, row := range r.cells() {
		for i, c := range row {
			row[i] = strings.ReplaceAll(c, "|", `\|`)
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	fmt.Fprintf(&b, "\n%s\n", r.caption())
	return b.String()
}

// HTML is the report as a table for notebooks.
func (r *ReportResult) HTML() string {
	var b strings.Builder
	b.WriteString("<table><tr>")
	for _, h := range reportHeads {
		fmt.Fprintf(&b, "<th>%s</th>", html.EscapeString(h))
	}
	b.WriteString("</tr>")
	for _, row := range r.cells() {
		b.WriteString("<tr>")
		for _, c := range row {
			fmt.Fprintf(&b, "<td>%s</td>", html.EscapeString(c))
		}
		b.WriteString("</tr>")
	}
	fmt.Fprintf(&b, "</table><p>%s</p>", html.EscapeString(r.caption()))
	return b.String()
}

// String is the report as lines of text, without the layers' precisions.
func (r *ReportResult) String() string {
	rows := [][]string{{"", "prefill", "generate", "weights", "cache", "peak", "bits/token", "loss", "KL", "top-1", "longest", "batch"}}
	for _, c := range r.cells() {
		rows = append(rows, append(c[:1:1], c[2:]...))
	}
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, c := range row {
			pad := strings.Repeat(" ", width[i]-len([]rune(c)))
			if i == 0 {
				b.WriteString(c + pad + "  ")
			} else {
				b.WriteString(pad + c + "  ")
			}
		}
		b.WriteString("\n")
	}
	return b.String() + r.caption() + "\n"
}

// JSON is the report with all digits.
func (r *ReportResult) JSON() ([]byte, error) { return json.MarshalIndent(r, "", "  ") }
