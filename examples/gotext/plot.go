package main

import (
	"bufio"
	"fmt"
	"image/color"
	"math"
	"os"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// The colours of the pictures.
var (
	ink   = color.RGBA{0x22, 0x2b, 0x36, 0xff}
	faded = color.RGBA{0x8a, 0x94, 0xa0, 0xff}
	grid  = color.RGBA{0xe4, 0xe8, 0xec, 0xff}
	ours  = color.RGBA{0x00, 0x7d, 0x9c, 0xff}
	pale  = color.RGBA{0xb5, 0xdd, 0xe7, 0xff}
	warm  = color.RGBA{0xce, 0x5a, 0x1e, 0xff}
)

// newPlot is an empty plot in the common style.
func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.TextStyle.Font.Variant = "Sans"
	p.Title.Text = title
	p.Title.TextStyle.Font.Size = vg.Points(13)
	p.Title.TextStyle.Color = ink
	p.Title.Padding = vg.Points(8)
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.LineStyle.Color, a.Tick.LineStyle.Color = faded, faded
		a.Label.TextStyle.Color, a.Tick.Label.Color = ink, ink
		a.Label.TextStyle.Font.Size, a.Tick.Label.Font.Size = vg.Points(11), vg.Points(10)
		a.Label.TextStyle.Font.Variant, a.Tick.Label.Font.Variant = "Sans", "Sans"
		a.Label.Padding = vg.Points(5)
	}
	return p
}

// labelStyle is the style of text inside a plot.
func labelStyle(p *plot.Plot, c color.Color, x text.XAlignment, y text.YAlignment) text.Style {
	s := p.X.Tick.Label
	s.Color, s.XAlign, s.YAlign = c, x, y
	s.Font.Size = vg.Points(10)
	return s
}

// addLabels writes words at points of the plot.
func addLabels(p *plot.Plot, style text.Style, offset vg.Point, at plotter.XYs, words ...string) error {
	l, err := plotter.NewLabels(plotter.XYLabels{XYs: at, Labels: words})
	if err != nil {
		return err
	}
	for i := range l.TextStyle {
		l.TextStyle[i] = style
	}
	l.Offset = offset
	p.Add(l)
	return nil
}

// addLine draws a line through points.
func addLine(p *plot.Plot, c color.Color, width float64, at plotter.XYs, dashes ...vg.Length) error {
	l, err := plotter.NewLine(at)
	if err != nil {
		return err
	}
	l.LineStyle = draw.LineStyle{Color: c, Width: vg.Points(width), Dashes: dashes}
	p.Add(l)
	return nil
}

// writePNG draws p at twice the usual resolution, on white with a margin.
func writePNG(path string, p *plot.Plot, width, height vg.Length) (err error) {
	c := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(144), vgimg.UseBackgroundColor(color.White))
	p.Draw(draw.Crop(draw.New(c), vg.Points(10), -vg.Points(14), vg.Points(10), -vg.Points(10)))
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	if _, err = (vgimg.PngCanvas{Canvas: c}).WriteTo(w); err == nil {
		err = w.Flush()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// plotLoss draws the loss of each step, its running mean, and where held-out text and gzip are.
func (j *job) plotLoss(path string) error {
	p := newPlot("Training on " + j.text.name)
	p.X.Label.Text, p.Y.Label.Text = "step", "bits per byte (log scale)"
	g := plotter.NewGrid()
	g.Horizontal.Color, g.Vertical.Color = grid, color.Transparent
	p.Add(g)

	raw, mean := make(plotter.XYs, len(j.bits)), make(plotter.XYs, len(j.bits))
	smooth, weight := 0.0, 0.0
	keep := 1 - 1/max(2, min(40, float64(len(j.bits))/20))
	for i, y := range j.bits {
		smooth, weight = keep*smooth+(1-keep)*y, keep*weight+(1-keep)
		raw[i] = plotter.XY{X: float64(i + 1), Y: y}
		mean[i] = plotter.XY{X: float64(i + 1), Y: smooth / weight}
	}
	last := float64(len(j.bits))
	level := func(y float64) plotter.XYs { return plotter.XYs{{X: 1, Y: y}, {X: last, Y: y}} }
	for _, err := range []error{
		addLine(p, pale, 0.8, raw),
		addLine(p, ours, 2.2, mean),
		addLine(p, faded, 1.2, level(j.gzip), vg.Points(5), vg.Points(4)),
		addLine(p, warm, 1.2, level(j.heldOut), vg.Points(2), vg.Points(3)),
	} {
		if err != nil {
			return err
		}
	}
	p.Y.Scale = plot.LogScale{}
	p.Y.Min = min(slices.Min(j.bits), j.gzip, j.heldOut) * 0.93
	p.Y.Max = max(slices.Max(j.bits), j.gzip, j.heldOut) * 1.04
	p.X.Min, p.X.Max = 1, last
	p.X.Tick.Marker, p.Y.Tick.Marker = roundTicks{}, bitTicks{}

	// The levels are named in the right margin, a line's height apart at least.
	apart := math.Pow(p.Y.Max/p.Y.Min, 0.06)
	names := []struct {
		c color.Color
		s string
		y float64
	}{
		{ink, fmt.Sprintf("gzip -9\nheld-out text: %.2f", j.gzip), j.gzip},
		{warm, fmt.Sprintf("this model\nheld-out text: %.2f", j.heldOut), j.heldOut},
	}
	low, high := &names[0], &names[1]
	if low.y > high.y {
		low, high = high, low
	}
	if gap := high.y / low.y; gap < apart*apart {
		push := apart / math.Sqrt(gap)
		low.y, high.y = low.y/push, high.y*push
	}
	for _, n := range names {
		y := max(p.Y.Min, n.y)
		if err := addLabels(p, labelStyle(p, n.c, text.XLeft, text.YCenter), vg.Point{X: vg.Points(6)}, plotter.XYs{{X: last, Y: y}}, n.s); err != nil {
			return err
		}
	}
	top := math.Exp((math.Log(p.Y.Max)*9 + math.Log(p.Y.Min)) / 10)
	if err := addLabels(p, labelStyle(p, ours, text.XRight, text.YCenter), vg.Point{X: -vg.Points(4)}, plotter.XYs{{X: last, Y: top}},
		"training loss, and its running mean"); err != nil {
		return err
	}
	return writePNG(path, p, 20*vg.Centimeter, 11*vg.Centimeter)
}

// plotComparison draws by what factor our nodes are better than plain ones.
func plotComparison(path string, c comparison) error {
	p := newPlot("The same weights: stheno's nodes against plain Gorgonia nodes")
	var names []string
	var rows []row
	for _, r := range slices.Backward(c.rows()) {
		if r.factor > 0 {
			names, rows = append(names, r.what), append(rows, r)
		}
	}
	if len(rows) == 0 {
		return fmt.Errorf("nothing was measured for both sets of nodes")
	}
	most := 1.0
	var values plotter.Values
	var ends plotter.XYs
	var words []string
	for i, r := range rows {
		values = append(values, r.factor)
		most = max(most, r.factor)
		ends = append(ends, plotter.XY{X: r.factor, Y: float64(i)})
		words = append(words, fmt.Sprintf("%.1f ×    %s → %s", r.factor, r.plain, r.ours))
	}
	bars, err := plotter.NewBarChart(values, vg.Points(20))
	if err != nil {
		return err
	}
	bars.Horizontal, bars.Color, bars.LineStyle.Width = true, ours, 0
	p.Add(bars)
	if err := addLine(p, ink, 1, plotter.XYs{{X: 1, Y: -0.6}, {X: 1, Y: float64(len(rows)) - 0.4}}, vg.Points(4), vg.Points(3)); err != nil {
		return err
	}
	if err := addLabels(p, labelStyle(p, ink, text.XLeft, text.YCenter), vg.Point{X: vg.Points(6), Y: vg.Points(2)}, ends, words...); err != nil {
		return err
	}
	p.NominalY(names...)
	p.Y.Tick.Label.Font.Size = vg.Points(11)
	p.X.Label.Text = "times better than plain (dashed: 1): faster, or less memory"
	p.X.Tick.Marker = roundTicks{}
	p.X.Min, p.X.Max = 0, most*1.7 // room for the words beside the longest bar
	p.Y.Min, p.Y.Max = -0.6, float64(len(rows))-0.4
	return writePNG(path, p, 20*vg.Centimeter, vg.Length(3+1.25*float64(len(rows)))*vg.Centimeter)
}
