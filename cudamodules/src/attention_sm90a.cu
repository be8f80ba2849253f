// Attention forward in BF16 by warpgroups, for cards of compute capability 9.0 (FlashAttention-3: Shah et al. 2024, sections 3.1, 3.2):
//
//   out = softmax(scale·q·kᵀ)·v    q, k, v rounded to BF16, sums and softmax in float, the weights rounded to BF16 where they multiply v
//
// with windows, grouped heads, sinks, lse and stats as in attention.cu. scale must be above 0, d and dv at most 64 or 128.
//
// attention_pack first lays q, k and v out in tiles of 64 rows (q) or 128, as BF16 and zeros beyond the ends, each tile as the products
// want to find it in shared memory. So one plain copy brings a tile, without tensor maps. Inputs of float have to be read and rounded once
// in any case.
//
// A block has 128 rows of one head, and three warpgroups. The first asks for tiles of 128 keys and their values, two ahead at most; each
// of the others has 64 rows. While the weights of a tile are computed, the tile before it is multiplied by the values.
#include "math.cuh"
#include "warpgroup.cuh"

constexpr int tile_rows = 64, tile_keys = 128, block_rows = 128, slots = 2, block_threads = 384;

// place is where number c of row r stands in a tile of rows rows, in bytes: 64 columns after the other, rows of 128 bytes, swizzled.
INLINE int place(int rows, int r, int c) { return c / 64 * rows * 128 + r * 128 + ((c % 64 * 2) ^ (r % 8 * 16)); }

// Chunk is 16 bytes that are read or written at once.
template <class T, int N> struct alignas(16) Chunk { T v[N]; };

// to: for each (batch, head), tiles of `rows` rows and `wide` columns. from: (batch, seq, heads, d). A thread has eight numbers.
KERNEL(256, attention_pack_f32, (u16 *to, const float *from, i64 batch, i64 seq, i64 heads, i64 d, i64 rows, i64 wide)) {
  const i64 tiles = (seq + block_rows - 1) / block_rows * block_rows / rows, chunks = wide / 8;
  const i64 n = batch * heads * tiles * rows * chunks;
  const bool fast = d % 4 == 0 && __builtin_bit_cast(u64, from) % 16 == 0;
  for (i64 e = grid_first(); e < n; e += grid_stride()) {
    const int c = (int)(e % chunks) * 8, r = (int)(e / chunks % rows);
    const i64 tile = e / chunks / rows, i = tile % tiles * rows + r, h = tile / tiles % heads, b = tile / tiles / heads;
    const float *x = from + ((b * seq + i) * heads + h) * d;
    Chunk<float, 4> part[2];
    if (fast && i < seq && c + 8 <= d) {
      part[0] = reinterpret_cast<const Chunk<float, 4> *>(x + c)[0];
      part[1] = reinterpret_cast<const Chunk<float, 4> *>(x + c)[1];
    } else {
      UNROLL
      for (int w = 0; w < 8; w++) part[w / 4].v[w % 4] = i < seq && c + w < d ? x[c + w] : 0.f;
    }
    Chunk<u32, 4> words;
    UNROLL
    for (int w = 0; w < 4; w++) words.v[w] = bf16_pair(part[w / 2].v[w % 2 * 2], part[w / 2].v[w % 2 * 2 + 1]);
    *reinterpret_cast<Chunk<u32, 4> *>(to + tile * rows * wide + place((int)rows, r, c) / 2) = words;
  }
}

struct Sight {
  i64 seqQ, seqKV, left, right;
  METHOD i64 clamp(i64 p) const { return p < 0 ? 0 : p > seqKV ? seqKV : p; }
  METHOD i64 first(i64 i) const { return clamp(i + seqKV - seqQ - left); }
  METHOD i64 end(i64 i) const { return clamp(i + seqKV - seqQ + right + 1); }
};

// Barriers, by their numbers behind the tiles.
constexpr int query_full = 0, keys_full = 1, keys_free = keys_full + slots, values_full = keys_free + slots, values_free = values_full + slots,
              barriers = values_free + slots;

template <int D> struct Shared {
  static constexpr int query = block_rows * D * 2, tile = tile_keys * D * 2;
  u32 base;
  i64 patience;
  METHOD u32 q(int group) const { return base + group * (query / 2); }
  METHOD u32 k(int slot) const { return base + query + slot * tile; }
  METHOD u32 v(int slot) const { return base + query + (slots + slot) * tile; }
  METHOD u32 bar(int n) const { return base + query + 2 * slots * tile + 8 * n; }
  // A thread that has given up once does not wait again.
  METHOD void wait(int n, i64 round) {
    if (!barrier_wait(bar(n), (int)(round & 1), patience)) patience = 1;
  }
};

// Rows is what a thread has of the two rows g and g+8 of its warp.
template <int D> struct Rows {
  float o[D / 2], s[tile_keys / 2], top[2], sum[2];
  u32 p[tile_keys / 4];

  // logits starts s = q·kᵀ.
  METHOD void logits(const Shared<D> &m, int group, int slot) {
    UNROLL
    for (int step = 0; step < D / 16; step++)
      product_shared<tile_keys>(s, along(m.q(group) + step / 4 * tile_rows * 128 + step % 4 * 32),
                                along(m.k(slot) + step / 4 * tile_keys * 128 + step % 4 * 32), step > 0);
  }
  // outputs starts o += p·v.
  METHOD void outputs(const Shared<D> &m, int slot) {
    UNROLL
    for (int step = 0; step < tile_keys / 16; step++)
      product_registers<D>(o, p + 4 * step, across(m.v(slot) + step * 16 * 128, tile_keys * 128));
  }
  // weights makes s from logits to weights, e^(scale·s − largest), and gives by what factor those before are to shrink. by is scale·log₂e.
  METHOD void weights(float by, float *shrink) {
    UNROLL
    for (int r = 0; r < 2; r++) {
      float high = top[r];
      UNROLL
      for (int e = 0; e < tile_keys / 2; e += 4) high = greater(high, greater(s[e + 2 * r], s[e + 2 * r + 1]));
      high = greater(high, shuffle_xor(high, 1));
      high = greater(high, shuffle_xor(high, 2));
      const float base = high == -infinity<float>() ? 0.f : high * by;
      shrink[r] = exp2_fast(fused(top[r], by, -base));
      top[r] = high;
      float part = 0;
      UNROLL
      for (int e = 0; e < tile_keys / 2; e += 4)
        UNROLL
        for (int c = 0; c < 2; c++) {
          float &x = s[e + 2 * r + c];
          x = exp2_fast(fused(x, by, -base));
          part += x;
        }
      sum[r] = sum[r] * shrink[r] + part;
    }
  }
  // round puts s into p: registers 2i and 2i+1 of a C fragment are register i of an A.
  METHOD void round() {
    UNROLL
    for (int e = 0; e < tile_keys / 4; e++) p[e] = bf16_pair(s[2 * e], s[2 * e + 1]);
  }
  METHOD void hide(const Sight &see, i64 i, i64 j0) {
    const int t = lane_id() % 4;
    UNROLL
    for (int r = 0; r < 2; r++) {
      i64 row = i + 8 * r < see.seqQ ? i + 8 * r : see.seqQ - 1;
      const int from = (int)(see.first(row) > j0 ? see.first(row) - j0 < tile_keys ? see.first(row) - j0 : tile_keys : 0);
      const int to = (int)(see.end(row) < j0 + tile_keys ? see.end(row) > j0 ? see.end(row) - j0 : 0 : tile_keys);
      UNROLL
      for (int n = 0; n < tile_keys / 8; n++)
        UNROLL
        for (int c = 0; c < 2; c++) {
          const int column = 8 * n + c;
          float &x = s[4 * n + 2 * r + c];
          x = ((column >= from - 2 * t) & (column < to - 2 * t)) ? x : -infinity<float>();
        }
    }
  }
};

template <int D>
INLINE void attend(float *out, float *lse, float *stats, const u16 *q, const u16 *k, const u16 *v, const float *sinks, const Sight &see,
                   i64 heads, i64 kvHeads, i64 dv, float scale, i64 patience, unsigned char *shared) {
  typedef Shared<D> Memory;
  // The last rows see most under a causal mask, and begin first.
  const i64 tile = gridDim.x - 1 - blockIdx.x, h = blockIdx.y, b = blockIdx.z, kh = h / (heads / kvHeads);
  const int warp = threadIdx.x / 32;
  Memory m = {(shared_address(shared) + 1023) & ~1023u, patience};
  if (threadIdx.x == 0) {
    STEP(1, barrier_init(m.bar(query_full), 1));
    UNROLL
    for (int s = 0; s < slots; s++) {
      barrier_init(m.bar(keys_full + s), 1);
      barrier_init(m.bar(values_full + s), 1);
      barrier_init(m.bar(keys_free + s), 8);
      barrier_init(m.bar(values_free + s), 8);
    }
    STEP(2, barrier_show());
  }
  BARRIER(0);

  const i64 i0 = tile * block_rows, last = i0 + block_rows < see.seqQ ? i0 + block_rows - 1 : see.seqQ - 1;
  const i64 begin = see.first(i0) / tile_keys, end = (see.end(last) + tile_keys - 1) / tile_keys;
  const i64 tiles = end > begin ? end - begin : 0;

  if (warp < 4) {
    registers_fewer<40>();
    if (threadIdx.x != 0 || tiles == 0) return;
    const i64 all = (see.seqKV + tile_keys - 1) / tile_keys, first = (b * kvHeads + kh) * all + begin;
    STEP(3, barrier_expect(m.bar(query_full), Memory::query));
    copy_bulk(m.q(0), q + ((b * heads + h) * gridDim.x + tile) * (Memory::query / 2), Memory::query, m.bar(query_full));
    for (i64 n = 0; n < tiles; n++) {
      const int slot = (int)(n % slots);
      const i64 round = n / slots;
      STEP(4, m.wait(keys_free + slot, round + 1));
      STEP(5, barrier_expect(m.bar(keys_full + slot), Memory::tile));
      copy_bulk(m.k(slot), k + (first + n) * (Memory::tile / 2), Memory::tile, m.bar(keys_full + slot));
      STEP(6, m.wait(values_free + slot, round + 1));
      STEP(7, barrier_expect(m.bar(values_full + slot), Memory::tile));
      copy_bulk(m.v(slot), v + (first + n) * (Memory::tile / 2), Memory::tile, m.bar(values_full + slot));
    }
    return;
  }

  registers_more<232>();
  const int group = warp / 4 - 1, g = lane_id() / 4, t = lane_id() % 4;
  const i64 r0 = i0 + group * tile_rows, i = r0 + warp % 4 * 16 + g, rn = r0 + tile_rows < see.seqQ ? r0 + tile_rows - 1 : see.seqQ - 1;
  const float by = scale * 1.4426950408889634f;
  Rows<D> rows;
  UNROLL
  for (int e = 0; e < D / 2; e++) rows.o[e] = 0;
  UNROLL
  for (int r = 0; r < 2; r++) {
    rows.top[r] = -infinity<float>();
    rows.sum[r] = 0;
  }
  // Rows of a group that lies beyond the end count as the last one; nothing of them is kept.
  auto hide = [&](i64 n) {
    const i64 j0 = (begin + n) * tile_keys, from = r0 < see.seqQ ? r0 : see.seqQ - 1;
    if (see.first(rn) > j0 || see.end(from) < j0 + tile_keys) rows.hide(see, i, j0);
  };
  auto release = [&](int n) {
    if (lane_id() == 0) barrier_arrive(m.bar(n));
  };
  if (tiles > 0) {
    float shrink[2];
    STEP(8, m.wait(query_full, 0));
    STEP(9, m.wait(keys_full, 0));
    STEP(10, products_fence());
    rows.logits(m, group, 0);
    products_commit();
    STEP(11, products_wait<0>());
    held<tile_keys / 2>(rows.s);
    STEP(12, release(keys_free));
    hide(0);
    rows.weights(by, shrink);
    rows.round();
    for (i64 n = 1; n < tiles; n++) {
      const int slot = (int)(n % slots), before = (int)((n - 1) % slots);
      STEP(13, m.wait(keys_full + slot, n / slots));
      held<D / 2>(rows.o);
      held<tile_keys / 4>(rows.p);
      STEP(14, products_fence());
      rows.logits(m, group, slot);
      products_commit();
      STEP(15, m.wait(values_full + before, (n - 1) / slots));
      products_fence();  // for the assembler, which wants one on this side of a loop
      rows.outputs(m, before);
      products_commit();
      STEP(16, products_wait<1>());
      held<tile_keys / 2>(rows.s);
      STEP(17, release(keys_free + slot));
      hide(n);
      rows.weights(by, shrink);
      STEP(18, products_wait<0>());
      held<D / 2>(rows.o);
      STEP(19, release(values_free + before));
      UNROLL
      for (int e = 0; e < D / 2; e++) rows.o[e] *= shrink[e / 2 % 2];
      rows.round();
    }
    const int slot = (int)((tiles - 1) % slots);
    STEP(20, m.wait(values_full + slot, (tiles - 1) / slots));
    held<D / 2>(rows.o);
    held<tile_keys / 4>(rows.p);
    STEP(21, products_fence());
    rows.outputs(m, slot);
    products_commit();
    STEP(22, products_wait<0>());
    held<D / 2>(rows.o);
  }

  UNROLL
  for (int r = 0; r < 2; r++) {
    float sum = rows.sum[r], top = rows.top[r] * scale, factor = 0;
    sum += shuffle_xor(sum, 1);
    sum += shuffle_xor(sum, 2);
    const bool blind = rows.top[r] == -infinity<float>();
    if (!blind) {
      float shrink = 1;
      if (sinks) {
        const float high = larger(top, sinks[h]);
        shrink = exponential(top - high);
        sum = sum * shrink + exponential(sinks[h] - high);
        top = high;
      }
      factor = shrink / sum;
    }
    const i64 row = (b * heads + h) * see.seqQ + i + 8 * r;
    if (i + 8 * r >= see.seqQ) continue;
    if (t == 0) {
      if (lse) lse[row] = blind ? top : top + logarithm(sum);
      if (stats) {
        stats[row] = top;
        stats[(i64)gridDim.z * heads * see.seqQ + row] = blind ? 0.f : sum;
      }
    }
    float *to = out + ((b * see.seqQ + i + 8 * r) * heads + h) * dv;
    UNROLL
    for (int n = 0; n < D / 8; n++)
      UNROLL
      for (int c = 0; c < 2; c++) {
        const int column = 8 * n + 2 * t + c;
        if (column < dv) to[column] = rows.o[4 * n + 2 * r + c] * factor;
      }
  }
}

// The number is the width of q's, k's and v's tiles. Grid: (⌈seqQ/128⌉, heads, batch). Dynamic shared memory: 256·number·5 + 2048 bytes.
#define ATTENTION(wide)                                                                                                             \
  KERNEL(block_threads, attention_warpgroups_##wide##_f32,                                                                          \
         (float *out, float *lse, float *stats, const u16 *q, const u16 *k, const u16 *v, const float *sinks, i64 seqQ, i64 seqKV,  \
          i64 heads, i64 kvHeads, i64 dv, i64 left, i64 right, double scale, i64 patience)) {                                       \
    DYNAMIC_SHARED(unsigned char, shared);                                                                                          \
    attend<wide>(out, lse, stats, q, k, v, sinks, {seqQ, seqKV, left, right}, heads, kvHeads, dv, (float)scale, patience, shared);  \
  }

ATTENTION(64)
ATTENTION(128)
