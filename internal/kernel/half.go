package kernel

import "math"

// MaxFloat16 is the largest finite number of FP16.
const MaxFloat16 = 65504

// Float16Bits rounds x to FP16 (IEEE 754 binary16), ties to even. A number of 65520 or more in magnitude becomes an infinity,
// a NaN stays a NaN.
func Float16Bits(x float32) uint16 {
	b := math.Float32bits(x)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000: // NaN: quiet, with the upper part of its payload
		return sign | 0x7e00 | uint16(b>>13&0x3ff)
	case b >= 0x477ff000: // 65520
		return sign | 0x7c00
	case b < 0x38800000: // below 2⁻¹⁴: adding 1/2 leaves x in units of 2⁻²⁴, rounded, in the low bits
		return sign | uint16(math.Float32bits(math.Float32frombits(b)+0.5)-0x3f000000)
	}
	b += 0xfff + b>>13&1 // to even
	return sign | uint16((b-0x38000000)>>13)
}

// Float16Value is the number that FP16 bits stand for. It is exact; a NaN becomes quiet.
func Float16Value(h uint16) float32 {
	sign, b := uint32(h&0x8000)<<16, uint32(h&0x7fff)
	switch {
	case b > 0x7c00:
		b = 0x7fc00000 | b<<13
	case b == 0x7c00:
		b = 0x7f800000
	case b < 0x400: // subnormal: a multiple of 2⁻²⁴
		b = math.Float32bits(float32(b) * 0x1p-24)
	default:
		b = b<<13 + 0x38000000
	}
	return math.Float32frombits(sign | b)
}

// BFloat16Bits rounds x to BF16, ties to even. A NaN stays a NaN; the largest numbers of float32 become infinities.
func BFloat16Bits(x float32) uint16 {
	b := math.Float32bits(x)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// BFloat16Value is the number that BF16 bits stand for, exactly.
func BFloat16Value(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// ToFloat16 rounds src to FP16 into dst, of the same length, and returns how many numbers are finite but beyond MaxFloat16 in
// magnitude: those of 65520 and more have become infinities.
func ToFloat16(dst []uint16, src []float32) (over int) {
	sameLen("ToFloat16", len(src), len(dst))
	for len(src) > 0 {
		n, o := toFloat16SIMD(dst, src[:min(len(src), maxCall)])
		if n == 0 {
			break
		}
		dst, src, over = dst[n:], src[n:], over+o
		breathe()
	}
	for i, x := range src {
		dst[i] = Float16Bits(x)
		if a := math.Float32bits(x) & 0x7fffffff; a > 0x477fe000 && a < 0x7f800000 {
			over++
		}
	}
	return over
}

// FromFloat16 widens FP16 to float32; the slices have the same length.
func FromFloat16(dst []float32, src []uint16) {
	sameLen("FromFloat16", len(src), len(dst))
	for len(src) > 0 {
		n := fromFloat16SIMD(dst, src[:min(len(src), maxCall)])
		if n == 0 {
			break
		}
		dst, src = dst[n:], src[n:]
		breathe()
	}
	for i, h := range src {
		dst[i] = Float16Value(h)
	}
}

// ToBFloat16 rounds src to BF16 into dst, of the same length.
func ToBFloat16(dst []uint16, src []float32) {
	sameLen("ToBFloat16", len(src), len(dst))
	for len(src) > 0 {
		n := toBFloat16SIMD(dst, src[:min(len(src), maxCall)])
		if n == 0 {
			break
		}
		dst, src = dst[n:], src[n:]
		breathe()
	}
	for i, x := range src {
		dst[i] = BFloat16Bits(x)
	}
}

// FromBFloat16 widens BF16 to float32; the slices have the same length.
func FromBFloat16(dst []float32, src []uint16) {
	sameLen("FromBFloat16", len(src), len(dst))
	for len(src) > 0 {
		n := fromBFloat16SIMD(dst, src[:min(len(src), maxCall)])
		if n == 0 {
			break
		}
		dst, src = dst[n:], src[n:]
		breathe()
	}
	for i, h := range src {
		dst[i] = BFloat16Value(h)
	}
}
