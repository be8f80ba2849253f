package main

import (
	"bytes"
	"fmt"
	"go/format"
	"strings"
)

// goParams is the parameter list of the Go function: slices for pointers, no n where a slice tells it.
func (k kernel) goParams() string {
	var out []string
	for _, p := range params(k.params) {
		switch {
		case p.pointer():
			out = append(out, p.name+" []"+p.typ[1:])
		case k.chunked && p.name == "n":
		default:
			out = append(out, p.name+" "+p.typ)
		}
	}
	return strings.Join(out, ", ")
}

func (k kernel) call() string {
	var args []string
	for _, p := range params(k.params) {
		if p.pointer() {
			args = append(args, "unsafe.SliceData("+p.name+")")
		} else {
			args = append(args, p.name)
		}
	}
	return k.name + suffix + "(" + strings.Join(args, ", ") + ")"
}

// dispatch returns the file of Go functions through which the rest of package kernel calls the assembly.
func dispatch() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(header() + "\npackage kernel\n\nimport \"unsafe\"\n")
	for _, k := range kernels() {
		results, none := "bool", "false"
		if k.result != "" {
			results, none = "(result "+k.result+", done bool)", "0, false"
		}
		fmt.Fprintf(&b, "\nfunc simd%s%s(%s) %s {\nif active != NEON {\nreturn %s\n}\n", strings.ToUpper(k.name[:1]), k.name[1:], k.goParams(), results, none)
		switch {
		case k.result != "":
			fmt.Fprintf(&b, "return %s, true\n}\n", k.call())
		case !k.chunked:
			fmt.Fprintf(&b, "%s\nreturn true\n}\n", k.call())
		default:
			var names, cut []string
			for _, p := range params(k.params) {
				// c is a table of coefficients, not a stream.
				if p.pointer() && p.name != "c" {
					names, cut = append(names, p.name), append(cut, p.name+"[n:]")
				}
			}
			fmt.Fprintf(&b, "for {\nn := min(len(%s), maxCall)\n%s\nif n == len(%s) {\nreturn true\n}\n%s = %s\nbreathe()\n}\n}\n",
				names[0], k.call(), names[0], strings.Join(names, ", "), strings.Join(cut, ", "))
		}
	}
	return format.Source(b.Bytes())
}
