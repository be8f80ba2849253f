//go:build purego || !amd64

package kernel

func tilesCall(*attnTilesArgs) { panic(unreached) }

func codeTilesCall(*codeTilesArgs)    { panic(unreached) }
func roundedTilesCall(*attnTilesArgs) { panic(unreached) }
func halfTilesCall(*attnTilesArgs)    { panic(unreached) }
func halfPiecesSIMD([]uint16, bool)   { panic(unreached) }
