// The binary operators that gorgonia.org/gorgonia/cuda asks its engine for, by the names it makes: add_vv_f32 is vector and vector,
// vs and sv have one scalar, ss two. The result replaces the vector (the first of two), as that engine expects.
#include "math.cuh"

template <class T> INLINE T of_bool(bool b) { return b ? (T)1 : (T)0; }

#define OPERATOR(name, type, t, expression)                                                                 \
  INLINE type name##_##t##_op(type a, type b) { return expression; }                                        \
  KERNEL(1024, name##_vv_##t, (type *A, const type *B, i64 n)) {                                   \
    for (i64 i = grid_first(); i < n; i += grid_stride()) A[i] = name##_##t##_op(A[i], B[i]);               \
  }                                                                                                         \
  KERNEL(1024, name##_vs_##t, (type *A, const type *B, i64 n)) {                                   \
    for (i64 i = grid_first(); i < n; i += grid_stride()) A[i] = name##_##t##_op(A[i], B[0]);               \
  }                                                                                                         \
  KERNEL(1024, name##_sv_##t, (const type *A, type *B, i64 n)) {                                   \
    for (i64 i = grid_first(); i < n; i += grid_stride()) B[i] = name##_##t##_op(A[0], B[i]);               \
  }                                                                                                         \
  KERNEL(1024, name##_ss_##t, (type *A, const type *B, i64 n)) {                                   \
    if (grid_first() == 0 && n > 0) A[0] = name##_##t##_op(A[0], B[0]);                                     \
  }
#define OPERATORS(type, t)                  \
  OPERATOR(add, type, t, a + b)             \
  OPERATOR(sub, type, t, a - b)             \
  OPERATOR(mul, type, t, a *b)              \
  OPERATOR(div, type, t, a / b)             \
  OPERATOR(pow, type, t, power(a, b))       \
  OPERATOR(lt, type, t, of_bool<type>(a < b))   \
  OPERATOR(gt, type, t, of_bool<type>(a > b))   \
  OPERATOR(lte, type, t, of_bool<type>(a <= b)) \
  OPERATOR(gte, type, t, of_bool<type>(a >= b)) \
  OPERATOR(eq, type, t, of_bool<type>(a == b))  \
  OPERATOR(ne, type, t, of_bool<type>(a != b))

OPERATORS(float, f32)
OPERATORS(double, f64)
