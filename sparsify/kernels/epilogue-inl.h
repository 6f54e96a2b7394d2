// Activations, one body for every ISA; the same roundings on all of them, so results are bit-identical.
//
// Gelu(x) = x/2 (1 + erf(x / sqrt 2)).
// erf(z) = z P(z^2) / Q(z^2) on |z| <= 3.925, beyond which erf rounds to +-1 in float32. P and Q are of degree 5,
// from an iteratively reweighted least-squares fit (Lawson) on 4000 Chebyshev points; fit error 1.7e-8,
// error evaluated in float32 at 2,000,001 points of [0, 6]: 3.5e-7 absolute, 3.6e-7 relative.
// So |Gelu_here(x) - Gelu(x)| <= |x| (1.8e-7 + 2 ulp).
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
  const auto z = V::max(V::set(-3.925f), V::min(V::set(3.925f), x));
  const auto t = V::mul(z, z);
  auto p = V::set(kP[5]);
  auto q = V::set(kQ[5]);
  for (int i = 4; i >= 0; --i) {
    p = V::fma(p, t, V::set(kP[i]));
    q = V::fma(q, t, V::set(kQ[i]));
  }
  return V::div(V::mul(z, p), q);
}

template <class V>
inline typename V::Float activate(typename V::Float x, Activation activation) {
  if (activation == Activation::kNone) return x;
  if (activation == Activation::kRelu) return V::max(V::set(0.0f), x);
  const auto erf = erf_rational<V>(V::mul(x, V::set(0.70710678118654752f)));
  return V::mul(V::mul(x, V::set(0.5f)), V::add(erf, V::set(1.0f)));
}

}  // namespace sparsify
