// What a compressed cache of keys or of values stands for (kvcompress.FakeQuantizeKV): x (batch, seq, heads, d) coded and decoded, by the
// codec of kvcodes.cuh. The first `sinks` tokens stay, tokens from `coded` on too, or become FP16 if `halves`; those between are coded,
// in groups of `group`: a channel of keys has a scale for all tokens of its group, of which the last may not all be coded; a token of
// values has its own.
//
//   kv_fake_rows       rows (batch, heads, span, d): tokens from `sinks` on, rotated, as the recent ones are stored
//   kv_fake_keys_N     codes and decodes keys of rows, in place; a thread has a channel of a group
//   kv_fake_values_N   likewise values; a warp has a token
//   kv_fake_put        y: rows, rotated back, and the tokens that are not coded. Numbers that FP16 cannot hold become NaN
//
// Dynamic shared memory of _rows and _put: d floats for each of four warps.
#include "kvcodes.cuh"

#define KV_FAKE(T, t)                                                                                                            \
  KERNEL(128, kv_fake_rows_##t,                                                                                                  \
         (float *rows, const T *x, i64 batch, i64 seq, i64 heads, i64 d, i64 sinks, i64 span, i64 halves, i64 rotate)) {          \
    DYNAMIC_SHARED(float, shared);                                                                                               \
    const int lane = lane_id(), warp = threadIdx.x / 32;                                                                         \
    float *row = shared + warp * d;                                                                                              \
    for (i64 e = (i64)blockIdx.x * 4 + warp; e < batch * heads * span; e += (i64)gridDim.x * 4) {                                \
      const i64 i = sinks + e % span, h = e / span % heads, b = e / span / heads;                                                \
      for (i64 c = lane; c < d; c += 32) {                                                                                       \
        const float v = i < seq ? (float)x[((b * seq + i) * heads + h) * d + c] : 0.f;                                           \
        row[c] = halves ? half_value(half_bits(v)) : v;                                                                          \
      }                                                                                                                          \
      sync_warp();                                                                                                               \
      turn(row, d, rotate);                                                                                                      \
      for (i64 c = lane; c < d; c += 32) rows[e * d + c] = row[c];                                                               \
      sync_warp();                                                                                                               \
    }                                                                                                                            \
  }                                                                                                                              \
  KERNEL(128, kv_fake_put_##t,                                                                                                   \
         (T *y, const T *x, const float *rows, i64 batch, i64 seq, i64 heads, i64 d, i64 sinks, i64 coded, i64 span, i64 halves, \
          i64 rotate, double limit)) {                                                                                           \
    DYNAMIC_SHARED(float, shared);                                                                                               \
    const int lane = lane_id(), warp = threadIdx.x / 32;                                                                         \
    float *row = shared + warp * d;                                                                                              \
    for (i64 e = (i64)blockIdx.x * 4 + warp; e < batch * heads * seq; e += (i64)gridDim.x * 4) {                                 \
      const i64 i = e % seq, h = e / seq % heads, b = e / seq / heads, at = ((b * seq + i) * heads + h) * d;                     \
      const bool codes = i >= sinks && i < coded;                                                                                \
      if (codes) {                                                                                                               \
        for (i64 c = lane; c < d; c += 32) row[c] = rows[((b * heads + h) * span + i - sinks) * d + c];                          \
        sync_warp();                                                                                                             \
        turn(row, d, rotate);                                                                                                    \
      }                                                                                                                          \
      for (i64 c = lane; c < d; c += 32) {                                                                                       \
        const T v = x[at + c];                                                                                                   \
        const T w = codes ? (T)row[c] : i >= coded && halves ? (T)half_value(half_bits((float)v)) : v;                           \
        y[at + c] = (double)v <= limit && (double)v >= -limit ? w : not_a_number<T>();                                           \
      }                                                                                                                          \
      sync_warp();                                                                                                               \
    }                                                                                                                            \
  }
KV_FAKE(float, f32)
KV_FAKE(double, f64)

template <int bits> INLINE void fake_keys(float *rows, i64 heads_and_batch, i64 d, i64 group, i64 count, i64 span) {
  const i64 groups = (count + group - 1) / group;
  for (i64 e = grid_first(); e < heads_and_batch * groups * d; e += grid_stride()) {
    const i64 c = e % d, first = e / d % groups * group, n = count - first < group ? count - first : group;
    float *x = rows + (e / d / groups * span + first) * d + c;
    if (bits == 16) {
      for (i64 i = 0; i < n; i++) x[i * d] = half_value(half_bits(x[i * d]));
      continue;
    }
    float low = x[0], high = x[0];
    for (i64 i = 1; i < group; i++) {
      low = x[i * d] < low ? x[i * d] : low;
      high = x[i * d] > high ? x[i * d] : high;
    }
    u16 halves[2];
    const Row row = set_row<bits>(halves, 1, 0, low, high);
    for (i64 i = 0; i < n; i++) x[i * d] = decoded<bits>(encoded<bits>(x[i * d], row), halves, 1, 0);
  }
}

template <int bits> INLINE void fake_values(float *rows, i64 heads_and_batch, i64 d, i64 count, i64 span) {
  for (i64 e = (i64)blockIdx.x * 4 + threadIdx.x / 32; e < heads_and_batch * count; e += (i64)gridDim.x * 4) {
    float *x = rows + (e / count * span + e % count) * d;
    if (bits == 16) {
      for (i64 c = lane_id(); c < d; c += 32) x[c] = half_value(half_bits(x[c]));
      continue;
    }
    float low = infinity<float>(), high = -infinity<float>();
    for (i64 c = lane_id(); c < d; c += 32) {
      low = x[c] < low ? x[c] : low;
      high = x[c] > high ? x[c] : high;
    }
    for (int m = 16; m; m >>= 1) {
      const float l = shuffle_xor(low, m), u = shuffle_xor(high, m);
      low = l < low ? l : low;
      high = u > high ? u : high;
    }
    u16 halves[2];
    const Row row = set_row<bits>(halves, 1, 0, low, high);
    for (i64 c = lane_id(); c < d; c += 32) x[c] = decoded<bits>(encoded<bits>(x[c], row), halves, 1, 0);
  }
}

#define KV_FAKE_CODES(bits)                                                                                                 \
  KERNEL(128, kv_fake_keys_##bits, (float *rows, i64 heads_and_batch, i64 d, i64 group, i64 count, i64 span)) {              \
    fake_keys<bits>(rows, heads_and_batch, d, group, count, span);                                                          \
  }                                                                                                                         \
  KERNEL(128, kv_fake_values_##bits, (float *rows, i64 heads_and_batch, i64 d, i64 group, i64 count, i64 span)) {            \
    fake_values<bits>(rows, heads_and_batch, d, count, span);                                                               \
  }
KV_FAKE_CODES(4)
KV_FAKE_CODES(8)
KV_FAKE_CODES(16)
