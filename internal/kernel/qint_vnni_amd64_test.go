//go:build !purego

package kernel

// setVNNI says whether kernels may use VNNI and reports whether that is a change.
func setVNNI(on bool) (changed bool) {
	changed = haveVNNI != on
	haveVNNI = on
	return changed
}

// setMatrices says whether kernels may use tiles of matrices and reports whether that is a change.
func setMatrices(on bool) (changed bool) {
	changed = haveMatrices() && noMatrices == on
	noMatrices = !on
	return changed
}
