package main

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	"stheno"
)

// complete prints what the model makes of the prompts.
func (j *job) complete(ctx context.Context) error {
	for i, prompt := range j.opt.prompts {
		ids, _, err := j.quantized.Generate(ctx, tokens([]byte(prompt)), stheno.GenerateConfig{
			MaxTokens:   min(j.opt.tokens, j.model.Config().MaxSeq-len(prompt)),
			Temperature: j.opt.temperature, TopP: 0.95, Seed: j.opt.seed + uint64(i), KV: j.opt.kv,
		})
		if err != nil {
			return err
		}
		text := make([]byte, len(ids))
		for i, id := range ids {
			text[i] = byte(id)
		}
		bold, plain := "", ""
		if isTerminal(j.out) {
			bold, plain = "\x1b[1m", "\x1b[0m"
		}
		fmt.Fprintf(j.out, "\n%s%s%s%s\n", bold, indent(prompt), plain, indent(printable(text)))
	}
	fmt.Fprintln(j.out)
	return nil
}

// printable replaces what would not be text on a terminal: broken UTF-8 and control characters.
func printable(text []byte) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return unicode.ReplacementChar
	}, strings.ToValidUTF8(string(text), "\uFFFD"))
}

// indent sets a completion apart from the lines around it. It leaves the first line to its caller's prompt.
func indent(text string) string { return strings.ReplaceAll(text, "\n", "\n    ") }
