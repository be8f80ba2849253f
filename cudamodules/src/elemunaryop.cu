// The unary operators of Gorgonia's graphs, in place, by the names that its CUDADo makes.
#include "math.cuh"

#define FUNCTION(name, type, t, expression)                                  \
  KERNEL(1024, name##_##t, (type *A, i64 n)) {                               \
    for (i64 i = grid_first(); i < n; i += grid_stride()) {                  \
      type x = A[i];                                                         \
      A[i] = expression;                                                     \
    }                                                                        \
  }
#define FUNCTIONS(type, t)                                          \
  FUNCTION(abs, type, t, magnitude(x))                              \
  FUNCTION(sign, type, t, (to_bits(x) >> (sizeof(type) * 8 - 1)) ? (type)-1 : (type)1) \
  FUNCTION(ceil, type, t, -floor_of(-x))                            \
  FUNCTION(floor, type, t, floor_of(x))                             \
  FUNCTION(sin, type, t, sine(x))                                   \
  FUNCTION(cos, type, t, cosine(x))                                 \
  FUNCTION(exp, type, t, exponential(x))                            \
  FUNCTION(ln, type, t, logarithm(x))                               \
  FUNCTION(log2, type, t, log2_of(x))                               \
  FUNCTION(neg, type, t, -x)                                        \
  FUNCTION(square, type, t, x *x)                                   \
  FUNCTION(sqrt, type, t, root(x))                                  \
  FUNCTION(inv, type, t, 1 / x)                                     \
  FUNCTION(invSqrt, type, t, 1 / root(x))                           \
  FUNCTION(cube, type, t, x *x *x)                                  \
  FUNCTION(tanh, type, t, tanh_of(x))                               \
  FUNCTION(sigmoid, type, t, sigmoid_of(x))                         \
  FUNCTION(log1p, type, t, log1p_of(x))                             \
  FUNCTION(expm1, type, t, expm1_of(x))                             \
  FUNCTION(softplus, type, t, softplus_of(x))

FUNCTIONS(float, f32)
FUNCTIONS(double, f64)
