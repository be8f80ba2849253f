package main

import (
	"fmt"
	"slices"
	"strings"
)

// parse splits a caption at commas and «and» into phrases of known words. Articles and «thing» carry no meaning.
func parse(caption string) ([][]string, error) {
	var out [][]string
	for _, part := range strings.Split(strings.ReplaceAll(strings.ToLower(caption), " and ", ","), ",") {
		var phrase []string
		for _, w := range strings.Fields(strings.Trim(part, " .!?")) {
			switch {
			case slices.Contains([]string{"a", "an", "the", "thing", "object", "shape", "one"}, w):
			case slices.Contains(words, w):
				phrase = append(phrase, w)
			default:
				return nil, fmt.Errorf("caption: got the unknown word %q, want words of: %s", w, strings.Join(words, " "))
			}
		}
		if len(phrase) > 0 {
			out = append(out, phrase)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("caption: got %q, which describes nothing, want a phrase such as \"the red circle\"", caption)
	}
	return out, nil
}
