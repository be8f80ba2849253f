//go:build purego || !amd64

package kernel

func tilesCall(*attnTilesArgs) { panic(unreached) }

func codeTilesCall(*codeTilesArgs)    { panic(unreached) }
func roundedTilesCall(*attnTilesArgs) { panic(unreached) }
