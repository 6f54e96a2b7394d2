"""onnxruntime sessions that run our operators natively."""

from __future__ import annotations

import os
from typing import Any

import onnxruntime

from sparsify import kernels


def register(options: onnxruntime.SessionOptions) -> bool:
    """Let sessions made with `options` run `ai.sparsify` operators on the native kernels.

    False where this CPU has no fast kernels: such sessions run the functions in the model, as any runtime does.
    """
    return kernels.register(options)


def InferenceSession(
    path_or_bytes: str | bytes | os.PathLike[str],
    sess_options: onnxruntime.SessionOptions | None = None,
    providers: Any = None,
    provider_options: Any = None,
    **kwargs: Any,
) -> onnxruntime.InferenceSession:
    """An `onnxruntime.InferenceSession`, and nothing else, with our kernels registered; arguments are the same.

    `sess_options`, when given, has the kernels registered on it, as by `register`; twice does no harm.
    """
    options = sess_options if sess_options is not None else onnxruntime.SessionOptions()
    register(options)
    return onnxruntime.InferenceSession(path_or_bytes, options, providers, provider_options, **kwargs)
