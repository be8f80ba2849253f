// The codec of cached keys and values, of package ops/kvcompress: codes of 4 or 8 bits of rows with a scale, and with a minimum at 4 bits,
// in FP16; the same bits as there.
#pragma once
#include "codes.cuh"
#include "math.cuh"

// half_bits is x in FP16, rounded to nearest, ties to even; |x| is at most 65504, or a little more that rounds to it.
INLINE u16 half_bits(float x) {
  u32 b = to_bits(x), sign = b >> 16 & 0x8000u, a = b & 0x7fffffffu;
  if (a >= 0x7f800000u) return (u16)(sign | 0x7c00u | (a > 0x7f800000u ? 0x200u : 0u));
  if (a < 0x38800000u) return (u16)(sign | (u32)(int)nearest(from_bits(a) * 0x1p24f));  // below 2⁻¹⁴
  a += 0xfffu + (a >> 13 & 1);
  u32 h = (a - 0x38000000u) >> 13;
  return (u16)(sign | (h > 0x7c00u ? 0x7c00u : h));
}
// half_up is the smallest FP16 number that is not below x ≥ 0, half_down the largest that is not above.
INLINE u16 half_up(double x) {
  u16 h = half_bits((float)x);
  return (double)half_value(h) < x ? h + 1 : h;
}
INLINE u16 half_down(float x) {
  u16 h = half_bits(x);
  float v = half_value(h);
  if (v <= x) return h;
  if ((h & 0x7fff) == 0) return 0x8001;
  return v > 0 ? h - 1 : h + 1;
}

// Row is the scale and minimum of a row of codes.
struct Row { float low; double inverse; };
template <int bits> INLINE Row set_row(u16 *halves, i64 rows, i64 r, float low, float high) {
  u16 s, m = 0;
  if (bits == 8) {
    double a = magnitude((double)low), b = magnitude((double)high);
    s = half_up((a > b ? a : b) / 127);
  } else {
    m = half_down(low);
    s = half_up(((double)high - (double)half_value(m)) / 15);
    halves[rows + r] = m;
  }
  halves[r] = s;
  float scale = half_value(s);
  return {bits == 8 ? -128 * scale : half_value(m), scale > 0 ? 1 / (double)scale : 0.};
}
template <int bits> INLINE Row row_of(const u16 *halves, i64 rows, i64 r) {
  float scale = half_value(halves[r]);
  return {bits == 8 ? -128 * scale : half_value(halves[rows + r]), scale > 0 ? 1 / (double)scale : 0.};
}
template <int bits> INLINE u32 encoded(float x, const Row &row) {
  double c = nearest(((double)x - (double)row.low) * row.inverse), most = (1 << bits) - 1;
  return (u32)(int)(c < 0 ? 0 : c > most ? most : c);
}

// decoded is what a code of a row stands for.
template <int bits> INLINE float decoded(u32 code, const u16 *halves, i64 rows, i64 r) {
  const float scale = half_value(halves[r]), low = bits == 8 ? -128 * scale : half_value(halves[rows + r]);
  return (float)((double)scale * (double)code + (double)low);
}

// turn multiplies a row of n numbers by the normalized Hadamard matrix, block by block of `rotate` numbers; a warp does it together.
INLINE void turn(float *row, i64 n, i64 rotate) {
  for (i64 step = 1; step < rotate; step *= 2) {
    for (i64 i = lane_id(); i < n / 2; i += 32) {
      const i64 at = i / step * 2 * step + i % step;
      const float u = row[at], v = row[at + step];
      row[at] = u + v;
      row[at + step] = u - v;
    }
    sync_warp();
  }
  const float norm = rotate > 1 ? (float)(1 / root((double)rotate)) : 1.f;
  for (i64 c = lane_id(); c < n; c += 32) row[c] = row[c] * norm;
}
