package main

// kinds are the ways in which a phrase can describe an object by itself; each word names one value of one kind.
const (
	colourKind = iota
	shapeKind
	sizeKind
	textureKind
	kinds
)

var kindNames = [kinds]string{"colour", "shape", "size", "texture"}

// lexicon holds the synonyms of each value of each kind.
var lexicon = [kinds][][]string{
	colourKind:  {{"red", "crimson"}, {"green", "emerald"}, {"blue", "azure"}, {"yellow", "golden"}, {"purple", "violet"}, {"cyan", "turquoise"}},
	shapeKind:   {{"circle", "disc"}, {"square", "box"}, {"triangle"}, {"cross", "plus"}, {"ring", "hoop"}},
	sizeKind:    {{"small", "little"}, {"big", "large"}},
	textureKind: {{"plain"}, {"striped"}},
}

// wordOrder is the order of kinds in English: a big striped red circle.
var wordOrder = [kinds]int{sizeKind, textureKind, colourKind, shapeKind}

// directions in which objects lie from each other or from the middle of the picture.
const (
	leftward = iota
	rightward
	upward
	downward
)

// relations and positions are the ways to say each direction.
var (
	relations = [4][][]string{
		leftward:  {{"left", "of"}, {"to", "the", "left", "of"}},
		rightward: {{"right", "of"}, {"to", "the", "right", "of"}},
		upward:    {{"above"}, {"over"}},
		downward:  {{"below"}, {"under"}},
	}
	positions = [4][][]string{
		leftward:  {{"on", "the", "left"}},
		rightward: {{"on", "the", "right"}},
		upward:    {{"at", "the", "top"}},
		downward:  {{"at", "the", "bottom"}},
	}
)

// small are the words that stand for no trait. The first pads phrases.
var small = []string{"", "the", "a", "thing", "object", "on", "at", "to", "of", "left", "right", "top", "bottom", "above", "over", "below", "under"}

// aliases are words that are read as others.
var aliases = map[string]string{"an": "a", "one": "thing", "shape": "thing", "disk": "disc"}

// vocabulary numbers the words: their tokens.
var vocabulary, words = func() (map[string]int, []string) {
	all := append([]string{}, small...)
	for _, kind := range lexicon {
		for _, synonyms := range kind {
			all = append(all, synonyms...)
		}
	}
	number := map[string]int{}
	for i, w := range all {
		number[w] = i
	}
	return number, all
}()

// traitOf is the kind and value that a word names, or −1.
func traitOf(word string) (kind, value int) {
	for k := range lexicon {
		for v, synonyms := range lexicon[k] {
			for _, s := range synonyms {
				if s == word {
					return k, v
				}
			}
		}
	}
	return -1, -1
}
