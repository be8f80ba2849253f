package grounding

import (
	"cmp"
	"fmt"
	"html"
	"image"
	"math"
	"slices"
	"strings"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
)

// ResultConfig configures Results.
type ResultConfig struct {
	// Threshold selects patches whose value is at least that large. 0 means 0.5; Calibrate finds one from labelled data.
	Threshold float64
	// Relative takes Threshold as a share of the token's largest value, which suits maps of no fixed height: those of
	// Attention, or cosines that were never trained.
	Relative bool
	// TopK selects that many patches instead, the largest. 0 means by Threshold.
	TopK int
	// Refine looks for regions on the map interpolated to that many steps a patch, so that edges need not lie on the grid's.
	// 0 and 1 mean none. It has no effect with TopK.
	Refine int
	// Corners lets patches that only touch at a corner belong to one region.
	Corners bool
	// Labels names the tokens in results and pictures. nil means none; else there is one for each row of the maps.
	Labels []string
}

// Box is a region in pixels of the original picture, half-open: it spans Min.X ≤ x < Max.X.
type Box struct {
	image.Rectangle
	// Score is the mean of the map over the region, Mass the sum in units of one patch.
	Score, Mass float64
}

// Result is what one token speaks of.
type Result struct {
	Label string
	// Map has one value for each patch of Grid.
	Map  []float64
	Grid *Grid
	// Max is the map's largest value, at patch Best.
	Max  float64
	Best int
	// Patches are the selected ones, in ascending order.
	Patches []int
	// Boxes are the connected regions of selected patches, that of the largest Mass first.
	Boxes []Box
}

// Point is the pixel of the original that the token points at: the centre of its best patch.
func (r *Result) Point() image.Point {
	b := r.Grid.Rect(r.Best)
	return image.Pt((b.Min.X+b.Max.X-1)/2, (b.Min.Y+b.Max.Y-1)/2)
}

// HTML is a row of a table for notebooks: label, largest value, boxes.
func (r *Result) HTML() string {
	var boxes []string
	for _, b := range r.Boxes {
		boxes = append(boxes, fmt.Sprintf("%v (%.2f)", b.Rectangle, b.Score))
	}
	return fmt.Sprintf("<table><tr><td><b>%s</b></td><td>max %.3f</td><td>%s</td></tr></table>",
		html.EscapeString(r.Label), r.Max, strings.Join(boxes, "<br>"))
}

// Results reads the maps of one picture: maps is a float tensor (tokens, patches), or (1, tokens, patches), such as the
// value of Ground's node, with patches as in grid. Padding (Grid.Mask) is left out.
func Results(maps G.Value, grid *Grid, cfg ResultConfig) ([]*Result, error) {
	const fn = "grounding.Results"
	rows, err := mapRows(fn, maps, grid)
	if err != nil {
		return nil, err
	}
	if cfg, err = cfg.normalised(fn, len(rows), grid.Len()); err != nil {
		return nil, err
	}
	out := make([]*Result, len(rows))
	for t, row := range rows {
		r := &Result{Map: row, Grid: grid}
		if cfg.Labels != nil {
			r.Label = cfg.Labels[t]
		}
		r.read(cfg)
		out[t] = r
	}
	return out, nil
}

func (c ResultConfig) normalised(fn string, tokens, patches int) (ResultConfig, error) {
	if c.Threshold == 0 {
		c.Threshold = 0.5
	}
	switch {
	case math.IsNaN(c.Threshold) || math.IsInf(c.Threshold, 0):
		return c, fmt.Errorf("%s: Threshold: got %v, want a finite number, or 0 for 0.5", fn, c.Threshold)
	case c.TopK < 0 || c.TopK > patches:
		return c, fmt.Errorf("%s: TopK: got %d, want 0 to %d", fn, c.TopK, patches)
	case c.Refine < 0 || c.Refine > 64:
		return c, fmt.Errorf("%s: Refine: got %d, want 0 to 64", fn, c.Refine)
	case c.Labels != nil && len(c.Labels) != tokens:
		return c, fmt.Errorf("%s: Labels: got %d, want %d as there are tokens", fn, len(c.Labels), tokens)
	}
	return c, nil
}

// mapRows are the rows of maps as float64.
func mapRows(fn string, maps G.Value, grid *Grid) ([][]float64, error) {
	if grid == nil {
		return nil, fmt.Errorf("%s: got a nil grid", fn)
	}
	if grid.Len() < 1 || !(grid.x1 > grid.x0) || !(grid.y1 > grid.y0) {
		return nil, fmt.Errorf("%s: got a grid of %v, want one of NewGrid, Patches or ImageTensor", fn, grid)
	}
	if maps == nil {
		return nil, fmt.Errorf("%s: maps: got no value, want a tensor (tokens, patches); has the graph run?", fn)
	}
	s := maps.Shape()
	if s.Dims() == 3 && s[0] == 1 {
		s = s[1:]
	}
	if s.Dims() != 2 || s[1] != grid.Len() {
		return nil, fmt.Errorf("%s: maps: got shape %v, want (tokens, %d)", fn, maps.Shape(), grid.Len())
	}
	var data []float64
	if maps.Dtype() == tensor.Float64 {
		d, err := op.Data[float64](maps)
		if err != nil {
			return nil, fmt.Errorf("%s: maps: %w", fn, err)
		}
		data = slices.Clone(d)
	} else {
		d, err := op.Data[float32](maps)
		if err != nil {
			return nil, fmt.Errorf("%s: maps: %w", fn, err)
		}
		for _, x := range d {
			data = append(data, float64(x))
		}
	}
	rows := make([][]float64, s[0])
	for t := range rows {
		rows[t] = data[t*s[1] : (t+1)*s[1]]
		for p, x := range rows[t] {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				return nil, fmt.Errorf("%s: maps: got %v for token %d, patch %d, want finite numbers", fn, x, t, p)
			}
		}
	}
	return rows, nil
}

// read fills in what follows from the map.
func (r *Result) read(c ResultConfig) {
	mask := r.Grid.Mask()
	order := make([]int, 0, len(mask)) // real patches, the largest value first, the first of equals first
	for p, m := range mask {
		if m != 0 {
			order = append(order, p)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(r.Map[b], r.Map[a]) })
	r.Best = order[0]
	r.Max = r.Map[r.Best]
	threshold := c.Threshold
	if c.Relative {
		threshold *= r.Max
	}
	n := c.TopK
	for n < len(order) && c.TopK == 0 && r.Map[order[n]] >= threshold {
		n++
	}
	r.Patches = slices.Sorted(slices.Values(order[:min(n, len(order))]))
	if c.TopK > 0 || c.Refine <= 1 {
		on := make([]bool, r.Grid.Len())
		for _, p := range r.Patches {
			on[p] = true
		}
		r.Boxes = regions(r.Grid, 1, on, r.Map, c.Corners)
		return
	}
	fine := refined(r.Map, r.Grid, c.Refine)
	on := make([]bool, len(fine))
	cols := r.Grid.Cols * c.Refine
	for i, x := range fine {
		on[i] = x >= threshold && mask[i/cols/c.Refine*r.Grid.Cols+i%cols/c.Refine] != 0
	}
	r.Boxes = regions(r.Grid, c.Refine, on, fine, c.Corners)
}

// regions merges connected cells into boxes. A cell is 1/f of a patch in width and height.
func regions(g *Grid, f int, on []bool, values []float64, corners bool) []Box {
	cols, rows := g.Cols*f, g.Rows*f
	seen := make([]bool, len(on))
	var out []Box
	var stack []int
	for start := range on {
		if !on[start] || seen[start] {
			continue
		}
		area := image.Rectangle{Min: image.Pt(cols, rows)}
		sum, n := 0.0, 0
		stack = append(stack[:0], start)
		seen[start] = true
		for len(stack) > 0 {
			at := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			x, y := at%cols, at/cols
			area.Min = image.Pt(min(area.Min.X, x), min(area.Min.Y, y))
			area.Max = image.Pt(max(area.Max.X, x+1), max(area.Max.Y, y+1))
			sum, n = sum+values[at], n+1
			for dy := -1; dy <= 1; dy++ {
				for dx := -1; dx <= 1; dx++ {
					if !corners && dx != 0 && dy != 0 || x+dx < 0 || x+dx >= cols || y+dy < 0 || y+dy >= rows {
						continue
					}
					if next := at + dy*cols + dx; on[next] && !seen[next] {
						seen[next] = true
						stack = append(stack, next)
					}
				}
			}
		}
		s := float64(f)
		box := g.rect(float64(area.Min.X)/s, float64(area.Min.Y)/s, float64(area.Max.X)/s, float64(area.Max.Y)/s)
		out = append(out, Box{box, sum / float64(n), sum / (s * s)})
	}
	slices.SortStableFunc(out, func(a, b Box) int { return cmp.Compare(b.Mass, a.Mass) })
	return out
}

// refined is the map at f × f points a patch, bilinear between the centres of patches.
func refined(m []float64, g *Grid, f int) []float64 {
	cols, rows := g.Cols*f, g.Rows*f
	out := make([]float64, cols*rows)
	for y := range rows {
		for x := range cols {
			out[y*cols+x] = g.sample(m, (float64(x)+0.5)/float64(f), (float64(y)+0.5)/float64(f))
		}
	}
	return out
}

// sample is the map at (u, v), in patches, bilinear between centres and constant beyond the outermost.
func (g *Grid) sample(m []float64, u, v float64) float64 {
	u = min(max(u-0.5, 0), float64(g.Cols-1))
	v = min(max(v-0.5, 0), float64(g.Rows-1))
	i, j := int(u), int(v)
	i1, j1 := min(i+1, g.Cols-1), min(j+1, g.Rows-1)
	fu, fv := u-float64(i), v-float64(j)
	top := m[j*g.Cols+i]*(1-fu) + m[j*g.Cols+i1]*fu
	low := m[j1*g.Cols+i]*(1-fu) + m[j1*g.Cols+i1]*fu
	return top*(1-fv) + low*fv
}

// PatchesToBoxes is one box for each patch, in pixels of the original picture, the highest score first. scores has one
// number for each patch of the list; nil means zeros. Patches that are only padding give no box.
func PatchesToBoxes(grid *Grid, patches []int, scores []float64) ([]Box, error) {
	const fn = "grounding.PatchesToBoxes"
	if grid == nil {
		return nil, fmt.Errorf("%s: got a nil grid", fn)
	}
	if scores != nil && len(scores) != len(patches) {
		return nil, fmt.Errorf("%s: got %d scores, want %d as there are patches", fn, len(scores), len(patches))
	}
	var out []Box
	for i, p := range patches {
		if p < 0 || p >= grid.Len() {
			return nil, fmt.Errorf("%s: got patch %d, want one in [0, %d)", fn, p, grid.Len())
		}
		b := Box{Rectangle: grid.Rect(p)}
		if scores != nil {
			b.Score, b.Mass = scores[i], scores[i]
		}
		if !b.Empty() {
			out = append(out, b)
		}
	}
	slices.SortStableFunc(out, func(a, b Box) int { return cmp.Compare(b.Score, a.Score) })
	return out, nil
}

// IoU is the intersection of two rectangles over their union, 0 where both are empty.
func IoU(a, b image.Rectangle) float64 {
	i := area(a.Intersect(b))
	if u := area(a) + area(b) - i; u > 0 {
		return i / u
	}
	return 0
}

func area(r image.Rectangle) float64 {
	if r.Empty() {
		return 0
	}
	return float64(r.Dx()) * float64(r.Dy())
}

// Calibrate returns the Threshold of cfg at which the first boxes of results meet the truth best, in mean IoU: it tries
// 99 evenly spaced values between the smallest and the largest of the maps (shares 0.01 to 0.99 with Relative), and returns
// that mean too. truth holds the true region for each result, which are taken from labelled pictures that are not tested
// on later. cfg's Labels and TopK play no part.
func Calibrate(results []*Result, truth []image.Rectangle, cfg ResultConfig) (threshold, meanIoU float64, err error) {
	const fn = "grounding.Calibrate"
	if len(results) == 0 || len(results) != len(truth) {
		return 0, 0, fmt.Errorf("%s: got %d results and %d true regions, want as many, and at least one", fn, len(results), len(truth))
	}
	lo, hi := math.Inf(1), math.Inf(-1)
	for i, r := range results {
		if r == nil || r.Grid == nil || len(r.Map) != r.Grid.Len() {
			return 0, 0, fmt.Errorf("%s: result %d: got no map, want what Results returned", fn, i)
		}
		lo, hi = min(lo, slices.Min(r.Map)), max(hi, slices.Max(r.Map))
	}
	if cfg.Relative {
		lo, hi = 0, 1
	}
	cfg.TopK, cfg.Labels, cfg.Threshold = 0, nil, 0
	if cfg, err = cfg.normalised(fn, len(results), results[0].Grid.Len()); err != nil {
		return 0, 0, err
	}
	meanIoU = -1
	for step := 1; step < 100; step++ {
		cfg.Threshold = lo + (hi-lo)*float64(step)/100
		sum := 0.0
		for i, r := range results {
			trial := Result{Map: r.Map, Grid: r.Grid}
			trial.read(cfg)
			if len(trial.Boxes) > 0 {
				sum += IoU(trial.Boxes[0].Rectangle, truth[i])
			}
		}
		if mean := sum / float64(len(results)); mean > meanIoU {
			threshold, meanIoU = cfg.Threshold, mean
		}
	}
	return threshold, meanIoU, nil
}
