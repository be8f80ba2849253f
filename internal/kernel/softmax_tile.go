package kernel

import (
	"fmt"
	"math"
)

// The steps of tiled attention on a tile of scores s: rows×n, row-major, consecutive rows ld elements apart. Scores are natural,
// a weight is e^score: what log₂e multiplies is the difference of a score and the largest of its row, which is small where it
// counts, so that large scores lose nothing. A score of −Inf is a key that the row does not see.

func checkScores(name string, len, ld, rows, n int) {
	if rows > 0 && n > 0 && (n > ld && rows > 1 || len < (rows-1)*ld+n) {
		panic(fmt.Sprintf("kernel: %s: %d×%d tile with stride %d in %d elements", name, rows, n, ld, len))
	}
}

func checkRows(name string, rows int, lens ...int) {
	for _, l := range lens {
		if l < rows {
			panic(fmt.Sprintf("kernel: %s: %d row values, want %d", name, l, rows))
		}
	}
}

// bands calls f on [r0, r1) for consecutive groups of rows that one assembly call may take.
func bands(rows, n int, f func(r0, r1 int)) {
	step := rows
	if rows*n > maxCall {
		step = max(1, maxCall/n)
	}
	for r := 0; r < rows; r += step {
		f(r, min(r+step, rows))
		breathe()
	}
}

// SoftmaxStep is one step of the online softmax (Milakov and Gimelshein 2018; Dao et al. 2022, algorithm 1), for each row r:
//
//	mx        = max(rowMax[r], maxⱼ s[r,j])
//	alpha[r]  = e^(rowMax[r]−mx)
//	s[r,j]    = e^(s[r,j]−mx)
//	rowSum[r] = rowSum[r]·alpha[r] + Σⱼ s[r,j]
//	rowMax[r] = mx
//
// Start with rowMax = −Inf and rowSum = 0. While a row has seen no key, mx stays −Inf, its s becomes 0, alpha is 1 and rowSum
// stays. A NaN or +Inf score makes rowSum of its row, and of no other, NaN for good. e^x has a relative error below
// 2.2e-7 + 1.4e-7·|x|.
func SoftmaxStep[T Float](s []T, ld, rows, n int, rowMax, rowSum, alpha []T) {
	checkScores("SoftmaxStep", len(s), ld, rows, n)
	checkRows("SoftmaxStep", rows, len(rowMax), len(rowSum), len(alpha))
	if is32[T]() && active != Generic {
		s, rowMax, rowSum, alpha := as32(s), as32(rowMax), as32(rowSum), as32(alpha)
		bands(rows, n, func(r0, r1 int) {
			simdSoftmaxStep(tileFrom(s, ld, r0, n), ld, r1-r0, n, rowMax[r0:r1], rowSum[r0:r1], alpha[r0:r1])
		})
		return
	}
	for r := range rows {
		row := tileRow(s, ld, r, n)
		mx := rowMax[r]
		for _, v := range row {
			if v > mx {
				mx = v
			}
		}
		sub := shift(mx)
		a := T(1)
		if !math.IsInf(float64(mx), -1) {
			a = T(math.Exp(float64(rowMax[r] - sub)))
		}
		var sum float64
		for j, v := range row {
			e := math.Exp(float64(v - sub))
			row[j] = T(e)
			sum += e
		}
		alpha[r] = a
		rowSum[r] = rowSum[r]*a + T(sum)
		rowMax[r] = mx
	}
}

// tileFrom is the tile from row r on; an empty tile has no elements at all.
func tileFrom[T Float](s []T, ld, r, n int) []T {
	if n == 0 {
		return nil
	}
	return s[r*ld:]
}

func tileRow[T Float](s []T, ld, r, n int) []T {
	if n == 0 {
		return nil
	}
	return s[r*ld : r*ld+n]
}

// MaskRange sets s[r,j] = −Inf unless lo[r] ≤ j < hi[r].
func MaskRange[T Float](s []T, ld, rows, n int, lo, hi []int32) {
	checkScores("MaskRange", len(s), ld, rows, n)
	checkRows("MaskRange", rows, len(lo), len(hi))
	inf := T(math.Inf(-1))
	for r := range rows {
		row := tileRow(s, ld, r, n)
		first := min(max(int(lo[r]), 0), n)
		end := max(min(int(hi[r]), n), first)
		for j := range row[:first] {
			row[j] = inf
		}
		for j := range row[end:] {
			row[end+j] = inf
		}
	}
}

// Softcap replaces s by limit·tanh(s·scale/limit): s are raw products q·k, the result scores.
func Softcap[T Float](s []T, ld, rows, n int, scale, limit float64) {
	checkScores("Softcap", len(s), ld, rows, n)
	in, out := scale/limit, limit
	if is32[T]() && active != Generic {
		s := as32(s)
		bands(rows, n, func(r0, r1 int) {
			simdSoftcap(tileFrom(s, ld, r0, n), ld, r1-r0, n, float32(in), float32(out))
		})
		return
	}
	for r := range rows {
		for j, v := range tileRow(s, ld, r, n) {
			s[r*ld+j] = T(out * math.Tanh(in*float64(v)))
		}
	}
}

// SoftcapGrad computes ds *= 1−tanh², the derivative of limit·tanh(x/limit), from the scores s that Softcap made with the same
// limit. Masked scores, −Inf, give the factor 0. ds and s have the same stride.
func SoftcapGrad[T Float](ds, s []T, ld, rows, n int, limit float64) {
	checkScores("SoftcapGrad", len(ds), ld, rows, n)
	checkScores("SoftcapGrad", len(s), ld, rows, n)
	inverse := 1 / limit
	if is32[T]() && active != Generic {
		ds, s := as32(ds), as32(s)
		bands(rows, n, func(r0, r1 int) {
			simdSoftcapGrad(tileFrom(ds, ld, r0, n), tileFrom(s, ld, r0, n), ld, r1-r0, n, float32(inverse))
		})
		return
	}
	for r := range rows {
		for j, v := range tileRow(s, ld, r, n) {
			t := float64(v) * inverse
			ds[r*ld+j] *= T(1 - min(1, t*t))
		}
	}
}

// AffineRows computes s[r,j] += base[r] + slope·j: ALiBi (Press et al. 2022) with base[r] = slope·(position of key 0 of the tile −
// position of query r).
func AffineRows[T Float](s []T, ld, rows, n int, base []T, slope T) {
	checkScores("AffineRows", len(s), ld, rows, n)
	checkRows("AffineRows", rows, len(base))
	if is32[T]() && active != Generic {
		s, base, slope := as32(s), as32(base), float32(slope)
		bands(rows, n, func(r0, r1 int) {
			simdAffineRows(tileFrom(s, ld, r0, n), ld, r1-r0, n, base[r0:r1], slope)
		})
		return
	}
	for r := range rows {
		for j := range tileRow(s, ld, r, n) {
			s[r*ld+j] += base[r] + slope*T(j)
		}
	}
}

// AddRows computes s[r,j] += a·b[r,j]; rows of b are ldb elements apart, 0 for one row that serves all.
func AddRows[T Float](s []T, ld int, b []T, ldb, rows, n int, a T) {
	checkScores("AddRows", len(s), ld, rows, n)
	if rows > 0 && n > 0 && len(b) < (rows-1)*ldb+n {
		panic(fmt.Sprintf("kernel: AddRows: %d×%d addend with stride %d in %d elements", rows, n, ldb, len(b)))
	}
	if is32[T]() && active != Generic {
		s, b, a := as32(s), as32(b), float32(a)
		bands(rows, n, func(r0, r1 int) {
			simdAddRows(tileFrom(s, ld, r0, n), ld, tileFrom(b, ldb, r0, n), ldb, r1-r0, n, a)
		})
		return
	}
	for r := range rows {
		add := tileRow(b, ldb, r, n)
		for j := range tileRow(s, ld, r, n) {
			s[r*ld+j] += a * add[j]
		}
	}
}

// ProbFromLSE computes p[r,j] = e^(s[r,j]−lse[r]); a row whose lse is −Inf saw no key and gets zeros. p and s
// have the same stride, p may be s.
func ProbFromLSE[T Float](p, s []T, ld, rows, n int, lse []T) {
	checkScores("ProbFromLSE", len(p), ld, rows, n)
	checkScores("ProbFromLSE", len(s), ld, rows, n)
	checkRows("ProbFromLSE", rows, len(lse))
	if is32[T]() && active != Generic {
		p, s, lse := as32(p), as32(s), as32(lse)
		bands(rows, n, func(r0, r1 int) {
			simdProbFromLSE(tileFrom(p, ld, r0, n), tileFrom(s, ld, r0, n), ld, r1-r0, n, lse[r0:r1])
		})
		return
	}
	for r := range rows {
		sub := lse[r]
		if math.IsInf(float64(sub), -1) {
			sub = T(math.Inf(1))
		}
		for j, v := range tileRow(s, ld, r, n) {
			p[r*ld+j] = T(math.Exp(float64(v - sub)))
		}
	}
}

// DScore computes ds[r,j] = p[r,j]·(dp[r,j]−delta[r]), the softmax backward with delta[r] = Σ dOut·out (Dao 2023, algorithm 2).
// All have the same stride; ds may be p or dp.
func DScore[T Float](ds, p, dp []T, ld, rows, n int, delta []T) {
	checkScores("DScore", len(ds), ld, rows, n)
	checkScores("DScore", len(p), ld, rows, n)
	checkScores("DScore", len(dp), ld, rows, n)
	checkRows("DScore", rows, len(delta))
	if is32[T]() && active != Generic {
		ds, p, dp, delta := as32(ds), as32(p), as32(dp), as32(delta)
		bands(rows, n, func(r0, r1 int) {
			simdDScore(tileFrom(ds, ld, r0, n), tileFrom(p, ld, r0, n), tileFrom(dp, ld, r0, n), ld, r1-r0, n, delta[r0:r1])
		})
		return
	}
	for r := range rows {
		for j := range tileRow(ds, ld, r, n) {
			i := r*ld + j
			ds[i] = p[i] * (dp[i] - delta[r])
		}
	}
}
