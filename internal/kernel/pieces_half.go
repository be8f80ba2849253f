package kernel

// HalfStep reports whether sums over k end in a step of 16 numbers or fewer, after whole ones.
func HalfStep(k int) bool { return k > PieceSteps && (k-1)%PieceSteps < PieceSteps/2 }

// PackHalfA is PackPiecesA for keys of OnlineTiles.Half. A last step of 16 numbers or fewer has two pieces in each tile.
func PackHalfA(dst []uint16, a Matrix[float32], bounds []PieceBounds) {
	a.check("A")
	packHalf(dst, a, bounds, false)
}

// PackHalfB is PackPiecesB for queries of OnlineTiles.Half, as PackHalfA.
func PackHalfB(dst []uint16, b Matrix[float32], bounds []PieceBounds) {
	b.check("B")
	packHalf(dst, b.T(), bounds, true)
}

// packHalf cuts lines of k steps, of which HalfStep is true.
func packHalf(dst []uint16, x Matrix[float32], bounds []PieceBounds, byStep bool) {
	lines, k := x.Rows, x.Cols
	checkLen("pieces", len(dst), PiecesLen(lines, k))
	checkLen("bounds", len(bounds), tasks(lines, PieceLines))
	panel, whole := PiecePanel(k), k/PieceSteps*PieceSteps
	for i := 0; i < lines; i += PieceLines {
		n, to := min(PieceLines, lines-i), dst[i/PieceLines*panel:]
		rows := x
		rows.Data, rows.Rows, rows.Cols = x.Data[x.at(i, 0):], n, whole
		var first [1]PieceBounds
		packPieces(to, rows, first[:], byStep, pieceParts)
		to = to[PiecePanel(whole):]
		var tile [pieceTile]float32
		gatherTile(&tile, x, i, n, whole, k-whole)
		for r := range n {
			row := tile[r*PieceSteps:][:PieceSteps]
			copy(row[PieceSteps/2:], row[:PieceSteps/2])
		}
		var words [32]uint32
		newBounds(words[:])
		packLines(to, tile[:], PieceSteps, PieceLines, 1, words[:], pieceParts)
		if byStep {
			turnTilesSIMD(to, pieceParts)
		}
		halfPiecesSIMD(to, byStep)
		bounds[i/PieceLines] = JoinPieceBounds(first[0], boundsOf(words[:]))
	}
}
