package main

import (
	"fmt"
	"slices"
	"strings"
)

// longest is how many words a phrase may have: "the little striped crimson circle to the left of the big plain azure box".
const longest = 14

// phrase speaks of one object, or of one by way of another: "the circle left of the red box".
type phrase struct {
	words []string
	// landmark is where the words about the other object begin, len(words) where there is none.
	landmark int
}

func (p phrase) String() string { return strings.Join(p.words, " ") }

// traits are the places of the words that name a trait of the object that the phrase is about; all its words where none
// does.
func (p phrase) traits() (at []int) {
	for i, w := range p.words[:p.landmark] {
		if k, _ := traitOf(w); k >= 0 {
			at = append(at, i)
		}
	}
	if len(at) == 0 {
		for i := range p.landmark {
			at = append(at, i)
		}
	}
	return at
}

// kindOf says what word i of the phrase contributes, for the metrics.
func (p phrase) kindOf(i int) string {
	w := p.words[i]
	if i >= p.landmark {
		return "landmark"
	}
	if k, _ := traitOf(w); k >= 0 {
		return kindNames[k]
	}
	if slices.Contains([]string{"the", "a", "thing", "object"}, w) {
		return "article, thing"
	}
	return "place"
}

var punctuation = strings.NewReplacer(",", " and ", ";", " and ", ".", " and ", "!", " and ", "?", " and ")

// parse splits a caption at commas and «and» into phrases of known words.
func parse(caption string) ([]phrase, error) {
	var out []phrase
	var p phrase
	for _, w := range append(strings.Fields(punctuation.Replace(strings.ToLower(caption))), "and") {
		if a, ok := aliases[w]; ok {
			w = a
		}
		if w != "and" {
			if _, ok := vocabulary[w]; !ok {
				return nil, fmt.Errorf("caption: got the unknown word %q, want words of: %s", w, strings.Join(words[1:], " "))
			}
			p.words = append(p.words, w)
			continue
		}
		if len(p.words) > 0 {
			if err := p.split(); err != nil {
				return nil, err
			}
			out, p = append(out, p), phrase{}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("caption: got %q, which describes nothing, want a phrase such as \"the red circle\"", caption)
	}
	return out, nil
}

// split finds the landmark and checks that the phrase says something about each of its objects.
func (p *phrase) split() error {
	if len(p.words) > longest {
		return fmt.Errorf("caption: got %q of %d words, want at most %d in a phrase", p, len(p.words), longest)
	}
	p.landmark = len(p.words)
	relation := slices.IndexFunc(p.words, relates)
	if relation >= 0 {
		p.landmark = relation + 1
	}
	if !slices.ContainsFunc(p.words[:p.landmark], tells) {
		return fmt.Errorf("caption: got %q, which describes nothing, want a phrase such as \"the red circle\"", p)
	}
	rest := p.words[p.landmark:]
	switch {
	case slices.ContainsFunc(rest, relates):
		return fmt.Errorf("caption: got %q, which speaks of three objects, want one or two in a phrase", p)
	case relation >= 0 && !slices.ContainsFunc(rest, tells):
		return fmt.Errorf("caption: got %q, want an object after %q, such as \"the red circle\"", p, p.words[relation])
	}
	return nil
}

// relates says whether a landmark follows the word.
func relates(word string) bool {
	return slices.Contains([]string{"of", "above", "over", "below", "under"}, word)
}

// tells says whether a word says something about an object.
func tells(word string) bool {
	return !slices.Contains([]string{"the", "a", "thing", "object", "on", "at", "to", "of"}, word)
}
