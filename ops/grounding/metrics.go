package grounding

import (
	"cmp"
	"fmt"
	"html"
	"image"
	"math"
	"slices"
	"strings"
)

// Phrase is one phrase of a caption with the truth about it, for Evaluate.
type Phrase struct {
	// Result is what was found.
	Result *Result
	// Truth are the true boxes, one or more, in pixels of the original picture.
	Truth []image.Rectangle
	// Type groups phrases: «colour», «shape», «people». Empty is a type of its own.
	Type string
}

// Scores are the metrics of a group of phrases. All are shares, 0 to 1.
type Scores struct {
	Type    string
	Phrases int
	// Pointing is the pointing game: the point of the largest value lies in a true box.
	Pointing float64
	// AnyR1, AnyR5 and AnyR10 are recalls at IoU ≥ 0.5 in the any-box protocol: one of the first 1, 5 or 10 boxes meets at
	// least one of the true boxes.
	AnyR1, AnyR5, AnyR10 float64
	// MergedR1, MergedR5 and MergedR10 are the same in the merged-box protocol: the true boxes of a phrase are replaced by
	// the smallest box around them all.
	MergedR1, MergedR5, MergedR10 float64
	// MeanIoU is the mean over phrases of the IoU between the first box and the merged true box, 0 where there is no box.
	MeanIoU float64
}

// Report is the result of Evaluate.
type Report struct {
	// All is over all phrases, ByType over those of each type, in alphabetical order.
	All    Scores
	ByType []Scores
}

// Evaluate scores phrases. The two protocols differ where a phrase has several true boxes and must not be compared with
// each other: papers on Flickr30k Entities use both.
func Evaluate(phrases []Phrase) (*Report, error) {
	const fn = "grounding.Evaluate"
	if len(phrases) == 0 {
		return nil, fmt.Errorf("%s: got no phrases, want at least one", fn)
	}
	groups := map[string]*Scores{}
	r := &Report{All: Scores{Type: "all"}}
	for i, p := range phrases {
		if p.Result == nil || p.Result.Grid == nil {
			return nil, fmt.Errorf("%s: phrase %d: got no result, want one of Results", fn, i)
		}
		if len(p.Truth) == 0 || slices.ContainsFunc(p.Truth, image.Rectangle.Empty) {
			return nil, fmt.Errorf("%s: phrase %d (%s): got true boxes %v, want at least one and none empty", fn, i, p.Result.Label, p.Truth)
		}
		g := groups[p.Type]
		if g == nil {
			g = &Scores{Type: p.Type}
			groups[p.Type] = g
		}
		s := score(p)
		r.All.add(s)
		g.add(s)
	}
	r.All.finish()
	for _, g := range groups {
		g.finish()
		r.ByType = append(r.ByType, *g)
	}
	slices.SortFunc(r.ByType, func(a, b Scores) int { return cmp.Compare(a.Type, b.Type) })
	return r, nil
}

// score is one phrase.
func score(p Phrase) Scores {
	var whole image.Rectangle
	for _, t := range p.Truth {
		whole = whole.Union(t)
	}
	s := Scores{Phrases: 1}
	point := p.Result.Point()
	if slices.ContainsFunc(p.Truth, func(t image.Rectangle) bool { return point.In(t) }) {
		s.Pointing = 1
	}
	s.AnyR1, s.AnyR5, s.AnyR10 = recalls(p.Result.Boxes, p.Truth)
	s.MergedR1, s.MergedR5, s.MergedR10 = recalls(p.Result.Boxes, []image.Rectangle{whole})
	if len(p.Result.Boxes) > 0 {
		s.MeanIoU = IoU(p.Result.Boxes[0].Rectangle, whole)
	}
	return s
}

// recalls says whether one of the first 1, 5 and 10 boxes meets a true one.
func recalls(boxes []Box, truth []image.Rectangle) (r1, r5, r10 float64) {
	for i, b := range boxes {
		if !slices.ContainsFunc(truth, func(t image.Rectangle) bool { return IoU(b.Rectangle, t) >= 0.5 }) {
			continue
		}
		if i < 1 {
			r1 = 1
		}
		if i < 5 {
			r5 = 1
		}
		if i < 10 {
			r10 = 1
		}
		break
	}
	return
}

func (s *Scores) values() []*float64 {
	return []*float64{&s.Pointing, &s.AnyR1, &s.AnyR5, &s.AnyR10, &s.MergedR1, &s.MergedR5, &s.MergedR10, &s.MeanIoU}
}

func (s *Scores) add(one Scores) {
	for i, v := range one.values() {
		*s.values()[i] += *v
	}
	s.Phrases++
}

func (s *Scores) finish() {
	for _, v := range s.values() {
		*v /= float64(s.Phrases)
	}
}

var scoreNames = []string{"pointing", "any R@1", "R@5", "R@10", "merged R@1", "R@5", "R@10", "mIoU"}

// cellWidth has room for 100.0.
const cellWidth = 5

// rows are the lines of the report's table.
func (r *Report) rows() []Scores {
	if len(r.ByType) == 1 && r.ByType[0].Type == "" {
		return []Scores{r.All}
	}
	return append([]Scores{r.All}, r.ByType...)
}

// String is the report as a table of percentages, mIoU as a number.
func (r *Report) String() string {
	var b strings.Builder
	width := len("phrases")
	for _, s := range r.rows() {
		width = max(width, len([]rune(s.Type)))
	}
	fmt.Fprintf(&b, "%-*s %7s", width, "type", "phrases")
	for _, n := range scoreNames {
		fmt.Fprintf(&b, "  %*s", max(cellWidth, len(n)), n)
	}
	for _, s := range r.rows() {
		fmt.Fprintf(&b, "\n%-*s %7d", width, s.Type, s.Phrases)
		for i := range scoreNames {
			fmt.Fprintf(&b, "  %*s", max(cellWidth, len(scoreNames[i])), s.cell(i))
		}
	}
	return b.String()
}

func (s Scores) cell(i int) string {
	x := *s.values()[i]
	if i == len(scoreNames)-1 {
		return fmt.Sprintf("%.3f", x)
	}
	return fmt.Sprintf("%.1f", math.Round(1000*x)/10)
}

// HTML is the report as a table for notebooks.
func (r *Report) HTML() string {
	var b strings.Builder
	b.WriteString("<table><tr><th>type</th><th>phrases</th>")
	for _, n := range scoreNames {
		fmt.Fprintf(&b, "<th>%s</th>", n)
	}
	b.WriteString("</tr>")
	for _, s := range r.rows() {
		fmt.Fprintf(&b, "<tr><td>%s</td><td>%d</td>", html.EscapeString(s.Type), s.Phrases)
		for i := range scoreNames {
			fmt.Fprintf(&b, "<td>%s</td>", s.cell(i))
		}
		b.WriteString("</tr>")
	}
	b.WriteString("</table>")
	return b.String()
}
