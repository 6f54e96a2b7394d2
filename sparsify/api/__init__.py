"""What a program calls. The same things stand in `sparsify` itself."""

from sparsify.api.drift import audit
from sparsify.api.inspection import inspect
from sparsify.api.networks import from_scipy
from sparsify.api.optimizer import Result, optimize
from sparsify.api.sessions import InferenceSession, register

__all__ = ["InferenceSession", "Result", "audit", "from_scipy", "inspect", "optimize", "register"]
