package main

import (
	"math/rand/v2"
	"slices"
	"strings"
)

// clearly is by how many pixels centres must lie apart for a direction to be spoken of.
const clearly = 8

// ways to describe an object, and how often each is tried first.
var ways = []func(rng *rand.Rand, objects []object, at int, unseen bool) (described, bool){
	byTraits, byTraits, byTraits, byTraits, byPosition, byPosition, byRelation, byRelation, byRelation, byRelation,
}

// describe finds a phrase that fits one object of the scene and no other. One about a held-out combination, object 0, names
// its colour and shape. Not ok where that takes too long, since too much is alike.
func describe(rng *rand.Rand, objects []object, unseen bool) (described, bool) {
	for range 4 {
		way := pick(rng, ways)
		for range 50 {
			at := 0
			if !unseen {
				at = rng.IntN(len(objects))
			}
			if d, ok := way(rng, objects, at, unseen); ok {
				return d, true
			}
		}
	}
	return described{}, false
}

type uses [kinds]bool

// choose picks the traits to name.
func choose(rng *rand.Rand, unseen bool) (u uses) {
	u[colourKind], u[shapeKind] = unseen || rng.IntN(4) > 0, unseen || rng.IntN(4) > 0
	u[sizeKind], u[textureKind] = rng.IntN(4) == 0, rng.IntN(4) == 0
	return u
}

// alike are the objects that share the named traits of object at, itself left out.
func (u uses) alike(objects []object, at int) (same []object) {
	for i, o := range objects {
		if i != at && !slices.ContainsFunc([]int{0, 1, 2, 3}, func(k int) bool { return u[k] && o.traits[k] != objects[at].traits[k] }) {
			same = append(same, o)
		}
	}
	return same
}

// name is the named traits in words, one of the synonyms each.
func (u uses) name(rng *rand.Rand, o object) []string {
	w := []string{"the"}
	if rng.IntN(5) == 0 {
		w[0] = "a"
	}
	for _, k := range wordOrder {
		if u[k] {
			w = append(w, pick(rng, lexicon[k][o.traits[k]]))
		}
	}
	if !u[shapeKind] {
		w = append(w, pick(rng, []string{"thing", "object"}))
	}
	return w
}

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

// kind names the traits, for the metrics.
func (u uses) kind() string {
	var names []string
	for k, name := range kindNames {
		if u[k] && k < sizeKind {
			names = append(names, name)
		}
	}
	if u[sizeKind] || u[textureKind] {
		names = append(names, "size or texture")
	}
	return strings.Join(names, "+")
}

func byTraits(rng *rand.Rand, objects []object, at int, unseen bool) (d described, ok bool) {
	u := choose(rng, unseen)
	if !u[colourKind] && !u[shapeKind] || len(u.alike(objects, at)) > 0 {
		return d, false
	}
	w := u.name(rng, objects[at])
	return described{phrase: phrase{w, len(w)}, kind: u.kind(), at: at, of: at}, true
}

// apart is how far b lies from a in a direction, in pixels.
func apart(direction int, ax, ay, bx, by float64) float64 {
	switch direction {
	case leftward:
		return ax - bx
	case rightward:
		return bx - ax
	case upward:
		return ay - by
	}
	return by - ay
}

// byPosition names the part of the picture, where that tells the object from others like it.
func byPosition(rng *rand.Rand, objects []object, at int, unseen bool) (d described, ok bool) {
	u, direction := choose(rng, unseen), rng.IntN(4)
	from := func(o object) float64 { return apart(direction, side/2, side/2, o.x, o.y) }
	same := u.alike(objects, at)
	if from(objects[at]) < clearly || slices.ContainsFunc(same, func(o object) bool { return from(o) > -clearly/2 }) || len(same) == 0 && !unseen {
		return d, false
	}
	w := append(u.name(rng, objects[at]), pick(rng, positions[direction])...)
	return described{phrase: phrase{w, len(w)}, kind: "position", at: at, of: at}, true
}

// byRelation says where the object lies from another that can be named, its landmark. Others like it lie on the other side;
// there is at least one, so that the relation decides, but for held-out combinations.
func byRelation(rng *rand.Rand, objects []object, at int, unseen bool) (d described, ok bool) {
	u, of, direction := choose(rng, unseen), rng.IntN(len(objects)), rng.IntN(4)
	v := choose(rng, false)
	if of == at || !v[colourKind] && !v[shapeKind] || len(v.alike(objects, of)) > 0 {
		return d, false
	}
	land := objects[of]
	from := func(o object) float64 { return apart(direction, land.x, land.y, o.x, o.y) }
	same := slices.DeleteFunc(u.alike(objects, at), func(o object) bool { return o == land })
	if from(objects[at]) < clearly || slices.ContainsFunc(same, func(o object) bool { return from(o) > -clearly/2 }) || len(same) == 0 && !unseen {
		return d, false
	}
	w := append(u.name(rng, objects[at]), pick(rng, relations[direction])...)
	n := len(w)
	w = append(w, v.name(rng, land)...)
	return described{phrase: phrase{w, n}, kind: "relation", at: at, of: of}, true
}
