package stheno

import (
	"fmt"
	"strings"
)

// NormKind is a normalisation layer.
type NormKind int

// The normalisations.
const (
	LayerNorm NormKind = iota // (x − mean)/√(var + ε)·γ + β, as in GPT-2
	RMSNorm                   // x/√(mean x² + ε)·γ, as in Llama
)

// ActivationKind is the non-linearity of the feed-forward block.
type ActivationKind int

// The activations.
const (
	GELUTanh ActivationKind = iota // GELU by its tanh approximation, as in GPT-2
	GELU                           // exact GELU, by the error function
	SwiGLU                         // silu(x·Wgate) ⊙ (x·Wup), as in Llama
	SiLU
	ReLU
)

// PositionKind is how a model knows where a token stands.
type PositionKind int

// The kinds of positions.
const (
	Learned PositionKind = iota // one learned vector a position, added to the token's, as in GPT-2
	Rotary                      // queries and keys rotated by their position, as in Llama
)

// Nodes chooses what a graph is composed of.
type Nodes int

// The sets of nodes.
const (
	Fused Nodes = iota // this module's nodes
	Plain              // Gorgonia's own nodes only; for comparison
)

var (
	normNames       = []string{"layernorm", "rmsnorm"}
	activationNames = []string{"gelu_tanh", "gelu", "swiglu", "silu", "relu"}
	positionNames   = []string{"learned", "rotary"}
	nodesNames      = []string{"stheno", "plain"}
)

// String returns the kind's name in JSON.
func (k NormKind) String() string { return kindName("NormKind", normNames, int(k)) }

// String returns the kind's name in JSON.
func (k ActivationKind) String() string { return kindName("ActivationKind", activationNames, int(k)) }

// String returns the kind's name in JSON.
func (k PositionKind) String() string { return kindName("PositionKind", positionNames, int(k)) }

// String returns "stheno" or "plain".
func (n Nodes) String() string { return kindName("Nodes", nodesNames, int(n)) }

// MarshalText writes the kind's name.
func (k NormKind) MarshalText() ([]byte, error) { return kindText("NormKind", normNames, int(k)) }

// MarshalText writes the kind's name.
func (k ActivationKind) MarshalText() ([]byte, error) {
	return kindText("ActivationKind", activationNames, int(k))
}

// MarshalText writes the kind's name.
func (k PositionKind) MarshalText() ([]byte, error) {
	return kindText("PositionKind", positionNames, int(k))
}

// UnmarshalText reads the kind's name.
func (k *NormKind) UnmarshalText(text []byte) error { return parseKind(k, "norm", normNames, text) }

// UnmarshalText reads the kind's name.
func (k *ActivationKind) UnmarshalText(text []byte) error {
	return parseKind(k, "activation", activationNames, text)
}

// UnmarshalText reads the kind's name.
func (k *PositionKind) UnmarshalText(text []byte) error {
	return parseKind(k, "positions", positionNames, text)
}

func knownKind(names []string, k int) bool { return k >= 0 && k < len(names) }

func kindName(kind string, names []string, k int) string {
	if !knownKind(names, k) {
		return fmt.Sprintf("%s(%d)", kind, k)
	}
	return names[k]
}

func kindText(kind string, names []string, k int) ([]byte, error) {
	if !knownKind(names, k) {
		return nil, fmt.Errorf("stheno: got %s(%d), want 0 to %d", kind, k, len(names)-1)
	}
	return []byte(names[k]), nil
}

func parseKind[K ~int](k *K, what string, names []string, text []byte) error {
	for i, name := range names {
		if string(text) == name {
			*k = K(i)
			return nil
		}
	}
	return fmt.Errorf("stheno: %s: got %q, want one of %s", what, text, strings.Join(names, ", "))
}
