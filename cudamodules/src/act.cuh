// The activations of a network and their derivatives, by the formulas of internal/kernel.
#pragma once
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

// activated and slope_of choose by number, as package ops counts its Activations: none, relu, gelu, gelu-tanh, silu.
template <class T> OUTLINE T activated(i64 a, T x) {
  return a == 1 ? relu(x) : a == 2 ? gelu(x) : a == 3 ? gelu_tanh(x) : a == 4 ? silu(x) : x;
}
template <class T> OUTLINE T slope_of(i64 a, T x) {
  return a == 1 ? relu_slope(x) : a == 2 ? gelu_slope(x) : a == 3 ? gelu_tanh_slope(x) : a == 4 ? silu_slope(x) : (T)1;
}
