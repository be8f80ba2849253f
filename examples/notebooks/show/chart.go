package show

import (
	"fmt"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// Chart says what Draw draws. Axes begin and end with the data unless they are told otherwise.
type Chart struct {
	Title string
	// X and Y name the axes.
	X, Y string
	// LogX and LogY make an axis logarithmic; its numbers must be above 0.
	LogX, LogY bool
	// XBytes and YBytes label an axis in KiB, MiB and so on.
	XBytes, YBytes bool
	// YMin and YMax are the ends of the vertical axis; both 0 means those of the data.
	YMin, YMax float64
	Curves     []Curve
	// Width and Height are the size in centimetres. 0 means 17 × 9.
	Width, Height float64
}

// Curve is one series of points.
type Curve struct {
	// Name stands in the legend; empty for none.
	Name string
	// X are the places; nil means 1, 2, 3 …
	X, Y []float64
	// Points draws a mark at every place, Labels writes a word beside each. Loose leaves out the line between them.
	Points, Loose bool
	Labels        []string
	// Smooth draws the running mean over the last so many places, and the curve itself faintly. 0 means no mean.
	Smooth int
	// Dashed draws a dashed line.
	Dashed bool
}

// The colours of charts.
var (
	ink    = color.RGBA{0x22, 0x2b, 0x36, 0xff}
	faded  = color.RGBA{0x8a, 0x94, 0xa0, 0xff}
	grid   = color.RGBA{0xe4, 0xe8, 0xec, 0xff}
	curves = []color.RGBA{{0x00, 0x7d, 0x9c, 0xff}, {0xce, 0x5a, 0x1e, 0xff}, {0x5b, 0x4b, 0x9e, 0xff}, {0x3f, 0x8f, 0x4f, 0xff}, {0xb0, 0x3a, 0x6e, 0xff}}
)

// Draw draws a chart.
func Draw(c Chart) (*Picture, error) {
	p, err := c.plot()
	if err != nil {
		return nil, fmt.Errorf("show.Draw: %w", err)
	}
	w, h := c.Width, c.Height
	if w == 0 {
		w = 17
	}
	if h == 0 {
		h = 9
	}
	if !(w >= 4 && w <= 60 && h >= 3 && h <= 60) {
		return nil, fmt.Errorf("show.Draw: got %v × %v cm, want 4 to 60 by 3 to 60", c.Width, c.Height)
	}
	canvas := vgimg.NewWith(vgimg.UseWH(vg.Length(w)*vg.Centimeter, vg.Length(h)*vg.Centimeter), vgimg.UseDPI(144), vgimg.UseBackgroundColor(color.White))
	p.Draw(draw.Crop(draw.New(canvas), vg.Points(6), -vg.Points(12), vg.Points(6), -vg.Points(6)))
	return &Picture{Image: canvas.Image(), Density: 1.5}, nil
}

func (c Chart) plot() (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.Title, c.X, c.Y
	style(p)
	g := plotter.NewGrid()
	g.Horizontal.Color, g.Vertical.Color = grid, color.Transparent
	p.Add(g)
	if len(c.Curves) == 0 {
		return nil, fmt.Errorf("got no curves, want at least one")
	}
	var all plotter.XYs
	for i, curve := range c.Curves {
		at, err := curve.points(c)
		if err == nil {
			err = curve.add(p, at, curves[i%len(curves)])
		}
		if err != nil {
			return nil, fmt.Errorf("curve %d, %q: %w", i, curve.Name, err)
		}
		all = append(all, at...)
	}
	if c.YMin != 0 || c.YMax != 0 {
		if !(c.YMin < c.YMax) || c.LogY && c.YMin <= 0 {
			return nil, fmt.Errorf("got YMin %v and YMax %v, want YMin below YMax, and above 0 with LogY", c.YMin, c.YMax)
		}
		p.Y.Min, p.Y.Max = c.YMin, c.YMax
	}
	for _, a := range []struct {
		axis       *plot.Axis
		log, bytes bool
	}{{&p.X, c.LogX, c.XBytes}, {&p.Y, c.LogY, c.YBytes}} {
		widen(a.axis, a.log)
		if a.log {
			a.axis.Scale = plot.LogScale{}
		}
		a.axis.Tick.Marker = ticks{log: a.log, bytes: a.bytes}
	}
	if places := distinct(all); c.LogX && len(places) <= most+1 {
		p.X.Tick.Marker = ticks{bytes: c.XBytes, at: places}
	}
	placeLegend(p, all)
	return p, nil
}

// widen gives an axis a length where all numbers are one, and a little room at its ends.
func widen(a *plot.Axis, log bool) {
	switch {
	case log && a.Min == a.Max:
		a.Min, a.Max = a.Min/2, a.Max*2
	case log:
		room := math.Pow(a.Max/a.Min, 0.03)
		a.Min, a.Max = a.Min/room, a.Max*room
	case a.Min == a.Max:
		a.Min, a.Max = a.Min-1, a.Max+1
	default:
		room := 0.03 * (a.Max - a.Min)
		a.Min, a.Max = a.Min-room, a.Max+room
	}
}

func (u Curve) add(p *plot.Plot, at plotter.XYs, colour color.RGBA) error {
	if u.Smooth > 0 {
		pale := colour
		pale.R, pale.G, pale.B = 255-(255-pale.R)/3, 255-(255-pale.G)/3, 255-(255-pale.B)/3
		if err := line(p, at, draw.LineStyle{Color: pale, Width: vg.Points(0.8)}, ""); err != nil {
			return err
		}
		at = runningMean(at, u.Smooth)
	}
	if !u.Loose {
		s := draw.LineStyle{Color: colour, Width: vg.Points(2)}
		if u.Dashed {
			s.Dashes = []vg.Length{vg.Points(6), vg.Points(4)}
		}
		if err := line(p, at, s, u.Name); err != nil {
			return err
		}
	}
	if u.Points || u.Loose {
		s, err := plotter.NewScatter(at)
		if err != nil {
			return err
		}
		s.GlyphStyle = draw.GlyphStyle{Color: colour, Radius: vg.Points(3.5), Shape: draw.CircleGlyph{}}
		p.Add(s)
		if u.Loose && u.Name != "" {
			p.Legend.Add(u.Name, s)
		}
	}
	return u.label(p, at, colour)
}

// points are the curve's places and values.
func (u Curve) points(c Chart) (plotter.XYs, error) {
	if len(u.Y) == 0 || u.X != nil && len(u.X) != len(u.Y) || u.Labels != nil && len(u.Labels) != len(u.Y) || u.Smooth < 0 {
		return nil, fmt.Errorf("got %d X, %d Y, %d labels and Smooth %d, want at least one Y, as many X and labels or none, and Smooth at least 0",
			len(u.X), len(u.Y), len(u.Labels), u.Smooth)
	}
	at := make(plotter.XYs, len(u.Y))
	for i, y := range u.Y {
		x := float64(i + 1)
		if u.X != nil {
			x = u.X[i]
		}
		at[i] = plotter.XY{X: x, Y: y}
		if math.IsNaN(x+y) || math.IsInf(x, 0) || math.IsInf(y, 0) || c.LogX && x <= 0 || c.LogY && y <= 0 {
			return nil, fmt.Errorf("point %d: got (%v, %v), want finite numbers, above 0 on a logarithmic axis", i, x, y)
		}
	}
	return at, nil
}

func line(p *plot.Plot, at plotter.XYs, style draw.LineStyle, name string) error {
	l, err := plotter.NewLine(at)
	if err != nil {
		return err
	}
	l.LineStyle = style
	p.Add(l)
	if name != "" {
		p.Legend.Add(name, l)
	}
	return nil
}

// runningMean is the mean of each value and up to n−1 before it.
func runningMean(at plotter.XYs, n int) plotter.XYs {
	out := make(plotter.XYs, len(at))
	sum := 0.0
	for i, p := range at {
		sum += p.Y
		if i >= n {
			sum -= at[i-n].Y
		}
		out[i] = plotter.XY{X: p.X, Y: sum / float64(min(i+1, n))}
	}
	return out
}

// label writes the curve's labels above their points.
func (u Curve) label(p *plot.Plot, at plotter.XYs, colour color.RGBA) error {
	if u.Labels == nil {
		return nil
	}
	l, err := plotter.NewLabels(plotter.XYLabels{XYs: at, Labels: slices.Clone(u.Labels)})
	if err != nil {
		return err
	}
	for i := range l.TextStyle {
		s := p.X.Tick.Label
		s.Color, s.XAlign, s.YAlign = colour, text.XCenter, text.YBottom
		l.TextStyle[i] = s
	}
	l.Offset = vg.Point{Y: vg.Points(6)}
	p.Add(l)
	return nil
}

func style(p *plot.Plot) {
	p.Title.TextStyle.Font.Variant = "Sans"
	p.Title.TextStyle.Font.Size = vg.Points(12)
	p.Title.TextStyle.Color = ink
	p.Title.Padding = vg.Points(8)
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.LineStyle.Color, a.Tick.LineStyle.Color = faded, faded
		a.Label.TextStyle.Color, a.Tick.Label.Color = ink, ink
		a.Label.TextStyle.Font.Size, a.Tick.Label.Font.Size = vg.Points(10.5), vg.Points(9.5)
		a.Label.TextStyle.Font.Variant, a.Tick.Label.Font.Variant = "Sans", "Sans"
		a.Label.Padding = vg.Points(5)
	}
	p.Legend.TextStyle.Color, p.Legend.TextStyle.Font = ink, p.X.Tick.Label.Font
	p.Legend.Padding, p.Legend.ThumbnailWidth = vg.Points(3), vg.Points(22)
}

// placeLegend puts the legend into the corner that the fewest points lie in.
func placeLegend(p *plot.Plot, points plotter.XYs) {
	best := len(points) + 1
	for _, top := range []bool{true, false} {
		for _, left := range []bool{false, true} {
			n := 0
			for _, at := range points {
				x, y := p.X.Norm(at.X), p.Y.Norm(at.Y)
				if (x < 0.45) == left && (left || x > 0.55) && (y > 0.65) == top && (top || y < 0.35) {
					n++
				}
			}
			if n < best {
				best, p.Legend.Top, p.Legend.Left = n, top, left
			}
		}
	}
	p.Legend.XOffs, p.Legend.YOffs = -vg.Points(6), vg.Points(6)
	if p.Legend.Left {
		p.Legend.XOffs = -p.Legend.XOffs
	}
	if p.Legend.Top {
		p.Legend.YOffs = -p.Legend.YOffs
	}
}
