package cu

import "stheno/cudamodules"

// Warpgroups says whether the card computes attention by warpgroups.
func (b *BatchedContext) Warpgroups() (bool, error) {
	c, err := contextOf(b.Device)
	if err != nil {
		return false, err
	}
	ok, _ := c.Device().Warpgroups()
	return ok, nil
}

// AttendByWarpgroups has the card compute a problem. scratch has room for a.ScratchBytes(), lse, stats and sinks may be 0.
func (b *BatchedContext) AttendByWarpgroups(a cudamodules.WarpgroupAttention, scratch, out, lse, stats, q, k, v, sinks DevicePtr) error {
	text, err := cudamodules.PTX(cudamodules.WarpgroupModule)
	if err != nil {
		return err
	}
	inUse.Lock()
	s := inUse.contexts[b.Device]
	if s == nil {
		inUse.Unlock()
		return errNoContext
	}
	m := s.module(text) // until the context is closed
	inUse.Unlock()
	return a.Launch(func(_, kernel string, g cudamodules.Geometry, params ...any) error {
		f, err := m.Function(kernel)
		if err != nil {
			return err
		}
		return f.Launch(g, cudamodules.KernelParams(params)...)
	}, ptr(scratch), ptr(out), ptr(lse), ptr(stats), ptr(q), ptr(k), ptr(v), ptr(sinks))
}
