package main

import (
	"image"
	"math"
	"math/rand/v2"
	"slices"
)

// side is that of a scene, in pixels.
const side = 96

// object is one shape of a scene: traits are indices into the lexicon.
type object struct {
	traits  [kinds]int
	x, y, r float64
	box     image.Rectangle
}

// heldOut says whether a colour and shape are never shown together in training.
func heldOut(o object) bool { return (o.traits[colourKind]+2*o.traits[shapeKind])%len(rgb) == 0 }

// heldOutNames are the held-out combinations in words.
func heldOutNames() (names []string) {
	for c, colour := range lexicon[colourKind] {
		for s, shape := range lexicon[shapeKind] {
			if heldOut(object{traits: [kinds]int{colourKind: c, shapeKind: s}}) {
				names = append(names, colour[0]+" "+shape[0])
			}
		}
	}
	return names
}

// described is a phrase with the truth about it.
type described struct {
	phrase
	kind         string
	at, of       int             // the object and the landmark; at twice where there is none
	box, landBox image.Rectangle // theirs
}

// truth is the true box of word i.
func (d described) truth(i int) image.Rectangle {
	if i >= d.landmark {
		return d.landBox
	}
	return d.box
}

type scene struct {
	img     *image.RGBA
	phrases []described
}

// newScene draws 3 to 5 objects and n phrases about them. With unseen set, one object is of a held-out combination and
// the phrases are about it; otherwise there is none such.
func newScene(rng *rand.Rand, n int, unseen bool) scene {
	for {
		objects := newObjects(rng, unseen)
		if s, ok := compose(rng, objects, n, unseen); ok {
			return s
		}
	}
}

func newObjects(rng *rand.Rand, unseen bool) []object {
	var objects []object
	for want := 3 + rng.IntN(3); len(objects) < want; {
		var o object
		for k := range o.traits {
			o.traits[k] = rng.IntN(len(lexicon[k]))
		}
		// A distractor shares colour or shape, or both, with another object.
		if len(objects) > 0 && rng.IntN(3) > 0 {
			other, which := objects[rng.IntN(len(objects))], rng.IntN(3)
			if which != 0 {
				o.traits[colourKind] = other.traits[colourKind]
			}
			if which != 1 {
				o.traits[shapeKind] = other.traits[shapeKind]
			}
		}
		if heldOut(o) != (unseen && len(objects) == 0) {
			continue
		}
		o.r = 10 + 3*rng.Float64()
		if o.traits[sizeKind] == 1 {
			o.r = 16 + 4*rng.Float64()
		}
		if !place(rng, &o, objects) {
			want = min(want, max(len(objects), 1))
			continue
		}
		objects = append(objects, o)
	}
	return objects
}

// place finds room for o: neighbours may touch and overlap a little.
func place(rng *rand.Rand, o *object, others []object) bool {
	for range 50 {
		o.x, o.y = o.r+1+rng.Float64()*(side-2*o.r-2), o.r+1+rng.Float64()*(side-2*o.r-2)
		if !slices.ContainsFunc(others, func(p object) bool { return math.Hypot(o.x-p.x, o.y-p.y) < 0.9*(o.r+p.r) }) {
			return true
		}
	}
	return false
}

// compose draws objects and finds phrases for them, where there are any.
func compose(rng *rand.Rand, objects []object, n int, unseen bool) (s scene, ok bool) {
	for range n {
		d, ok := describe(rng, objects, unseen)
		if !ok {
			return s, false
		}
		s.phrases = append(s.phrases, d)
	}
	s.img = background(rng)
	for i := range objects {
		paint(s.img, &objects[i])
	}
	noise(rng, s.img)
	for i := range s.phrases {
		s.phrases[i].box, s.phrases[i].landBox = objects[s.phrases[i].at].box, objects[s.phrases[i].of].box
	}
	return s, true
}
