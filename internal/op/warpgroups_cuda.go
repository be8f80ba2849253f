//go:build cuda

package op

import (
	"fmt"

	G "gorgonia.org/gorgonia"

	"stheno/cudamodules"
)

// warpgroups is what the replacement of gorgonia.org/cu can do, and gorgonia.org/cu cannot.
type warpgroups interface {
	Warpgroups() (bool, error)
	AttendByWarpgroups(a cudamodules.WarpgroupAttention, scratch, out, lse, stats, q, k, v, sinks DevicePtr) error
}

// AttendByWarpgroups computes attention by warpgroups (cudamodules.WarpgroupAttention), if the card does that and they take the problem.
// The pointers are values on the card, addresses, or nil where there is none.
func (c *Card) AttendByWarpgroups(a cudamodules.WarpgroupAttention, out, lse, stats, q, k, v, sinks any) (done bool, err error) {
	w, ok := any(c.machine.Engines()[int(c.dev)].Context()).(warpgroups)
	if !ok || !a.Takes() {
		return false, nil
	}
	if ok, err := w.Warpgroups(); !ok || err != nil {
		return false, err
	}
	var at [7]DevicePtr
	for i, x := range []any{out, lse, stats, q, k, v, sinks} {
		switch x := x.(type) {
		case nil:
		case DevicePtr:
			at[i] = x
		case G.Value:
			at[i] = DevicePtr(x.Uintptr())
		default:
			return false, fmt.Errorf("%s: attention by warpgroups: pointer %d: got %T, want a value or an address", c.name, i, x)
		}
	}
	return true, c.Scratch(int(a.ScratchBytes()), func(scratch DevicePtr) error {
		return w.AttendByWarpgroups(a, scratch, at[0], at[1], at[2], at[3], at[4], at[5], at[6])
	})
}
