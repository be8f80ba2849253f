// Matrices of quantized weights as package ops/quantize packs them: panels of 16 columns, in each of them steps of a few rows, 32 bits
// of a step (16 of FP16) for a column after the other. Row p and column j of a matrix of k × n are
//
//   FP16  1 row a step
//   BF16  2 rows, p%2 the half
//   INT8  4 rows, p%4 the byte
//   INT4  8 rows, p%4 the byte, the high four bits for p%8 ≥ 4
//
// and codes stand for scale·(code − zero). Rows and columns are filled up with what stands for 0.
#pragma once
#include "common.cuh"

enum Scheme { FP16, BF16, INT8, INT4 };
constexpr int panel_columns = 16;

INLINE float half_value(u32 h) {
  u32 sign = (h & 0x8000u) << 16, rest = (h & 0x7fffu) << 13;
  if ((h & 0x7c00u) == 0x7c00u) return from_bits(sign | 0x7f800000u | rest);
  return from_bits(sign | to_bits(from_bits(rest) * 0x1p112f));  // exact, also below the normal numbers of a half
}

// Quad is four numbers that are read and written together.
template <class T> struct alignas(4 * sizeof(T)) Quad { T of[4]; };

template <int S> struct Codes {
  static constexpr int rows = S == FP16 ? 1 : S == BF16 ? 2 : S == INT8 ? 4 : 8;  // of a step
  static constexpr bool scaled = S == INT8 || S == INT4;
  // exact: every number is one of TF32.
  static constexpr bool exact = !scaled;

  const void *codes;
  const float *scales;  // null for FP16 and BF16
  const u8 *zeros;      // null for the middle code
  i64 k, n;
  i64 group;  // rows that share a scale
  i64 many;   // 0: one scale for the whole matrix, 1: one for each group and column

  METHOD i64 steps() const { return (k + rows - 1) / rows; }
  METHOD u32 word(i64 step, i64 j) const {
    i64 at = (j / panel_columns * steps() + step) * panel_columns + j % panel_columns;
    return S == FP16 ? ((const u16 *)codes)[at] : ((const u32 *)codes)[at];
  }
  // four are the words of columns j … j+3 of a step, j a multiple of 4.
  METHOD void four(i64 step, i64 j, u32 *words) const {
    const i64 at = (j / panel_columns * steps() + step) * panel_columns + j % panel_columns;
    if (S == FP16) {
      const Quad<u16> q = *(const Quad<u16> *)((const u16 *)codes + at);
      for (int c = 0; c < 4; c++) words[c] = q.of[c];
    } else {
      const Quad<u32> q = *(const Quad<u32> *)((const u32 *)codes + at);
      for (int c = 0; c < 4; c++) words[c] = q.of[c];
    }
  }
  // shared is what scale and zero take for the rows that share theirs with row p.
  METHOD i64 shared(i64 p) const { return scaled ? p / group * n * many : 0; }
  METHOD float scale(i64 shared, i64 j) const { return scales[shared + j * many]; }
  METHOD int zero(i64 shared, i64 j) const { return zeros ? zeros[shared + j * many] : S == INT8 ? 128 : 8; }

  // code is row i of a step.
  METHOD static int code(u32 word, int i) { return S == INT8 ? word >> 8 * i & 255 : word >> (8 * (i & 3) + (i & 4)) & 15; }
  // value is the number of row i of a step.
  METHOD static float value(u32 word, int i, float scale, int zero) {
    if (S == FP16) return half_value(word);
    if (S == BF16) return from_bits(i ? word & 0xffff0000u : word << 16);
    return scale * (float)(code(word, i) - zero);
  }
  METHOD float number(i64 p, i64 j) const {
    u32 w = word(p / rows, j);
    i64 at = shared(p);
    return scaled ? value(w, (int)(p % rows), scale(at, j), zero(at, j)) : value(w, (int)(p % rows), 0, 0);
  }
};
