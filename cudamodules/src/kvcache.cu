// A compressed cache of keys and values on the card, with the codec of package ops/kvcompress: the same codes, bit for bit.
//
// The tokens of a sequence are, in order: sinks in float; coded ones in pages of `group` tokens; the newest in a ring, token t in slot
// t mod recent, in float or halves. All of it is there from the start, for the whole capacity:
//
//   sink_k, sink_v   (batch, heads, sinks, d and dv)
//   ring_k, ring_v   (batch, heads, recent, d and dv)
//   codes, numbers   (batch, heads, pages): the codes of a page, keys and then values, and its FP16 numbers likewise, scales and then
//                    minima of 4 bits, or the numbers themselves of 16
//   states           (batch, 5): tokens before the call, of them coded, tokens after it, of them coded, and pages that are dropped
//
// Keys of a page are a matrix of channels × tokens, values one of tokens × channels, rows filled up to multiples of 16. A word of 32
// bits has four rows of 8 bits or eight of 4 of a column, the first lowest; columns lie in blocks of 64 (the last may have fewer), a
// block being the words of all its columns for the first rows, then for the next. A row has a scale and a minimum; without minima
// (8 bits) the code of 0 is 128.
//
//   kv_rows        the keys that are to be coded, rotated: rows of d numbers (batch, heads, span), from the first one not yet coded on
//   kv_encode_N    codes tokens into their pages; a block for each page that is touched, head and sequence
//   kv_store       the new tokens, k (batch, seq, heads, d) and v (batch, seq, heads, dv), into sinks and ring; after kv_encode
//   kv_unpack_N    what the first n tokens stand for: k (n, heads, d), rotated back, and v (n, heads, dv), for attention in tiles over long
//                  prompts; one sequence, of which no page is dropped
//   kv_attend_N    attention of up to eight rows (queries times heads of a key head) over `split` tokens: for each row the largest logit,
//                  the sum of weights, and the weighted values
//   kv_merge       adds these up in their order, and writes the output (batch, seq, heads of queries, dv)
//
// Queries are those of the newest tokens. Results do not depend on the grid, and `split` is a constant.
#include "kvcodes.cuh"
#include "mma.cuh"

struct State { i64 before, coded_before, after, coded, dropped; };

template <int bits> struct Cache {
  float *sink_k, *sink_v;
  void *ring_k, *ring_v;
  u8 *codes;
  u16 *numbers;
  const State *states;
  i64 heads, d, dv, sinks, recent, group, pages, halves, rotate;

  static constexpr int per = bits == 16 ? 1 : 32 / bits;  // rows of a word
  static constexpr bool minima = bits == 4;

  METHOD i64 padded(i64 n) const { return (n + 15) / 16 * 16; }
  METHOD i64 code_bytes(bool values) const { return bits == 16 ? 0 : values ? group * padded(dv) * bits / 8 : padded(d) * group * bits / 8; }
  METHOD i64 number_count(bool values) const {
    return bits == 16 ? (values ? group * padded(dv) : d * group) : (values ? group : padded(d)) * (minima ? 2 : 1);
  }
  METHOD u32 *words(i64 bh, i64 page, bool values) const {
    return (u32 *)(codes + (bh * pages + page) * (code_bytes(false) + code_bytes(true)) + (values ? code_bytes(false) : 0));
  }
  METHOD u16 *halves_of(i64 bh, i64 page, bool values) const {
    return numbers + (bh * pages + page) * (number_count(false) + number_count(true)) + (values ? number_count(false) : 0);
  }
  // word is the place of the word of row r and column n of a matrix.
  METHOD static i64 word(i64 rows, i64 cols, i64 r, i64 n) {
    i64 first = n / 64 * 64, width = cols - first < 64 ? cols - first : 64;
    return first * rows / per + r / per * width + n - first;
  }
  METHOD static int code(u32 w, int i) { return w >> bits * i & ((1 << (bits & 15)) - 1); }
  METHOD float scale(const u16 *h, i64 r) const { return half_value(h[r]); }
  METHOD float least(const u16 *h, i64 rows, i64 r) const { return minima ? half_value(h[rows + r]) : -128 * half_value(h[r]); }

  // ring is number c of token t of a head: bh counts sequences times heads.
  METHOD float ring(bool values, i64 bh, i64 t, i64 c) const {
    i64 at = (bh * recent + t % recent) * (values ? dv : d) + c;
    const void *from = values ? ring_v : ring_k;
    return halves ? half_value(((const u16 *)from)[at]) : ((const float *)from)[at];
  }
};

#define CACHE_PARAMS                                                                                                          \
  float *sink_k, float *sink_v, void *ring_k, void *ring_v, u8 *codes, u16 *numbers, const State *states, i64 heads, i64 d,   \
      i64 dv, i64 sinks, i64 recent, i64 group, i64 pages, i64 halves, i64 rotate
#define CACHE                                                                                                                 \
  { sink_k, sink_v, ring_k, ring_v, codes, numbers, states, heads, d, dv, sinks, recent, group, pages, halves, rotate }

// newest is number c of token t before the call's tokens are stored: of the ring, or of the new ones, x (batch, seq, heads, width), as
// the ring would give it.
template <int bits>
METHOD float newest(const Cache<bits> &a, const State &s, const float *x, bool values, i64 b, i64 h, i64 seq, i64 t, i64 c) {
  if (t < s.before) return a.ring(values, b * a.heads + h, t, c);
  float v = x[((b * seq + t - s.before) * a.heads + h) * (values ? a.dv : a.d) + c];
  return a.halves ? half_value(half_bits(v)) : v;
}

// A warp has a row at a time. Dynamic shared memory: d numbers for each of four warps. The butterflies are those of hadamard in package
// ops/kvcompress.
KERNEL(128, kv_rows, (float *rows, const float *k, i64 span, i64 seq, i64 batch, CACHE_PARAMS)) {
  DYNAMIC_SHARED(float, shared);
  const Cache<8> a CACHE;
  const int lane = lane_id(), warp = threadIdx.x / 32;
  float *row = shared + warp * d;
  for (i64 e = (i64)blockIdx.x * 4 + warp; e < batch * heads * span; e += (i64)gridDim.x * 4) {
    const i64 b = e / span / heads, h = e / span % heads, t = states[b].coded_before + e % span;
    const State s = states[b];
    if (t >= s.after) continue;
    for (i64 c = lane; c < d; c += 32) row[c] = newest(a, s, k, false, b, h, seq, t, c);
    sync_warp();
    turn(row, d, rotate);
    for (i64 c = lane; c < d; c += 32) rows[e * d + c] = row[c];
    sync_warp();
  }
}

template <int bits> METHOD void encode(const Cache<bits> &a, const float *rows, const float *v, i64 span, i64 seq) {
  const i64 h = blockIdx.y, b = blockIdx.z, bh = b * a.heads + h;
  const State s = a.states[b];
  const i64 page = (s.coded_before - a.sinks) / a.group + blockIdx.x, start = a.sinks + page * a.group;
  const i64 from = s.coded_before > start ? s.coded_before : start, end = s.coded < start + a.group ? s.coded : start + a.group;
  if (from >= end) return;
  const float *keys = rows + (bh * span + from - s.coded_before) * a.d;  // of token `from`
  u16 *nk = a.halves_of(bh, page, false), *nv = a.halves_of(bh, page, true);
  const i64 padK = a.padded(a.d), padV = a.padded(a.dv), count = end - from, first = from - start;
  if (bits == 16) {
    for (i64 e = threadIdx.x; e < count * a.d; e += 128) nk[e / count * a.group + first + e % count] = half_bits(keys[e % count * a.d + e / count]);
    for (i64 e = threadIdx.x; e < count * a.dv; e += 128)
      nv[(first + e / a.dv) * padV + e % a.dv] = half_bits(newest(a, s, v, true, b, h, seq, from + e / a.dv, e % a.dv));
    return;
  }
  constexpr int per = Cache<bits>::per;
  u32 *wk = a.words(bh, page, false), *wv = a.words(bh, page, true);
  if (from == start)  // a new page: the scale of a channel is that of all tokens of the group
    for (i64 c = threadIdx.x; c < padK; c += 128) {
      float low = 0, high = 0;
      if (c < a.d) {
        low = high = keys[c];
        for (i64 i = 1; i < a.group; i++) {
          const float x = keys[i * a.d + c];
          low = x < low ? x : low;
          high = x > high ? x : high;
        }
      }
      set_row<bits>(nk, padK, c, low, high);
    }
  for (i64 i = threadIdx.x / 32; i < count; i += 4) {  // a warp for each token's values
    float low = infinity<float>(), high = -infinity<float>();
    for (i64 c = lane_id(); c < a.dv; c += 32) {
      const float x = newest(a, s, v, true, b, h, seq, from + i, c);
      low = x < low ? x : low;
      high = x > high ? x : high;
    }
    for (int m = 16; m; m >>= 1) {
      const float l = shuffle_xor(low, m), u = shuffle_xor(high, m);
      low = l < low ? l : low;
      high = u > high ? u : high;
    }
    if (lane_id() == 0) set_row<bits>(nv, a.group, first + i, low, high);
  }
  BARRIER(0);
  for (i64 e = threadIdx.x; e < count * (padK / per); e += 128) {
    const i64 i = e % count, c0 = e / count * per;
    u32 w = 0;
    for (int r = 0; r < per && c0 + r < a.d; r++) w |= encoded<bits>(keys[i * a.d + c0 + r], row_of<bits>(nk, padK, c0 + r)) << bits * r;
    wk[Cache<bits>::word(padK, a.group, c0, first + i)] = w;
  }
  const i64 word0 = first / per, words = (first + count + per - 1) / per - word0;
  for (i64 e = threadIdx.x; e < words * padV; e += 128) {
    const i64 c = e % padV, t0 = (word0 + e / padV) * per;
    u32 *to = wv + Cache<bits>::word(a.group, padV, t0, c);
    u32 w = t0 < first ? *to : 0;  // tokens coded before are in it
    for (int r = 0; r < per; r++) {
      const i64 t = t0 + r;
      if (t < first || t >= first + count || c >= a.dv) continue;
      const u32 x = encoded<bits>(newest(a, s, v, true, b, h, seq, start + t, c), row_of<bits>(nv, a.group, t));
      w = (w & ~(((1u << bits) - 1) << bits * r)) | x << bits * r;
    }
    *to = w;
  }
}

#define ENCODE(bits)                                                                                                                 \
  KERNEL(128, kv_encode_##bits, (const float *rows, const float *v, i64 span, i64 seq, CACHE_PARAMS)) {                              \
    encode(Cache<bits> CACHE, rows, v, span, seq);                                                                                   \
  }
ENCODE(4)
ENCODE(8)
ENCODE(16)

KERNEL(256, kv_store, (const float *k, const float *v, i64 seq, i64 batch, CACHE_PARAMS)) {
  const i64 width = d + dv;
  for (i64 e = grid_first(); e < batch * seq * heads * width; e += grid_stride()) {
    const i64 c = e % width, h = e / width % heads, i = e / width / heads % seq, b = e / width / heads / seq;
    const State s = states[b];
    const i64 t = s.before + i, bh = b * heads + h;
    const bool values = c >= d;
    if (t >= s.after) continue;
    const i64 wide = values ? dv : d, at = values ? c - d : c;
    const float x = values ? v[((b * seq + i) * heads + h) * dv + at] : k[((b * seq + i) * heads + h) * d + at];
    if (t < sinks) {
      (values ? sink_v : sink_k)[(bh * sinks + t) * wide + at] = x;
    } else if (t >= s.coded) {
      const i64 to = (bh * recent + t % recent) * wide + at;
      void *ring = values ? ring_v : ring_k;
      if (halves)
        ((u16 *)ring)[to] = half_bits(x);
      else
        ((float *)ring)[to] = x;
    }
  }
}

// A warp has a token of a head. Dynamic shared memory: d numbers for each of four warps.
template <int bits> METHOD void unpack(const Cache<bits> &a, float *k, float *v, i64 n, float *shared) {
  const int lane = lane_id(), warp = threadIdx.x / 32;
  const State s = a.states[0];
  float *row = shared + warp * a.d;
  for (i64 e = (i64)blockIdx.x * 4 + warp; e < n * a.heads; e += (i64)gridDim.x * 4) {
    const i64 t = e / a.heads, h = e % a.heads;
    float *toK = k + e * a.d, *toV = v + e * a.dv;
    if (t < a.sinks || t >= s.coded) {
      const bool sink = t < a.sinks;
      for (i64 c = lane; c < a.d; c += 32) toK[c] = sink ? a.sink_k[(h * a.sinks + t) * a.d + c] : a.ring(false, h, t, c);
      for (i64 c = lane; c < a.dv; c += 32) toV[c] = sink ? a.sink_v[(h * a.sinks + t) * a.dv + c] : a.ring(true, h, t, c);
      continue;
    }
    const i64 page = (t - a.sinks) / a.group, at = (t - a.sinks) % a.group, padK = a.padded(a.d), padV = a.padded(a.dv);
    const u16 *nk = a.halves_of(h, page, false), *nv = a.halves_of(h, page, true);
    const u32 *wk = a.words(h, page, false), *wv = a.words(h, page, true);
    constexpr int per = Cache<bits>::per;
    for (i64 c = lane; c < a.d; c += 32) {
      if (bits == 16)
        row[c] = half_value(nk[c * a.group + at]);
      else
        row[c] = decoded<bits>((u32)Cache<bits>::code(wk[Cache<bits>::word(padK, a.group, c, at)], (int)(c % per)), nk, padK, c);
    }
    for (i64 c = lane; c < a.dv; c += 32) {
      if (bits == 16)
        toV[c] = half_value(nv[at * padV + c]);
      else
        toV[c] = decoded<bits>((u32)Cache<bits>::code(wv[Cache<bits>::word(a.group, padV, at, c)], (int)(at % per)), nv, a.group, at);
    }
    sync_warp();
    turn(row, a.d, a.rotate);
    for (i64 c = lane; c < a.d; c += 32) toK[c] = row[c];
    sync_warp();
  }
}

#define UNPACK(bits)                                                                \
  KERNEL(128, kv_unpack_##bits, (float *k, float *v, i64 n, CACHE_PARAMS)) {        \
    DYNAMIC_SHARED(float, shared);                                                  \
    unpack<bits>(CACHE, k, v, n, shared);                                           \
  }
UNPACK(4)
UNPACK(8)
UNPACK(16)

namespace kv {
constexpr int most = 8, tile = 64, threads = 128;

struct Query {
  const float *q;
  const float *slopes;  // null for none
  i64 seq, heads, left, split;
  float scale, softcap;
};

// floats is how many numbers of shared memory a block takes.
INLINE i64 floats(i64 d, i64 dv) { return most * (3 * ((d + 15) / 16 * 16) + 3 * tile + (dv + 15) / 16 * 16 + 8); }

template <int bits> METHOD void attend(float *parts, const Query &u, const Cache<bits> &a, float *shared) {
  const i64 padK = a.padded(a.d), padV = a.padded(a.dv), group = u.heads / a.heads, chunks = (u.seq * group + most - 1) / most;
  const i64 h = blockIdx.y, b = blockIdx.z / chunks, chunk = blockIdx.z % chunks, bh = b * a.heads + h;
  const State s = a.states[b];
  const i64 count = s.after - s.before;
  i64 left_rows = count * group - chunk * most;
  const int rows = left_rows < 0 ? 0 : left_rows > most ? most : (int)left_rows;
  const int lane = lane_id(), warp = threadIdx.x / 32;
  float *q = shared, *turned = q + most * padK, *fold = turned + most * padK, *score = fold + most * padK, *other = score + most * tile,
        *weight = other + most * tile, *sum = weight + most * tile, *base = sum + most * padV, *shrink = base + most, *offset = shrink + most;
  float *part = parts + (((b * a.heads + h) * chunks + chunk) * gridDim.x + blockIdx.x) * most * (2 + a.dv);
  // The rows of a warp are warp and warp+4; each keeps their largest logit and sum of weights.
  float top[2] = {-infinity<float>(), -infinity<float>()}, all[2] = {};

  for (i64 e = threadIdx.x; e < most * padK; e += threads) {
    const i64 r = e / padK, c = e % padK, row = chunk * most + r;
    float x = 0;
    if (r < rows && c < a.d) x = u.q[((b * u.seq + row / group) * u.heads + h * group + row % group) * a.d + c];
    q[e] = turned[e] = u.softcap > 0 ? x : x * u.scale;
  }
  for (i64 e = threadIdx.x; e < most * padV; e += threads) sum[e] = 0;
  BARRIER(1);
  for (i64 step = 1; step < a.rotate; step *= 2) {
    for (i64 e = threadIdx.x; e < most * (a.d / 2); e += threads) {
      const i64 r = e / (a.d / 2), i = e % (a.d / 2), at = r * padK + i / step * 2 * step + i % step;
      const float x = turned[at], y = turned[at + step];
      turned[at] = x + y;
      turned[at + step] = x - y;
    }
    BARRIER(2);
  }
  if (a.rotate > 1) {
    const float norm = (float)(1 / root((double)a.rotate));
    for (i64 e = threadIdx.x; e < most * padK; e += threads) turned[e] *= norm;
    BARRIER(3);
  }

  // The tokens of this block that some row sees.
  const i64 oldest = s.after - count + chunk * most / group - u.left;
  i64 t = (i64)blockIdx.x * u.split, end = t + u.split < s.after ? t + u.split : s.after;
  if (t < oldest) t = oldest;
  i64 folded = -1;  // the page whose scales are in fold
  while (rows > 0 && t < end) {
    // A run of at most 64 tokens that lie together: of the sinks, of a block of columns of a page, of the ring.
    const bool sink = t < a.sinks, paged = !sink && t < s.coded;
    const i64 page = paged ? (t - a.sinks) / a.group : 0, first = paged ? (t - a.sinks) % a.group : 0;
    i64 n = sink ? a.sinks - t : paged ? a.group - first : s.after - t;
    if (paged) {
      if (n > tile - first % tile) n = tile - first % tile;
      if (n > s.coded - t) n = s.coded - t;
    }
    if (n > tile) n = tile;
    if (n > end - t) n = end - t;
    if (paged && page < s.dropped) {
      t += n;
      continue;
    }
    const u16 *nk = a.halves_of(bh, page, false), *nv = a.halves_of(bh, page, true);
    const u32 *wk = a.words(bh, page, false), *wv = a.words(bh, page, true);
    if (paged && bits != 16 && folded != page) {
      // Scales go into the queries, minima into one number of each row.
      for (int r = warp; r < rows; r += 4) {
        float low = 0;
        for (i64 c = lane; c < padK; c += 32) {
          const float x = turned[r * padK + c];
          fold[r * padK + c] = x * a.scale(nk, c);
          low += x * a.least(nk, padK, c);
        }
        low = warp_sum(low);
        if (lane == 0) base[r] = low;
      }
      folded = page;
      BARRIER(4);
    }
    // Products with the keys: a thread has a token, and half of the channels.
    {
      const i64 i = threadIdx.x % tile, half = threadIdx.x / tile;
      float x[most] = {};
      if (i < n) {
        if (!paged) {
          const float *keys = a.sink_k + (bh * a.sinks + t + i) * a.d;
          for (i64 c = half; c < a.d; c += 2) {
            const float key = sink ? keys[c] : a.ring(false, bh, t + i, c);
            UNROLL
            for (int r = 0; r < most; r++) x[r] = fused(q[r * padK + c], key, x[r]);
          }
        } else if (bits == 16) {
          for (i64 c = half; c < a.d; c += 2) {
            const float key = half_value(nk[c * a.group + first + i]);
            UNROLL
            for (int r = 0; r < most; r++) x[r] = fused(turned[r * padK + c], key, x[r]);
          }
        } else {
          for (i64 c = half * Cache<bits>::per; c < padK; c += 2 * Cache<bits>::per) {
            const u32 w = wk[Cache<bits>::word(padK, a.group, c, first + i)];
            UNROLL
            for (int j = 0; j < Cache<bits>::per; j++) {
              const float key = (float)Cache<bits>::code(w, j);
              UNROLL
              for (int r = 0; r < most; r++) x[r] = fused(fold[r * padK + c + j], key, x[r]);
            }
          }
        }
      }
      float *to = half ? other : score;
      UNROLL
      for (int r = 0; r < most; r++) to[r * tile + i] = x[r];
    }
    BARRIER(5);
    // The online softmax of a row by a warp, and weights with the scales of the values in them.
    UNROLL
    for (int k = 0; k < 2; k++) {
      const int r = warp + 4 * k;
      if (r >= rows) continue;
      const i64 row = chunk * most + r, at = s.before + row / group;
      float x[2], high = top[k], low = 0;
      UNROLL
      for (int m = 0; m < 2; m++) {
        const i64 i = lane + 32 * m, p = t + i;
        x[m] = -infinity<float>();
        if (i >= n || p > at || p < at - u.left) continue;
        float v = score[r * tile + i] + other[r * tile + i];
        if (paged && bits != 16) v += base[r];
        if (u.softcap > 0) v = u.softcap * tanh_of(v * u.scale / u.softcap);
        if (u.slopes) v -= u.slopes[h * group + row % group] * (float)(at - p);
        x[m] = v;
        high = larger(high, v);
      }
      high = warp_max(high);
      const float factor = high == -infinity<float>() ? 1.f : exponential(top[k] - high);
      float weights = 0;
      UNROLL
      for (int m = 0; m < 2; m++) {
        const i64 i = lane + 32 * m;
        float w = x[m] == -infinity<float>() ? 0.f : exponential(x[m] - high);
        weights += w;
        if (paged && bits != 16 && i < n) {
          low += w * a.least(nv, a.group, first + i);
          w *= a.scale(nv, first + i);
        }
        weight[r * tile + i] = w;
      }
      low = warp_sum(low);
      all[k] = all[k] * factor + warp_sum(weights);
      top[k] = high;
      if (lane == 0) {
        shrink[r] = factor;
        offset[r] = low;
      }
    }
    BARRIER(6);
    // Weighted values: a thread has every 128th channel.
    for (i64 c = threadIdx.x; c < a.dv; c += threads) {
      float x[most];
      UNROLL
      for (int r = 0; r < most; r++) x[r] = r < rows ? sum[r * padV + c] * shrink[r] + offset[r] : 0.f;
      if (!paged || bits == 16) {
        for (i64 i = 0; i < n; i++) {
          const float v = sink    ? a.sink_v[(bh * a.sinks + t + i) * a.dv + c]
                          : paged ? half_value(nv[(first + i) * padV + c])
                                  : a.ring(true, bh, t + i, c);
          UNROLL
          for (int r = 0; r < most; r++)
            if (r < rows) x[r] = fused(weight[r * tile + i], v, x[r]);
        }
      } else {
        constexpr int per = Cache<bits>::per;
        for (i64 i = first / per * per; i < first + n; i += per) {
          const u32 w = wv[Cache<bits>::word(a.group, padV, i, c)];
          UNROLL
          for (int j = 0; j < per; j++) {
            if (i + j < first || i + j >= first + n) continue;
            const float v = (float)Cache<bits>::code(w, j);
            UNROLL
            for (int r = 0; r < most; r++)
              if (r < rows) x[r] = fused(weight[r * tile + i + j - first], v, x[r]);
          }
        }
      }
      UNROLL
      for (int r = 0; r < most; r++)
        if (r < rows) sum[r * padV + c] = x[r];
    }
    BARRIER(7);
    t += n;
  }
  UNROLL
  for (int k = 0; k < 2; k++) {
    const int r = warp + 4 * k;
    if (lane != 0 || r >= rows) continue;
    part[r * (2 + a.dv)] = top[k];
    part[r * (2 + a.dv) + 1] = all[k];
  }
  for (i64 e = threadIdx.x; e < rows * a.dv; e += threads) part[e / a.dv * (2 + a.dv) + 2 + e % a.dv] = sum[e / a.dv * padV + e % a.dv];
}
}  // namespace kv

// Dynamic shared memory: 4·kv::floats(d, dv) bytes. Blocks: splits, heads of keys, sequences times chunks of eight rows.
#define ATTEND(bits)                                                                                                                \
  KERNEL(kv::threads, kv_attend_##bits,                                                                                             \
         (float *parts, const float *q, const float *slopes, i64 seq, i64 query_heads, i64 left, i64 split, double scale,           \
          double softcap, CACHE_PARAMS)) {                                                                                          \
    DYNAMIC_SHARED(float, shared);                                                                                                  \
    kv::attend<bits>(parts, kv::Query{q, slopes, seq, query_heads, left, split, (float)scale, (float)softcap}, CACHE, shared);      \
  }
ATTEND(4)
ATTEND(8)
ATTEND(16)

// A block has a query of a head; sinks are logits of the heads, or null.
KERNEL(128, kv_merge,
       (float *out, const float *parts, const float *logits, const State *states, i64 seq, i64 query_heads, i64 heads, i64 dv, i64 splits)) {
  const i64 head = blockIdx.x, i = blockIdx.y, b = blockIdx.z, group = query_heads / heads, h = head / group;
  const i64 row = i * group + head % group, chunks = (seq * group + kv::most - 1) / kv::most;
  const i64 step = kv::most * (2 + dv);
  const float *part = parts + ((b * heads + h) * chunks + row / kv::most) * splits * step + row % kv::most * (2 + dv);
  float *to = out + ((b * seq + i) * query_heads + head) * dv;
  double top = -infinity<double>();
  const bool there = i < states[b].after - states[b].before;
  for (i64 s = 0; there && s < splits; s++) top = larger(top, (double)part[s * step]);
  if (top == -infinity<double>()) {  // no token, or a row that sees none
    for (i64 c = threadIdx.x; c < dv; c += 128) to[c] = 0;
    return;
  }
  double sum = 0;
  if (logits) {
    top = larger(top, (double)logits[head]);
    sum = exponential((double)logits[head] - top);
  }
  for (i64 s = 0; s < splits; s++) sum += exponential((double)part[s * step] - top) * (double)part[s * step + 1];
  for (i64 c = threadIdx.x; c < dv; c += 128) {
    float x = 0;
    for (i64 s = 0; s < splits; s++) {
      const double f = exponential((double)part[s * step] - top);
      if (f != 0) x = fused((float)f, part[s * step + 2 + c], x);
    }
    to[c] = x * (float)(1 / sum);
  }
}
