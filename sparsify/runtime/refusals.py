"""onnxruntime's complaints about operators that it does not have, in one sentence that names them."""

from __future__ import annotations

import re

import onnxruntime

_UNKNOWN = (
    re.compile(r"Fatal error: (?P<domain>[^\s:]*):(?P<op>[^\s:(]+)\(-?\d+\) is not a registered function/op"),
    re.compile(r'In Node, \("[^"]*", (?P<op>[^\s,]+), "(?P<domain>[^"]*)", -?\d+\).*Error No Op registered for'),
    re.compile(r'In Node, \("[^"]*", (?P<op>[^\s,]+), "(?P<domain>[^"]*)", -?\d+\).*Error No opset import for domain'),
    re.compile(r"No opset import for domain '(?P<domain>[^']+)'.*OpType: (?P<op>\w+)"),
)
_WITHOUT_KERNEL = re.compile(
    r"(?:Failed to find kernel for|Could not find an implementation for(?: the node)?) (?P<op>[\w.]+)\((?P<since>\d+)\)"
)


def explain(text: str) -> tuple[str, str] | None:
    """What is wrong and a hint, if `text` is about an operator that onnxruntime does not have; else None."""
    version = onnxruntime.__version__
    for pattern in _UNKNOWN:
        if found := pattern.search(text):
            domain = found["domain"] or "ai.onnx"
            return f"operator `{found['op']}` of domain `{domain}` is unknown to onnxruntime {version}", _hint(domain)
    if found := _WITHOUT_KERNEL.search(text):
        domain, _, op = found["op"].rpartition(".")
        name = f"operator `{op}` of domain `{domain or 'ai.onnx'}`, version {found['since']}"
        what = f"{name}: onnxruntime {version} has no CPU kernel for its types"
        return what, "this build lacks it: export with other types, or for the CPU, or install another onnxruntime"
    return None


def _hint(domain: str) -> str:
    if domain == "ai.onnx":
        return "the model's opset does not have it, or a newer onnxruntime does"
    if domain.startswith("com.microsoft"):
        return "a newer onnxruntime may have it; else export the model without onnxruntime's own fusions"
    return "libraries of custom operators are not loaded: export without it, or give it as a function in the model"
