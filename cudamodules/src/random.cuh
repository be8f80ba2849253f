// The random decisions of internal/kernel: Philox4x32-10 (Salmon et al. 2011), a function of a key and a place.
#pragma once
#include "common.cuh"

// random_key is the key of one step: output number `step` of SplitMix64 started at seed.
INLINE u64 random_key(u64 seed, u64 step) {
  u64 z = seed + (step + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  return z ^ z >> 31;
}

// random_word is word (e>>4)&3 of the block whose counter is (e>>6)·16 + e&15.
INLINE u32 random_word(u64 key, u64 e) {
  u64 n = (e >> 6) * 16 + (e & 15);
  u32 c0 = (u32)n, c1 = (u32)(n >> 32), c2 = 0, c3 = 0, k0 = (u32)key, k1 = (u32)(key >> 32);
  for (int round = 0; round < 10; round++) {
    u64 a = (u64)0xd2511f53u * c0, b = (u64)0xcd9e8d57u * c2;
    c0 = (u32)(b >> 32) ^ c1 ^ k0;
    c1 = (u32)b;
    c2 = (u32)(a >> 32) ^ c3 ^ k1;
    c3 = (u32)a;
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  u32 w = (u32)(e >> 4) & 3;
  return w == 0 ? c0 : w == 1 ? c1 : w == 2 ? c2 : c3;
}

// Dropout keeps the numbers whose word is below `below` (0 to 2³²: none, all), and multiplies them by 1/keep if it drops any.
template <class T> struct Dropout {
  u64 key;
  i64 below;
  T scale;
};
template <class T> INLINE Dropout<T> dropout_of(i64 seed, const void *step, i64 step_bytes, i64 below, double keep) {
  Dropout<T> r;
  r.key = below < (i64)1 << 32 ? random_key((u64)seed, step ? (u64)integer_at(step, step_bytes, 0) : 0) : 0;
  r.below = below;
  r.scale = below < (i64)1 << 32 ? (T)(1 / keep) : (T)1;
  return r;
}
template <class T> INLINE T kept(const Dropout<T> &r, u64 e) {
  if (r.below >= (i64)1 << 32) return 1;
  return (i64)random_word(r.key, e) < r.below ? r.scale : (T)0;
}
