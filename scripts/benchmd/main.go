// Command benchmd turns the output of go test -bench into Markdown: a table for each benchmark, a column for each axis of its
// name and for each unit, the median where a benchmark ran several times.
//
//	go test -run '^$' -bench . -count 5 ./... | benchmd -commit abc1234 > docs/performance.md
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"
)

func main() {
	commit := flag.String("commit", "", "the `commit` that was measured")
	flag.Parse()
	runs, err := parse(os.Stdin)
	if err == nil && len(runs.tables) == 0 {
		err = fmt.Errorf("got no benchmarks on standard input")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmd:", err)
		os.Exit(1)
	}
	machine := fmt.Sprintf("%s, %d logical processors, %s/%s, %s", runs.cpu, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	runs.write(os.Stdout, machine, *commit, time.Now().UTC().Format(time.DateOnly))
}
