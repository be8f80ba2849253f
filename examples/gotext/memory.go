package main

import (
	"fmt"

	"stheno"
	"stheno/internal/procmem"
)

// checkMemory reports a model that cannot be trained in the memory of this machine, before the attempt ends the process.
// It counts weights, gradients and AdamW's two moments, and for each token and block the activations that the backward
// needs: about 8·Dim + 3·Hidden numbers. It knows no upper bound, so what it lets pass may still be too much.
func checkMemory(cfg stheno.Config, batch, seq int) error {
	cfg = cfg.WithDefaults()
	need := 4 * (4*float64(cfg.Params()) + float64(batch)*float64(seq)*float64(cfg.Layers)*float64(8*cfg.Dim+3*cfg.Hidden))
	have := float64(procmem.Available())
	if need > have {
		return fmt.Errorf("training %s parameters on %d × %d bytes takes at least %.1f GiB, want at most the %.1f GiB of memory that are free",
			count(cfg.Params()), batch, seq, need/(1<<30), have/(1<<30))
	}
	return nil
}
