package kernel

// vectors computes the product row by row from the codes, where there is assembly for it, and reports whether it did.
func (g *quantizedGemm[T]) vectors() bool { return false }
