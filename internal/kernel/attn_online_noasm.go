//go:build purego || !amd64

package kernel

func onlineCall(*attnForwardArgs) { panic(unreached) }

func onlineCodesCall(*onlineCodesArgs) { panic(unreached) }
