// Runs CUDA kernels on the host, for tests: one block at a time, a fiber for each of its threads.
//
// A fiber runs until it comes to a barrier, a shuffle or its end; then the next one runs. The schedule says in which order, so that
// a missing barrier shows: what one thread should have written before another reads it, has not been in some order. All shared
// memory holds NaN when a block starts.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

#define __device__
#define __host__
#define __constant__
#define __launch_bounds__(...)
// One block runs at a time, so memory shared by a block is static memory; the section lets the emulator fill it with NaN.
#define __shared__ static __attribute__((section("cuemu_shared"), aligned(16)))
#define INLINE static inline
#define OUTLINE static
#define RESTRICT __restrict__

namespace cuemu {
void barrier();                                              // __syncthreads
void exchange(const void *mine, size_t size, void *all32);   // every lane of the warp gets what all lanes bring
extern int removed_barrier;                                  // the number of a barrier that is left out, or -1
unsigned lane();
unsigned char *dynamic_shared();

typedef void (*Call)(void **params);
struct Kernel {
  const char *name;
  Call call;
  int params, threads;
  const size_t *sizes;
};
void add(const Kernel &k);

template <class... A> struct Signature {
  static constexpr size_t sizes[] = {sizeof(A)..., 0};
  template <void (*f)(A...), size_t... I> static void invoke(void **p, std::integer_sequence<size_t, I...>) { f(*static_cast<A *>(p[I])...); }
  template <void (*f)(A...)> static void call(void **p) { invoke<f>(p, std::make_index_sequence<sizeof...(A)>()); }
};
template <auto f> struct Registrar;
template <class... A, void (*f)(A...)> struct Registrar<f> {
  Registrar(const char *name, int threads) { add({name, &Signature<A...>::template call<f>, (int)sizeof...(A), threads, Signature<A...>::sizes}); }
};

template <class T> T from_lane(T v, int source) {
  T all[32];
  exchange(&v, sizeof v, all);
  return all[source & 31];
}
}

#define KERNEL(threads, name, params)              \
  extern "C" void name params;                     \
  static cuemu::Registrar<&name> name##_kernel(#name, threads); \
  extern "C" void name params
#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(cuemu::dynamic_shared())

inline void __syncthreads() { cuemu::barrier(); }
inline void sync_warp() { cuemu::from_lane(0, 0); }
inline float shuffle_xor(float v, int lane) { return cuemu::from_lane(v, cuemu::lane() ^ lane); }
inline int shuffle_xor(int v, int lane) { return cuemu::from_lane(v, cuemu::lane() ^ lane); }
inline float shuffle(float v, int lane) { return cuemu::from_lane(v, lane); }
inline int shuffle(int v, int lane) { return cuemu::from_lane(v, lane); }
inline float root(float x) { return std::sqrt(x); }
inline double root(double x) { return std::sqrt(x); }
