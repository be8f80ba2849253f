// The functions of libm, in float and double, from additions, multiplications and fma alone: no libdevice is needed, and the host
// computes the same bits as the card. Errors are those that TestMath of package emulator holds them to.
#pragma once
#include "common.cuh"

template <class T> struct Float;
template <> struct Float<float> {
  typedef u32 Bits;
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float ln2_hi = 0.693145751953125f, ln2_lo = 1.42860682031e-6f;
  static constexpr float tiny = 1.17549435e-38f, lowest_exp = -104, highest_exp = 89;
};
template <> struct Float<double> {
  typedef u64 Bits;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double ln2_hi = 0.6931471804855391, ln2_lo = 7.4406171100123967161e-11;
  static constexpr double tiny = 2.2250738585072014e-308, lowest_exp = -746, highest_exp = 710;
};

template <class T> INLINE T infinity() { return (T)__builtin_inff(); }
template <class T> INLINE T not_a_number() { return infinity<T>() - infinity<T>(); }
template <class T> INLINE bool is_nan(T x) { return x != x; }

// power_of_two is 2^n for n in the range of normal numbers.
template <class T> INLINE T power_of_two(int n) {
  return from_bits((typename Float<T>::Bits)(n + Float<T>::bias) << Float<T>::mantissa);
}

// exp_minus_one is e^r − 1 for |r| ≤ ln(2)/2 (1 ± 2⁻²⁰): Taylor's series, whose first term left out is below half an ulp.
INLINE float exp_minus_one(float r) {
  float p = 1.f / 5040;
  p = fused(p, r, 1.f / 720);
  p = fused(p, r, 1.f / 120);
  p = fused(p, r, 1.f / 24);
  p = fused(p, r, 1.f / 6);
  p = fused(p, r, 0.5f);
  return fused(p * r, r, r);
}
INLINE double exp_minus_one(double r) {
  double p = 1. / 6227020800.;
  p = fused(p, r, 1. / 479001600.);
  p = fused(p, r, 1. / 39916800.);
  p = fused(p, r, 1. / 3628800.);
  p = fused(p, r, 1. / 362880.);
  p = fused(p, r, 1. / 40320.);
  p = fused(p, r, 1. / 5040.);
  p = fused(p, r, 1. / 720.);
  p = fused(p, r, 1. / 120.);
  p = fused(p, r, 1. / 24.);
  p = fused(p, r, 1. / 6.);
  p = fused(p, r, 0.5);
  return fused(p * r, r, r);
}

// reduce_exp splits x = n·ln 2 + r. x must be in the range where n fits; a NaN gives n = 0.
template <class T> INLINE int reduce_exp(T x, T *r) {
  T n = nearest(x * (T)1.4426950408889634074);
  *r = fused(n, -Float<T>::ln2_lo, fused(n, -Float<T>::ln2_hi, x));
  return is_nan(n) ? 0 : (int)n;
}

template <class T> INLINE T exponential(T x) {
  T c = x < Float<T>::lowest_exp ? Float<T>::lowest_exp : x > Float<T>::highest_exp ? Float<T>::highest_exp : x, r;
  int n = reduce_exp(c, &r), half = n / 2;
  T p = exp_minus_one(r) + 1;
  return x < Float<T>::lowest_exp ? (T)0 : p * power_of_two<T>(half) * power_of_two<T>(n - half);
}

template <class T> INLINE T expm1_of(T x) {
  if (x < (T)-40) return is_nan(x) ? x : (T)-1;
  if (x > Float<T>::highest_exp - 2) return exponential(x);
  T r;
  int n = reduce_exp(x, &r);
  T e = exp_minus_one(r);
  if (n == 0) return e;
  T s = power_of_two<T>(n);
  return fused(s, e, s - 1);
}

// logarithm: x = 2^e·(1+f) with 1+f in [√½, √2), ln(1+f) = f − (h − s·(h+R)).
template <class T> INLINE T logarithm(T x) {
  typedef typename Float<T>::Bits Bits;
  if (is_nan(x) || x < 0) return infinity<T>() - infinity<T>();
  if (x == 0) return -infinity<T>();
  if (x == infinity<T>()) return x;
  int e = 0;
  if (x < Float<T>::tiny) {
    x *= power_of_two<T>(Float<T>::mantissa + 1);
    e = -Float<T>::mantissa - 1;
  }
  Bits b = to_bits(x);
  e += (int)(b >> Float<T>::mantissa) - Float<T>::bias;
  T m = from_bits((b & (((Bits)1 << Float<T>::mantissa) - 1)) | (Bits)Float<T>::bias << Float<T>::mantissa);
  if (m > (T)1.4142135623730951) {
    m *= (T)0.5;
    e++;
  }
  T f = m - 1, s = f / (2 + f), z = s * s, R = 0;
  // ln((1+s)/(1−s)) = 2s + s·R, R = 2·Σ z^k/(2k+1)
  for (int k = sizeof(T) == 4 ? 5 : 10; k >= 1; k--) R = fused(R, z, (T)(2. / (2 * k + 1)));
  R *= z;
  T h = (T)0.5 * f * f;
  T lo = fused(s, h + R, (T)e * Float<T>::ln2_lo);
  return (T)e * Float<T>::ln2_hi + (f - (h - lo));
}

template <class T> INLINE T floor_of(T x) {
  T n = nearest(x);
  return n > x ? n - 1 : n;
}

// log2_of is exact at powers of two: the exponent is taken out before the logarithm.
INLINE float log2_of(float x) { return (float)(logarithm((double)x) * 1.4426950408889634074); }
INLINE double log2_of(double x) {
  if (!(x > Float<double>::tiny) || x == infinity<double>()) return logarithm(x) * 1.4426950408889634074;
  u64 b = to_bits(x);
  int e = (int)(b >> 52) - 1023;
  double m = from_bits((b & (((u64)1 << 52) - 1)) | (u64)1023 << 52);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    e++;
  }
  return fused(logarithm(m), 1.4426950408889634074, (double)e);
}

template <class T> INLINE T log1p_of(T x) {
  T u = 1 + x;
  if (u == 1) return x;  // also −0
  if (u == infinity<T>()) return u;
  return logarithm(u) * (x / (u - 1));
}

// sigmoid_of is σ(x); other is 1 − σ(x), without the loss of digits that a subtraction would bring.
template <class T> INLINE T sigmoid_of(T x, T *other) {
  T e = exponential(-magnitude(x)), big = 1 / (1 + e), small = e / (1 + e);
  *other = x >= 0 ? small : big;
  return x >= 0 ? big : small;
}
template <class T> INLINE T sigmoid_of(T x) {
  T other;
  return sigmoid_of(x, &other);
}

template <class T> INLINE T tanh_of(T x) {
  T a = magnitude(x);
  if (a > (T)22) return x < 0 ? (T)-1 : (T)1;
  T e = expm1_of(2 * a), t = e / (e + 2);
  return x < 0 ? -t : t;
}

// softplus is ln(1 + e^x).
template <class T> INLINE T softplus_of(T x) {
  T l = log1p_of(exponential(-magnitude(x)));
  return is_nan(x) ? x : x > 0 ? x + l : l;
}

// erfc_scaled is (1+2x)·e^(x²)·erfc(x) for x ≥ 0, as a polynomial in (x−3)/(x+3): the Chebyshev series of that function, cut off
// where its relative error is 4.5e-9 and 1e-16.
INLINE float erfc_scaled(float u) {
  const float c[] = {7.731024224e-5f, -9.254516687e-5f, -0.000726453679f, 0.001875079124f, 0.00249911687f, -0.02376357644f,
                     0.06831656777f, -0.1192752753f, 0.1296441143f, -0.04756215693f, -0.1356210694f, 1.253008056f};
  float p = c[0];
  for (int i = 1; i < 12; i++) p = fused(p, u, c[i]);
  return p;
}
INLINE double erfc_scaled(double u) {
  const double c[] = {9.86253351034558759e-10, -3.18135414349692733e-9, -1.33129196610386877e-8, 2.78438812655022206e-8,
                      1.01836206038427366e-7, -1.20541422864893789e-7, -6.16601146039872593e-7, 3.36697908064075958e-7,
                      3.47237094497716817e-6, -7.18788383440426665e-7, -0.0000201005422685256109, 4.94412434222365985e-6,
                      0.000125099342458372909, -0.000105158312978131282, -0.000779832269654330652, 0.0018886900977441495,
                      0.00252939181569396953, -0.0237705148915300752, 0.0683080273440099038, -0.119273663416760023,
                      0.129645158702759392, -0.0475622943534203791, -0.135621106124581159, 1.25300805826972955};
  double p = c[0];
  for (int i = 1; i < 24; i++) p = fused(p, u, c[i]);
  return p;
}
template <class T> INLINE T erfc_of(T x) {
  T a = magnitude(x);
  T edge = sizeof(T) == 4 ? (T)11 : (T)28;
  T v = 0;
  if (!(a > edge)) {
    T h = a * a, l = fused(a, a, -h);
    v = exponential(-h) * (1 - l) * (erfc_scaled((a - 3) / (a + 3)) / fused((T)2, a, (T)1));
  }
  return x < 0 ? 2 - v : v;
}

// sine and cosine: x = k·π/2 + r with π/2 in three parts, good to |x| = 2²⁰; beyond that the error grows with |x|. A float is
// reduced in double, which is good to |x| = 2³⁰. The series are Taylor's.
INLINE double reduce_quarter(double x, int *quadrant) {
  double k = nearest(x * 0.63661977236758134308);
  double r = fused(k, -1.5707963267341256142, x);
  r = fused(k, -6.077100506303966e-11, r);  // the next 33 bits
  r = fused(k, -2.0222662487959506e-21, r);  // the rest
  *quadrant = is_nan(k) || magnitude(k) > 1e18 ? 0 : (int)((i64)k & 3);
  return r;
}
INLINE double sine_series(double r) {
  double z = r * r, p = -1. / 1307674368000.;
  p = fused(p, z, 1. / 6227020800.);
  p = fused(p, z, -1. / 39916800.);
  p = fused(p, z, 1. / 362880.);
  p = fused(p, z, -1. / 5040.);
  p = fused(p, z, 1. / 120.);
  p = fused(p, z, -1. / 6.);
  return fused(p * z, r, r);
}
INLINE double cosine_series(double r) {
  double z = r * r, p = 1. / 20922789888000.;
  p = fused(p, z, -1. / 87178291200.);
  p = fused(p, z, 1. / 479001600.);
  p = fused(p, z, -1. / 3628800.);
  p = fused(p, z, 1. / 40320.);
  p = fused(p, z, -1. / 720.);
  p = fused(p, z, 1. / 24.);
  return fused(p * z, z, fused((double)-0.5, z, 1.));
}
template <class T> INLINE T sine(T x) {
  int q;
  double r = reduce_quarter((double)x, &q), v = q & 1 ? cosine_series(r) : sine_series(r);
  return (T)(q & 2 ? -v : v);
}
template <class T> INLINE T cosine(T x) {
  int q;
  double r = reduce_quarter((double)x, &q), v = q & 1 ? sine_series(r) : cosine_series(r);
  return (T)((q + 1) & 2 ? -v : v);
}

// power is x^y as C's pow has it. The logarithm is carried in two doubles: y·ln x may be 700, and its error becomes one of the
// result.
INLINE double power_positive(double x, double y) {
  int e = 0;
  if (x < 2.2250738585072014e-308) {
    x *= 9007199254740992.;
    e = -53;
  }
  u64 b = to_bits(x);
  e += (int)(b >> 52) - 1023;
  double m = from_bits((b & (((u64)1 << 52) - 1)) | (u64)1023 << 52);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    e++;
  }
  // s = f/(2+f) in two doubles, ln m = 2·(s + s³/3 + …).
  double f = m - 1, d = 2 + f, dl = f - (d - 2);
  double s = f / d, sl = (fused(-s, d, f) - s * dl) / d;
  double z = s * s, zl = fused(s, s, -z) + 2 * s * sl, R = 0;
  for (int k = 11; k >= 2; k--) R = fused(R, z, 1. / (2 * k + 1));
  // s³/3 in two doubles as well; the rest is below 2⁻⁹ of it.
  double third = 0.33333333333333331483, thirdl = 1.8503717077085941e-17;
  double c = z * third, cl = fused(z, third, -c) + z * thirdl + zl * third + R * z * z;
  double t = s * c, tl = fused(s, c, -t) + s * cl + sl * c;
  double hi = s + t, lo = (s - hi) + t + (sl + tl);
  hi *= 2;
  lo *= 2;
  double eh = e * 0.6931471804855391;
  double L = eh + hi, v = L - eh;
  double Ll = (eh - (L - v)) + (hi - v) + lo + e * 7.4406171100123967161e-11;
  double sum = L + Ll;  // so that what is left is below an ulp, and e^left is 1 + left
  Ll = (L - sum) + Ll;
  L = sum;
  double p = y * L, pl = fused(y, L, -p) + y * Ll;
  if (!(p < 710) || !(p > -746)) return exponential(p);
  double r = exponential(p);
  return r == infinity<double>() ? r : fused(r, pl, r);
}
INLINE double power(double x, double y) {
  if (y == 0 || x == 1) return 1;
  if (is_nan(x) || is_nan(y)) return x + y;
  double a = magnitude(x);
  if (magnitude(y) == infinity<double>()) return a == 1 ? 1 : (a > 1) == (y > 0) ? infinity<double>() : 0;
  bool whole = nearest(y) == y, odd = whole && nearest(y * 0.5) != y * 0.5;
  double sign = odd && (to_bits(x) >> 63) ? -1. : 1.;
  if (a == 0) return sign * (y > 0 ? 0 : infinity<double>());
  if (a == infinity<double>()) return sign * (y > 0 ? infinity<double>() : 0);
  if (x < 0 && !whole) return infinity<double>() - infinity<double>();
  return sign * power_positive(a, y);
}
INLINE float power(float x, float y) { return (float)power((double)x, (double)y); }
