// What attention multiplies in fewer bits (flashattn.Precision): copies of rows in BF16, and queries and keys as integers of 8 bits with
// a scale for each row, after SageAttention (Zhang et al. 2024, arXiv 2410.02367):
//
//   μ = mean of the finite keys of a head and sequence, summed in float from the first to the last
//   code = round(127/max|x|·x), scale = max|x|/127, where x = q, or k − μ; of a row that is not finite: codes 0, scale NaN
//   lift = q·μ
//
// Rows are those of x (batch, seq, heads, d). Copies for tensor cores are (batch, heads, seq, width), filled up with zeros. cu
// (sequences + 1), null for none, is where sequences begin whose means are apart; those out of range, and rows after the last, have the
// mean 0. Codes and means have the bits that the CPU gives them.
#include "math.cuh"
#include "narrow.cuh"

constexpr float least_scale = 0x1p-100f;

// Bounds are those of a sequence.
struct Bounds { i64 from, to; };
INLINE Bounds bounds_of(const void *cu, i64 bytes, i64 s, i64 seq) {
  if (!cu) return {0, seq};
  const i64 from = integer_at(cu, bytes, s), to = integer_at(cu, bytes, s + 1);
  return from < 0 || to < from || to > seq ? Bounds{0, 0} : Bounds{from, to};
}
INLINE bool finite(float x) { return magnitude(x) <= 0x1.fffffep127f; }

// A block has a head of a sequence, its threads every 256th channel.
template <class T>
INLINE void key_means(T *means, const T *k, i64 seq, i64 heads, i64 d, const void *cu, i64 cu_bytes, int *bad) {
  const i64 h = blockIdx.x, s = blockIdx.y, b = cu ? 0 : s, c = threadIdx.x;
  const Bounds at = bounds_of(cu, cu_bytes, s, seq);
  const T *key = k + ((b * seq + at.from) * heads + h) * d + c;
  if (threadIdx.x < 2) bad[threadIdx.x] = 0;
  BARRIER(0);
  float sum = 0;
  for (i64 j = 0; c < d && j < at.to - at.from; j++) sum += (float)key[j * heads * d];
  if (c < d && !finite(sum)) bad[0] = 1;
  BARRIER(1);
  i64 n = at.to - at.from;
  if (bad[0]) {  // again, without the rows that are not finite; every thread looks at all of a row
    sum = 0;
    for (i64 j = 0; c < d && j < at.to - at.from; j++) {
      bool all = true;
      for (i64 e = 0; e < d; e++) all = all && finite((float)key[j * heads * d + e - c]);
      if (all)
        sum += (float)key[j * heads * d];
      else
        n--;
    }
  }
  const float mean = sum * (1 / (float)(n < 1 ? 1 : n));
  if (c < d && !finite(mean)) bad[1] = 1;
  BARRIER(2);
  if (c < d) means[(s * heads + h) * d + c] = bad[1] ? (T)0 : (T)mean;
}

// CodesOf says where the codes of rows go: any of the pointers may be null.
template <class T> struct CodesOf {
  i8 *codes;      // (batch, heads, seq, width)
  float *scales;  // (batch, heads, seq)
  T *lift;        // (batch, heads, seq): of queries
  T *values;      // as x: scale·code
};
// A warp has a row. Means are those of kvHeads heads: of keys (centred), or of those that queries share.
template <class T>
INLINE void encode(const CodesOf<T> &to, const T *x, const T *means, i64 batch, i64 seq, i64 heads, i64 kvHeads, i64 d, i64 width, i64 centred,
                   const void *cu, i64 cu_bytes, i64 sequences) {
  for (i64 row = (i64)blockIdx.x * 4 + threadIdx.x / 32; row < batch * heads * seq; row += (i64)gridDim.x * 4) {
    const i64 i = row % seq, h = row / seq % heads, b = row / seq / heads;
    i64 s = b;
    if (cu)
      for (s = 0; s < sequences && integer_at(cu, cu_bytes, s + 1) <= i;) s++;
    const T *from = x + ((b * seq + i) * heads + h) * d;
    const T *mean = s < (cu ? sequences : batch) ? means + (s * kvHeads + h / (heads / kvHeads)) * d : nullptr;
    float top = 0;
    bool all = true;
    T lift = 0;
    for (i64 c = lane_id(); c < d; c += 32) {
      float v = (float)from[c];
      if (centred)
        v += mean ? -(float)mean[c] : -0.f;
      else if (mean)
        lift = fused((T)v, mean[c], lift);
      all = all && finite(v);
      top = larger(top, magnitude(v));
    }
    top = warp_max(top);
    lift = warp_sum(lift);
    const bool good = warp_max(all ? 0.f : 1.f) == 0;
    if (top < least_scale) top = least_scale;
    const float scale = good ? top / 127 : not_a_number<float>(), inverse = 127 / top;
    if (lane_id() == 0) {
      if (to.scales) to.scales[row] = scale;
      if (to.lift) to.lift[row] = lift;
    }
    for (i64 c = lane_id(); c < width || c < d; c += 32) {
      float code = 0;
      if (c < d && good) {
        float v = (float)from[c];
        if (centred) v += mean ? -(float)mean[c] : -0.f;
        code = nearest(v * inverse);
      }
      if (to.codes && c < width) to.codes[row * width + c] = (i8)(int)code;
      if (to.values && c < d) to.values[((b * seq + i) * heads + h) * d + c] = (T)scale * (T)code;
    }
  }
}

#define NARROW(T, t)                                                                                                                \
  /* y = x rounded to BF16, by way of float */                                                                                      \
  KERNEL(256, narrow_round_##t, (T *y, const T *x, i64 n)) {                                                                        \
    for (i64 i = grid_first(); i < n; i += grid_stride()) y[i] = (T)bf16_value(bf16_bits((float)x[i]));                             \
  }                                                                                                                                 \
  /* means (sequences, heads, d); blocks: heads, sequences */                                                                       \
  KERNEL(256, narrow_means_##t, (T *means, const T *k, i64 seq, i64 heads, i64 d, const void *cu, i64 cu_bytes)) {                  \
    __shared__ int bad[2];                                                                                                          \
    key_means(means, k, seq, heads, d, cu, cu_bytes, bad);                                                                          \
  }                                                                                                                                 \
  KERNEL(128, narrow_codes_##t,                                                                                                     \
         (i8 *codes, float *scales, T *lift, T *values, const T *x, const T *means, i64 batch, i64 seq, i64 heads, i64 kvHeads,     \
          i64 d, i64 width, i64 centred, const void *cu, i64 cu_bytes, i64 sequences)) {                                            \
    encode<T>({codes, scales, lift, values}, x, means, batch, seq, heads, kvHeads, d, width, centred, cu, cu_bytes, sequences);     \
  }
NARROW(float, f32)
NARROW(double, f64)

// y (batch, heads, seq, width) is x in BF16; width is even.
KERNEL(256, narrow_bf16_f32, (u16 *y, const float *x, i64 batch, i64 seq, i64 heads, i64 d, i64 width)) {
  for (i64 e = grid_first(); e < batch * heads * seq * (width / 2); e += grid_stride()) {
    const i64 c = e % (width / 2) * 2, row = e / (width / 2), i = row % seq, h = row / seq % heads, b = row / seq / heads;
    const float *from = x + ((b * seq + i) * heads + h) * d;
    ((u32 *)y)[e] = bf16_pair(c < d ? from[c] : 0.f, c + 1 < d ? from[c + 1] : 0.f);
  }
}
