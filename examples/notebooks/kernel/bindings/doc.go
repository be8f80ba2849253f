// Package bindings registers the packages that notebooks import with gomacro, the interpreter of the kernel. The files that
// begin with x_ are written by the command bind; scripts/regen.sh runs it.
package bindings
