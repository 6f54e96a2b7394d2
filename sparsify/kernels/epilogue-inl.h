// Activations, one body for every ISA; the same roundings on all of them, so results are bit-identical.
//
// Gelu(x) = x/2 (1 + erf(x / sqrt 2)).
// erf(z) = z P(z^2) / Q(z^2) on |z| <= 3.925, beyond which erf rounds to +-1 in float32; so does zP/Q at the last
// number below, so that Gelu vanishes far to the left. P and Q are of degree 5,
// from an iteratively reweighted least-squares fit (Lawson) on 4000 Chebyshev points; fit error 1.7e-8,
// error evaluated in float32 at 2,000,001 points of [0, 6]: 3.5e-7 absolute, 3.6e-7 relative.
// So |Gelu_here(x) - Gelu(x)| <= |x| (1.8e-7 + 2 ulp).
//
// Sigmoid(x) = 1 / (1 + exp(-x)), Silu(x) = x / (1 + exp(-x)),
// GeluTanh(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) = x / (1 + exp(x (A + B x^2))),
// Tanh(x) = E / (E + 2) with E = exp(2x) - 1, which loses nothing near 0.
// exp(t) = 2^n (1 + q), n = round(t / ln 2), q = exp(r) - 1 = r + r^2 P(r), r = t - n ln 2 in two steps, |r| <= 0.347.
// P is of degree 4, fitted as above. With u = 2^-24, relative to 1 + q >= 0.706:
//
//   r      n times the high part of ln 2 is exact; the last step rounds once: u/4 / 0.706, and so does ln 2: 0.02 u
//   q      fit 0.3 u of q; r^2 P rounds thrice and is at most 0.2 of q; the last FMA rounds once: u/4 / 0.706
//   1 + q  rounds once: u/1, or u/2 below 1 / 0.706
//
// together at most 2.3 u (1.43 u at 35 million points of [-87, 88]). 2^n is exact but beyond float32: from t = 127.5 ln 2 = 88.376 on exp is infinite, below
// -126.5 ln 2 it is 0: Sigmoid is off by no more than exp(-88.37) = 4.2e-39 there, Silu and GeluTanh by 3.8e-37.
// Bounds that follow for the activations: tests/references.py.
//
// A NaN must come out as NaN: min and max return their second operand for a NaN, so the argument stands second.
#pragma once

#include "contract.h"

namespace sparsify {

template <class V>
inline typename V::Float erf_rational(typename V::Float x) {
  static constexpr float kP[] = {1.128378987312317f,   0.1929730623960495f,   0.05308441072702408f,
                                 0.003876348491758108f, 0.0002874925557989627f, 2.030862788160448e-06f};
  static constexpr float kQ[] = {1.0f,                  0.5043495893478394f,   0.11516766250133514f,
                                 0.015188395977020264f, 0.0011897552758455276f, 3.803140498348512e-05f};
  constexpr float kEnd = 3.92499948f;
  const auto z = V::max(V::set(-kEnd), V::min(V::set(kEnd), x));
  const auto t = V::mul(z, z);
  auto p = V::set(kP[5]);
  auto q = V::set(kQ[5]);
  for (int i = 4; i >= 0; --i) {
    p = V::fma(p, t, V::set(kP[i]));
    q = V::fma(q, t, V::set(kQ[i]));
  }
  return V::div(V::mul(z, p), q);
}

// exp(t) = scale + scale * rest, scale a power of 2. For t from -88 to 89, and NaN.
template <class V>
struct Exponential {
  typename V::Float scale, rest;

  explicit Exponential(typename V::Float t) {
    static constexpr float kP[] = {0.4999999701976776f, 0.1666654348373413f, 0.04166720062494278f,
                                   0.008366547524929047f, 0.0013882516650483012f};
    const auto n = V::round(V::mul(t, V::set(1.4426950408889634f)));
    auto r = V::fma(n, V::set(-0.693359375f), t);  // 10 bits of ln 2
    r = V::fma(n, V::set(2.12194440e-4f), r);      // the rest of it
    auto p = V::set(kP[4]);
    for (int i = 3; i >= 0; --i) p = V::fma(p, r, V::set(kP[i]));
    scale = V::power_of_2(n);
    rest = V::fma(V::mul(r, r), p, r);
  }
};

template <class V>
inline typename V::Float clamp(typename V::Float x, float low, float high) {
  return V::max(V::set(low), V::min(V::set(high), x));
}

// x / (1 + exp(t))
template <class V>
inline typename V::Float logistic(typename V::Float x, typename V::Float t) {
  const auto one = V::set(1.0f);
  const Exponential<V> e(clamp<V>(t, -88.0f, 89.0f));
  return V::div(x, V::add(one, V::mul(e.scale, V::add(one, e.rest))));
}

template <class V>
inline typename V::Float tanh(typename V::Float x) {
  // Beyond +-10 tanh rounds to +-1, and so does this.
  const Exponential<V> e(V::mul(clamp<V>(x, -10.0f, 10.0f), V::set(2.0f)));
  const auto less_one = V::fma(e.scale, e.rest, V::add(e.scale, V::set(-1.0f)));
  return V::div(less_one, V::add(less_one, V::set(2.0f)));
}

template <class V>
inline typename V::Float activate(typename V::Float x, Activation activation) {
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return V::max(V::set(0.0f), x);
    case Activation::kGelu: {
      const auto erf = erf_rational<V>(V::mul(x, V::set(0.70710678118654752f)));
      return V::mul(V::mul(x, V::set(0.5f)), V::add(erf, V::set(1.0f)));
    }
    case Activation::kGeluTanh: {
      const auto cubic = V::fma(V::mul(x, x), V::set(-0.07135481627260025f), V::set(-1.5957691216057308f));
      return logistic<V>(x, V::mul(x, cubic));
    }
    case Activation::kSilu: return logistic<V>(x, V::mul(x, V::set(-1.0f)));
    case Activation::kSigmoid: return logistic<V>(V::set(1.0f), V::mul(x, V::set(-1.0f)));
    case Activation::kTanh: return tanh<V>(x);
  }
  return x;
}

// The same for `count` registers at v, in place. The switch stands outside of the loops, so that constants stay in
// registers: read for each they cost more loads than the arithmetic takes (Gelu: 3 times as long, Zen 5).
template <class V>
inline void activate(float* v, int64_t count, Activation activation) {
  const auto all = [&](auto f) {
    for (int64_t i = 0; i < count; ++i) V::store(v + i * V::kLanes, f(V::load(v + i * V::kLanes)));
  };
  switch (activation) {
    case Activation::kNone: return;
    case Activation::kRelu: return all([](auto x) { return activate<V>(x, Activation::kRelu); });
    case Activation::kGelu: return all([](auto x) { return activate<V>(x, Activation::kGelu); });
    case Activation::kGeluTanh: return all([](auto x) { return activate<V>(x, Activation::kGeluTanh); });
    case Activation::kSilu: return all([](auto x) { return activate<V>(x, Activation::kSilu); });
    case Activation::kSigmoid: return all([](auto x) { return activate<V>(x, Activation::kSigmoid); });
    case Activation::kTanh: return all([](auto x) { return activate<V>(x, Activation::kTanh); });
  }
}

}  // namespace sparsify
