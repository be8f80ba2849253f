// Command gotext trains a small decoder transformer on the Go standard library's own source text, or any text, completes
// prompts with it, and compares this module's nodes with Gorgonia's own on the trained weights.
//
//	go run ./examples/gotext
//	go run ./examples/gotext -data ~/notes -minutes 10 -save notes.safetensors
//	go run ./examples/gotext -load notes.safetensors -prompt 'Dear '
//	go run ./examples/gotext -load notes.safetensors -weights int4 -qat 400 -compare=false
//
// The text is read as bytes: 256 tokens, no tokenizer. Some files are held out, and what the model makes of them is given
// in bits per byte, beside what gzip -9 needs for the same bytes. With -rounding or -qat a
// table at the end says what ways of choosing codes lose, and how much of that a training for the codes wins back.
//
// Ctrl-C ends the training; what is there by then is saved, if that was asked for, and shown. A second Ctrl-C ends the
// program.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// The exit statuses.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130 // 128 + SIGINT, as shells have it
)

func main() {
	if request := os.Getenv(measureEnv); request != "" {
		os.Exit(measureMain(request, os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal takes its usual course
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	opt, err := parseOptions(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	code := exitUsage
	if err == nil {
		code = exitFailed
		err = (&job{opt: opt, out: stdout, log: stderr}).run(ctx)
	}
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "gotext: stopped")
		return exitInterrupted
	default:
		fmt.Fprintf(stderr, "gotext: %v\n", err)
		return code
	}
}
