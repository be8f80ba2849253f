//go:build cuda && linux

package stheno

import (
	"fmt"
	"os"
	"testing"

	"stheno/internal/optest"
)

// TestMain gives all tests a card, as no machine of Gorgonia's runs without one under the tag.
func TestMain(m *testing.M) {
	if err := optest.UseCard(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
