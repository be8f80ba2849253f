// Activations and their gradients, elementwise, and what a linear layer does around its products.
#include "act.cuh"

#define ACTIVATION(name, type, t)                                                                        \
  KERNEL(256, name##_##t, (type *RESTRICT y, const type *x, i64 n)) {                                    \
    for (i64 i = grid_first(); i < n; i += grid_stride()) y[i] = name(x[i]);                             \
  }                                                                                                      \
  KERNEL(256, name##_grad_##t, (type *RESTRICT dx, const type *x, const type *dy, i64 n)) {              \
    for (i64 i = grid_first(); i < n; i += grid_stride()) dx[i] = name##_slope(x[i]) * dy[i];            \
  }
#define ACTIVATIONS(type, t)                                                                             \
  ACTIVATION(relu, type, t)                                                                              \
  ACTIVATION(gelu, type, t)                                                                              \
  ACTIVATION(gelu_tanh, type, t)                                                                         \
  ACTIVATION(silu, type, t)                                                                              \
  KERNEL(256, swiglu_##t, (type *RESTRICT y, const type *gate, const type *up, i64 n)) {                 \
    for (i64 i = grid_first(); i < n; i += grid_stride()) y[i] = silu(gate[i]) * up[i];                  \
  }                                                                                                      \
  KERNEL(256, swiglu_grad_##t,                                                                           \
         (type *RESTRICT dgate, type *RESTRICT dup, const type *gate, const type *up, const type *dy, i64 n)) { \
    for (i64 i = grid_first(); i < n; i += grid_stride()) {                                              \
      type g = gate[i], u = up[i], d = dy[i];                                                            \
      dgate[i] = d * u * silu_slope(g);                                                                  \
      dup[i] = d * silu(g);                                                                              \
    }                                                                                                    \
  }                                                                                                      \
  KERNEL(256, add_##t, (type *RESTRICT y, const type *a, const type *b, i64 n)) {                        \
    for (i64 i = grid_first(); i < n; i += grid_stride()) y[i] = a[i] + b[i];                            \
  }

// bias_act: z += bias along rows of n numbers, y = act(z). bias may be null, and y may be z.
// bias_act_grad: dz = dy·act'(z); dz may be dy.
// column_sum: sum[j] = Σ_r x[r, j], in double; a block of 256 threads has 32 columns, and a warp every eighth row.
#define AROUND(T, t)                                                                                                     \
  KERNEL(256, bias_act_##t, (T *y, T *z, const T *bias, i64 n, i64 act, i64 count)) {                                    \
    for (i64 i = grid_first(); i < count; i += grid_stride()) {                                                          \
      T v = z[i] + (bias ? bias[i % n] : (T)0);                                                                          \
      z[i] = v;                                                                                                          \
      y[i] = activated(act, v);                                                                                          \
    }                                                                                                                    \
  }                                                                                                                      \
  KERNEL(256, bias_act_grad_##t, (T *dz, const T *z, const T *dy, i64 act, i64 count)) {                                 \
    for (i64 i = grid_first(); i < count; i += grid_stride()) dz[i] = slope_of(act, z[i]) * dy[i];                       \
  }                                                                                                                      \
  KERNEL(256, column_sum_##t, (T *RESTRICT sum, const T *x, i64 rows, i64 n)) {                                          \
    __shared__ double part[8][32];                                                                                       \
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;                                                                \
    i64 j = (i64)blockIdx.x * 32 + lane;                                                                                 \
    double s = 0;                                                                                                        \
    for (i64 r = warp; j < n && r < rows; r += 8) s += (double)x[r * n + j];                                             \
    part[warp][lane] = s;                                                                                                \
    BARRIER(0);                                                                                                          \
    if (warp != 0 || j >= n) return;                                                                                     \
    for (int w = 1; w < 8; w++) s += part[w][lane];                                                                      \
    sum[j] = (T)s;                                                                                                       \
  }

AROUND(float, f32)
AROUND(double, f64)
ACTIVATIONS(float, f32)
ACTIVATIONS(double, f64)
