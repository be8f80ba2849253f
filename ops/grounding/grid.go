package grounding

import (
	"fmt"
	"image"
	"math"
	"slices"

	"gorgonia.org/tensor"
)

// Grid says where patches lie in the picture they were cut from. Patches are numbered row by row from the top left.
type Grid struct {
	// Cols and Rows count patches.
	Cols, Rows int
	// Patch is the side of a patch in the resized picture, in pixels.
	Patch int
	// Bounds is the original picture's rectangle.
	Bounds image.Rectangle

	// The part of the original that the grid spans, in original pixels. It is larger than Bounds where the picture was
	// padded and smaller where it was cropped.
	x0, y0, x1, y1 float64
}

// NewGrid returns a grid of cols × rows patches that span a picture with the given bounds exactly.
func NewGrid(cols, rows int, bounds image.Rectangle) (*Grid, error) {
	if cols < 1 || rows < 1 {
		return nil, fmt.Errorf("grounding.NewGrid: got %d × %d patches, want at least 1 × 1", cols, rows)
	}
	if bounds.Empty() {
		return nil, fmt.Errorf("grounding.NewGrid: got empty bounds %v, want a picture", bounds)
	}
	return &Grid{cols, rows, 0, bounds, float64(bounds.Min.X), float64(bounds.Min.Y), float64(bounds.Max.X), float64(bounds.Max.Y)}, nil
}

// Len is the number of patches.
func (g *Grid) Len() int { return g.Cols * g.Rows }

// String names size and picture.
func (g *Grid) String() string {
	return fmt.Sprintf("%d×%d patches over %v", g.Cols, g.Rows, g.Bounds)
}

// span maps [u0, u1) × [v0, v1), in patches, to original pixels.
func (g *Grid) span(u0, v0, u1, v1 float64) (x0, y0, x1, y1 float64) {
	sx, sy := (g.x1-g.x0)/float64(g.Cols), (g.y1-g.y0)/float64(g.Rows)
	return g.x0 + u0*sx, g.y0 + v0*sy, g.x0 + u1*sx, g.y0 + v1*sy
}

// rect rounds the span to whole pixels and clips it. A span inside the picture is never less than a pixel wide and high.
func (g *Grid) rect(u0, v0, u1, v1 float64) image.Rectangle {
	x0, y0, x1, y1 := g.span(u0, v0, u1, v1)
	r := image.Rect(round(x0), round(y0), round(x1), round(y1))
	if r.Dx() == 0 {
		r.Min.X = int(math.Floor(x0))
		r.Max.X = r.Min.X + 1
	}
	if r.Dy() == 0 {
		r.Min.Y = int(math.Floor(y0))
		r.Max.Y = r.Min.Y + 1
	}
	return r.Intersect(g.Bounds)
}

func round(x float64) int { return int(math.Floor(x + 0.5)) }

// Rect is patch p in pixels of the original picture, half-open and clipped to it: empty for one that is only padding.
// Neighbours share an edge.
func (g *Grid) Rect(p int) image.Rectangle {
	u, v := float64(p%g.Cols), float64(p/g.Cols)
	return g.rect(u, v, u+1, v+1)
}

// At is the patch that the centre of the original's pixel (x, y) lies in, −1 where it lies in none.
func (g *Grid) At(x, y int) int {
	u := int(math.Floor((float64(x) + 0.5 - g.x0) / (g.x1 - g.x0) * float64(g.Cols)))
	v := int(math.Floor((float64(y) + 0.5 - g.y0) / (g.y1 - g.y0) * float64(g.Rows)))
	if u < 0 || v < 0 || u >= g.Cols || v >= g.Rows {
		return -1
	}
	return v*g.Cols + u
}

// Mask is 1 for each patch that shows some of the picture and 0 for padding: a value for Config.PatchMask.
func (g *Grid) Mask() []int {
	mask := make([]int, g.Len())
	whole := toSpan(g.Bounds)
	for p := range mask {
		if g.overlap(p, whole) > 0 {
			mask[p] = 1
		}
	}
	return mask
}

type span struct{ x0, y0, x1, y1 float64 }

func toSpan(r image.Rectangle) span {
	return span{float64(r.Min.X), float64(r.Min.Y), float64(r.Max.X), float64(r.Max.Y)}
}

// overlap is the share of patch p that lies in s.
func (g *Grid) overlap(p int, s span) float64 {
	u, v := float64(p%g.Cols), float64(p/g.Cols)
	x0, y0, x1, y1 := g.span(u, v, u+1, v+1)
	w, h := min(x1, s.x1)-max(x0, s.x0), min(y1, s.y1)-max(y0, s.y0)
	if w <= 0 || h <= 0 {
		return 0
	}
	return w * h / ((x1 - x0) * (y1 - y0))
}

// Centres are the centres of the patches as a float32 tensor (patches, 2) of x and y, 0 to 1 over the grid: values for
// Pool.
func (g *Grid) Centres() *tensor.Dense {
	c := make([]float32, 0, 2*g.Len())
	for p := range g.Len() {
		c = append(c, (float32(p%g.Cols)+0.5)/float32(g.Cols), (float32(p/g.Cols)+0.5)/float32(g.Rows))
	}
	return tensor.New(tensor.WithShape(g.Len(), 2), tensor.WithBacking(c))
}

// OverlapTargets are soft labels for AlignmentLoss: the share of each patch that is covered by the boxes, in original
// pixels. What several boxes cover counts once.
func OverlapTargets(g *Grid, boxes ...image.Rectangle) ([]float32, error) {
	if g == nil {
		return nil, fmt.Errorf("grounding.OverlapTargets: got a nil grid")
	}
	out := make([]float32, g.Len())
	for p := range out {
		out[p] = float32(g.covered(p, boxes))
	}
	return out, nil
}

// covered is the share of patch p that the union of boxes covers: the edges of the boxes cut the patch into cells, each of
// which is covered or not.
func (g *Grid) covered(p int, boxes []image.Rectangle) float64 {
	u, v := float64(p%g.Cols), float64(p/g.Cols)
	x0, y0, x1, y1 := g.span(u, v, u+1, v+1)
	var room [4]span
	var roomX, roomY [8]float64
	in, xs, ys := room[:0], append(roomX[:0], x0, x1), append(roomY[:0], y0, y1)
	for _, b := range boxes {
		if g.overlap(p, toSpan(b)) == 0 {
			continue
		}
		s := toSpan(b)
		s = span{max(s.x0, x0), max(s.y0, y0), min(s.x1, x1), min(s.y1, y1)}
		in, xs, ys = append(in, s), append(xs, s.x0, s.x1), append(ys, s.y0, s.y1)
	}
	if len(in) == 0 {
		return 0
	}
	slices.Sort(xs)
	slices.Sort(ys)
	area := 0.0
	for i := range len(xs) - 1 {
		for j := range len(ys) - 1 {
			x, y := (xs[i]+xs[i+1])/2, (ys[j]+ys[j+1])/2
			if slices.ContainsFunc(in, func(s span) bool { return s.x0 <= x && x < s.x1 && s.y0 <= y && y < s.y1 }) {
				area += (xs[i+1] - xs[i]) * (ys[j+1] - ys[j])
			}
		}
	}
	return min(1, area/((x1-x0)*(y1-y0)))
}
