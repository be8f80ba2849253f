//go:build purego || !amd64

package kernel

func onlineCall(*attnForwardArgs) { panic(unreached) }

func onlineCodesCall(*onlineCodesArgs) { panic(unreached) }

func onlinePairsCall(*onlinePairsArgs) { panic(unreached) }

func pairRowsSIMD([]uint32, []float32, []float32) { panic(unreached) }

var havePairs, pairsFast bool
