package optest

import (
	"stheno/internal/kernel"
	"stheno/internal/throughput"
)

// FLOPs is work of so many float32 operations, a multiply-add being two, compared with multiply-adds that stay in registers.
func FLOPs(ops float64, threads int) throughput.Work {
	return throughput.Work{Ops: ops, Ceiling: func() float64 { return kernel.SamplePeak(threads, throughput.CeilingTime) }}
}
