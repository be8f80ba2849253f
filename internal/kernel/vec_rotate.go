package kernel

// Rotate turns the pairs (x1[i], x2[i]) by the angles whose cosines and sines are given: y1 = x1·cos − x2·sin,
// y2 = x2·cos + x1·sin. That is the half-split form of rotary embeddings (Su et al. 2021): x1 and x2 are the halves of a head; the
// inverse is −sin. y1 may be x1 and y2 may be x2.
func Rotate[T Float](y1, y2, x1, x2, cos, sin []T) {
	sameLen("Rotate", len(y1), len(y2), len(x1), len(x2), len(cos), len(sin))
	if is32[T]() && simdRotate(as32(y1), as32(y2), as32(x1), as32(x2), as32(cos), as32(sin)) {
		return
	}
	for i, a := range x1 {
		b, c, s := x2[i], cos[i], sin[i]
		y1[i], y2[i] = a*c-b*s, b*c+a*s
	}
}

// RotateInterleaved turns the pairs (x[2i], x[2i+1]) by the angle with cosine cos[i] and sine sin[i]. x has an even length, twice
// that of cos and sin. dst may be x.
func RotateInterleaved[T Float](dst, x, cos, sin []T) {
	sameLen("RotateInterleaved", len(dst), len(x), 2*len(cos), 2*len(sin))
	done := 0
	if is32[T]() && active != Generic {
		dst, x, cos, sin := as32(dst), as32(x), as32(cos), as32(sin)
		done = len(x) &^ 15
		pieces(done, func(i, j int) {
			simdRotatePairs(dst[i:j], x[i:j], cos[i/2:j/2], sin[i/2:j/2], j-i)
		})
	}
	for i := done; i < len(x); i += 2 {
		a, b, c, s := x[i], x[i+1], cos[i/2], sin[i/2]
		dst[i], dst[i+1] = a*c-b*s, b*c+a*s
	}
}
