package flashattn

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"

	"stheno/ops"
)

// Config says what Attend computes. The zero value is plain attention, softmax(q·kᵀ/√d)·v.
//
// Features combine freely. The logit of query row i and key row j is
//
//	x = scale·q_i·k_j                    Scale
//	x = softcap·tanh(x/softcap)          Softcap
//	x = x − slope_h·|p_i − j|            ALiBi
//	x = x + bias_bhij                    Bias
//	x = −∞ where i does not see j        Causal, Window, CuSeqlensQ, CuSeqlensKV
//
// with p_i = i + seqKV − seqQ the key position that query row i stands at (bottom-right alignment).
type Config struct {
	// Causal hides the keys after p_i.
	Causal bool
	// Window hides keys that are far from p_i.
	Window Window
	// Scale multiplies q·k; 0 stands for 1/√d.
	Scale float64
	// Softcap bounds the scaled product to ±Softcap; 0 leaves it alone.
	Softcap float64
	// ALiBi adds a linear penalty on distance with the standard slopes of its paper, a geometric series over the heads.
	ALiBi bool
	// Dropout is the share of attention weights that are dropped, the others growing by 1/(1−Dropout). The choice depends
	// on Seed, on Step and on the place of the weight, so the gradient reproduces it.
	Dropout float64
	// Seed selects the weights that Dropout drops.
	Seed uint64
	// Precision is the width of the numbers that are multiplied; 0 is that of the inputs.
	Precision Precision
	// BlockQ and BlockKV are the query rows (times the heads that share a key head) and the keys that one unit of work
	// keeps in cache; 0 chooses for the machine's instruction set, and Tune by measuring. They change speed, memory and the
	// last bits of the result.
	BlockQ, BlockKV int

	// Step is an integer scalar that Dropout mixes into Seed, so that each training step drops other weights. Optional.
	Step *G.Node
	// Sinks (heads) is one more logit per head, which takes part in the softmax and contributes no value. Optional.
	Sinks *G.Node
	// Bias (batch or 1, heads or 1, seqQ, seqKV) is added to the logits. −Inf in it hides a key. Optional.
	Bias *G.Node
	// CuSeqlensQ and CuSeqlensKV (sequences+1) are integers 0 = c₀ ≤ c₁ ≤ … ≤ seq: rows c_s to c_{s+1} of a batch of one
	// belong to sequence s, and only rows of one sequence see each other. Rows after the last see nothing. Positions count
	// within the sequence. If only CuSeqlensQ is given it holds for both. Optional.
	CuSeqlensQ, CuSeqlensKV *G.Node
}

// Window limits the keys that a query row at position p sees to p−Left … p+Right. The zero value limits nothing.
type Window struct {
	Limited bool
	// Left and Right are distances in keys; −1 leaves that side open.
	Left, Right int
}

// Sliding is the window of a causal layer whose rows see themselves and the n−1 keys before.
func Sliding(n int) Window { return Window{Limited: true, Left: n - 1} }

// attrs is everything in a Config that is no node: what an op is hashed by.
type attrs struct {
	Causal          bool
	Window          Window
	Scale, Softcap  float64
	ALiBi           bool
	Dropout         float64
	Seed            uint64
	Precision       Precision
	BlockQ, BlockKV int

	// Which of the optional inputs there are, in the order in which they follow q, k and v.
	HasSinks, HasBias, HasCuQ, HasCuKV, HasStep bool
	// Packed says that the op's result is the output followed by the log-sum-exp.
	Packed bool
	// QKV says how q, k and v lie in one vector, which is the op's first input; zero if they are three inputs.
	QKV ops.QKV
}

// normal checks c for heads of dimension d and fills in what zero stands for.
func (c Config) normal(d int) (attrs, error) {
	a := attrs{
		Causal: c.Causal, Window: c.Window, Scale: c.Scale, Softcap: c.Softcap, ALiBi: c.ALiBi,
		Dropout: c.Dropout, Seed: c.Seed, Precision: c.Precision, BlockQ: c.BlockQ, BlockKV: c.BlockKV,
		HasSinks: c.Sinks != nil, HasBias: c.Bias != nil,
		HasCuQ: c.CuSeqlensQ != nil, HasCuKV: c.CuSeqlensKV != nil, HasStep: c.Step != nil,
	}
	switch {
	case math.IsNaN(c.Scale) || math.IsInf(c.Scale, 0):
		return a, fmt.Errorf("Scale: got %v, want a finite number", c.Scale)
	case !(c.Softcap >= 0) || math.IsInf(c.Softcap, 0):
		return a, fmt.Errorf("Softcap: got %v, want 0 or a positive number", c.Softcap)
	case !(c.Dropout >= 0 && c.Dropout < 1):
		return a, fmt.Errorf("Dropout: got %v, want at least 0 and below 1", c.Dropout)
	case c.Window.Limited && (c.Window.Left < -1 || c.Window.Right < -1):
		return a, fmt.Errorf("Window: got left %d and right %d, want at least -1", c.Window.Left, c.Window.Right)
	case c.Precision >= precisions:
		return a, fmt.Errorf("Precision: got %d, want Float32, BFloat16 or Int8", c.Precision)
	case c.BlockQ < 0 || c.BlockQ > maxBlock:
		return a, fmt.Errorf("BlockQ: got %d, want 0 to %d", c.BlockQ, maxBlock)
	case c.BlockKV < 0 || c.BlockKV > maxBlock:
		return a, fmt.Errorf("BlockKV: got %d, want 0 to %d", c.BlockKV, maxBlock)
	case c.CuSeqlensKV != nil && c.CuSeqlensQ == nil:
		return a, fmt.Errorf("CuSeqlensKV: got it without CuSeqlensQ, want both or CuSeqlensQ alone")
	case c.Step != nil && c.Dropout == 0:
		return a, fmt.Errorf("Step: got a node while Dropout is 0, want none")
	}
	if a.Scale == 0 {
		a.Scale = 1 / math.Sqrt(float64(d))
	}
	if !a.Window.Limited {
		a.Window = Window{Left: -1, Right: -1}
	}
	if a.Causal {
		a.Window.Right = 0
		a.Window.Limited = true
	}
	if a.Window.Left == -1 && a.Window.Right == -1 {
		a.Window.Limited = false
	}
	if a.Dropout == 0 {
		a.Seed = 0
	}
	return a, nil
}
