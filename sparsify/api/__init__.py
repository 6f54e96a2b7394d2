"""What a program calls, and what the command line reports. Programs find the former in `sparsify` itself."""

from sparsify.api.bisection import bisect, bisection_of
from sparsify.api.comparison import compare
from sparsify.api.curve import curve
from sparsify.api.drift import SYNTHETIC, audit, report_of
from sparsify.api.examination import examine
from sparsify.api.inspection import inspect
from sparsify.api.networks import from_scipy
from sparsify.api.npz import from_npz, save_npz
from sparsify.api.optimizer import Result, optimize
from sparsify.api.profiling import profile
from sparsify.api.sessions import InferenceSession, register

__all__ = [
    "SYNTHETIC",
    "InferenceSession",
    "Result",
    "audit",
    "bisect",
    "bisection_of",
    "compare",
    "curve",
    "examine",
    "from_npz",
    "from_scipy",
    "inspect",
    "optimize",
    "profile",
    "register",
    "report_of",
    "save_npz",
]
