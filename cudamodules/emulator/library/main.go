// Command library builds the emulated card and prints the name of its driver: what STHENO_LIBCUDA is to be set to, for programs to run on
// it.
package main

import (
	"fmt"
	"os"

	"stheno/cudamodules/emulator"
)

func main() {
	path, err := emulator.Build(emulator.Config{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(path)
}
