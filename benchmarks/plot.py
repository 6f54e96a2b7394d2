"""Draw what benchmarks/kernels.py measured: speed over sparsity for each format, against onnxruntime's own.

    python -m benchmarks.plot [--layer 768x3072x128] [--to docs/speed.svg]

Needs matplotlib, which nothing else here does: pip install 'sparsify-onnx[bench]'.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

from benchmarks.kernels import FP32, INT8, RESULTS

SERIES = {  # label: what the names of its contenders match
    "int8, N:64": r"ours int8 \d+:64",
    "int8, unstructured": r"ours int8 unstructured .*",
    "bf16, N:64": r"ours bf16 \d+:64",
    "fp32, unstructured": r"ours fp32 unstructured .*",
}


def main() -> int:
    """Draw one layer of the latest results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", default="768x3072x128", help="K x N x M of a measured layer")
    parser.add_argument("--to", type=Path, default=Path("docs/speed.svg"))
    options = parser.parse_args()
    measured = json.loads((RESULTS / "kernels.json").read_text())
    layers = {f"{x['k']}x{x['n']}x{x['rows']}": x["contenders"] for x in measured["layers"]}
    if options.layer not in layers:
        sys.exit(f"error: {options.layer} was not measured; there are {', '.join(layers)}")
    draw(layers[options.layer], f"{options.layer}, {measured['threads']} thread, {measured['cpu']}", options.to)
    return 0


def draw(contenders: list[dict[str, Any]], title: str, to: Path) -> None:
    """Times faster than onnxruntime's fp32, over the share of zeros."""
    speed = {c["name"]: c["over_fp32"] for c in contenders}
    figure, axes = plt.subplots(figsize=(6.4, 4))
    for label, names in SERIES.items():
        points = sorted((1 - c["density"], c["over_fp32"]) for c in contenders if re.fullmatch(names, c["name"]))
        axes.plot(*zip(*points, strict=True), marker="o", label=f"ours: {label}")
    for name, style in ((FP32, "--"), (INT8, ":")):
        axes.axhline(speed[name], color="black", linestyle=style, linewidth=1, label=name)
    axes.set(xlabel="share of zeros", ylabel="times faster than onnxruntime fp32", title=title, yscale="log")
    axes.set_yticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    axes.grid(alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    figure.savefig(to, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
