package op

import (
	"fmt"
	"runtime/debug"
	"slices"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Arg is one argument of a graph function, with the name that errors use for it.
type Arg struct {
	Name string
	Node *G.Node
}

// CheckArgs reports the first argument that is nil, is a statement as gorgonia.Read makes, or belongs to another graph than the first one.
func CheckArgs(fn string, args ...Arg) error {
	for _, a := range args {
		switch {
		case a.Node == nil:
			return fmt.Errorf("%s: %s: got a nil node, want a node of the graph", fn, a.Name)
		case a.Node.Graph() == nil:
			return fmt.Errorf("%s: %s (%s): got a node without a graph", fn, a.Name, a.Node.Name())
		case a.Node.Type() == nil:
			return fmt.Errorf("%s: %s (%s): got a statement, want a node with a value", fn, a.Name, a.Node.Name())
		case a.Node.Graph() != args[0].Node.Graph():
			return fmt.Errorf("%s: %s (%s) and %s (%s): got nodes of two graphs, want one", fn,
				args[0].Name, args[0].Node.Name(), a.Name, a.Node.Name())
		}
	}
	return nil
}

// CheckFloat reports a dtype other than float32 or float64, or one that differs from the first argument's.
func CheckFloat(fn string, args ...Arg) error {
	for _, a := range args {
		switch dt := a.Node.Dtype(); {
		case dt != tensor.Float32 && dt != tensor.Float64:
			return fmt.Errorf("%s: %s: got dtype %v, want float32 or float64", fn, a.Name, dt)
		case dt != args[0].Node.Dtype():
			return fmt.Errorf("%s: %s: got dtype %v, want %v as in %s", fn, a.Name, dt, args[0].Node.Dtype(), args[0].Name)
		}
	}
	return nil
}

// CheckInteger reports a dtype that is not an integer of 32 or 64 bits.
func CheckInteger(fn string, args ...Arg) error {
	for _, a := range args {
		switch dt := a.Node.Dtype(); dt {
		case tensor.Int, tensor.Int32, tensor.Int64:
		default:
			return fmt.Errorf("%s: %s: got dtype %v, want int, int32 or int64", fn, a.Name, dt)
		}
	}
	return nil
}

// CheckRank reports an argument whose number of dimensions is not one of ranks.
func CheckRank(fn string, a Arg, ranks ...int) error {
	got := a.Node.Shape().Dims()
	for _, r := range ranks {
		if got == r {
			return nil
		}
	}
	return fmt.Errorf("%s: %s: got shape %v of rank %d, want rank %v", fn, a.Name, a.Node.Shape(), got, orList(ranks))
}

// CheckShape reports an argument whose shape is not want.
func CheckShape(fn string, a Arg, want ...int) error {
	// Shape.Eq takes (1, n) for (n).
	if !slices.Equal(a.Node.Shape(), want) {
		return fmt.Errorf("%s: %s: got shape %v, want %v", fn, a.Name, a.Node.Shape(), tensor.Shape(want))
	}
	return nil
}

func orList(ranks []int) string {
	s := ""
	for i, r := range ranks {
		if i > 0 {
			s += " or "
		}
		s += fmt.Sprint(r)
	}
	return s
}

// Recover turns a panic into an error; defer it in every Do and Backward, where a panic would kill the process.
func Recover(name string, err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%s: internal error: %v\n%s", name, r, debug.Stack())
	}
}
