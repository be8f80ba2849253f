// Activations and their gradients, elementwise. The formulas are those of internal/kernel.
#include "math.cuh"

template <class T> INLINE T relu(T x) { return x < 0 ? (T)0 : x; }
template <class T> INLINE T relu_slope(T x) { return x <= 0 ? (T)0 : (T)1; }
// A product with 0 must stay 0 where x is −∞, so x is held above where the other factor is 0 in any case.
template <class T> INLINE T at_least(T x, T edge) { return x < edge ? edge : x; }
template <class T> INLINE T within(T x, T edge) { return x < -edge ? -edge : x > edge ? edge : x; }

template <class T> INLINE T gelu(T x) {
  x = at_least(x, (T)-40);
  return x * (T)0.5 * erfc_of(-x * (T)0.70710678118654752440);
}
template <class T> INLINE T gelu_slope(T x) {
  x = within(x, (T)40);
  return (T)0.5 * erfc_of(-x * (T)0.70710678118654752440) + x * (T)0.39894228040143267794 * exponential((T)-0.5 * x * x);
}
template <class T> INLINE T gelu_tanh(T x) {
  x = at_least(x, (T)-40);
  return x * sigmoid_of((T)1.59576912160573071176 * fused((T)0.044715 * x * x, x, x));
}
template <class T> INLINE T gelu_tanh_slope(T x) {
  x = within(x, (T)40);
  T c, s = sigmoid_of((T)1.59576912160573071176 * fused((T)0.044715 * x * x, x, x), &c);
  return s + x * s * c * (T)1.59576912160573071176 * fused((T)0.134145, x * x, (T)1);
}
template <class T> INLINE T silu(T x) {
  x = at_least(x, (T)-750);
  return x * sigmoid_of(x);
}
template <class T> INLINE T silu_slope(T x) {
  x = within(x, (T)750);
  T c, s = sigmoid_of(x, &c);
  return s * (1 + x * c);
}

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

ACTIVATIONS(float, f32)
ACTIVATIONS(double, f64)
