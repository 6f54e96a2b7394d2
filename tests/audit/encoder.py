"""A small transformer encoder with a classifier, as exporters write it, and models made from it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

VOCABULARY, TOKENS, WIDTH, HEADS, INNER, CLASSES = 50, 12, 32, 4, 64, 5
BATCH = 6

_BLOCK = """
    {p}q_mm = MatMul({x}, {p}wq)
    {p}q = Add({p}q_mm, {p}bq)
    {p}k_mm = MatMul({x}, {p}wk)
    {p}k = Add({p}k_mm, {p}bk)
    {p}v_mm = MatMul({x}, {p}wv)
    {p}v = Add({p}v_mm, {p}bv)
    {p}q4 = Reshape({p}q, split)
    {p}qh = Transpose<perm = [0, 2, 1, 3]>({p}q4)
    {p}k4 = Reshape({p}k, split)
    {p}kh = Transpose<perm = [0, 2, 3, 1]>({p}k4)
    {p}v4 = Reshape({p}v, split)
    {p}vh = Transpose<perm = [0, 2, 1, 3]>({p}v4)
    {p}qk = MatMul({p}qh, {p}kh)
    {p}scaled = Div({p}qk, scale)
    {p}masked = Add({p}scaled, mask_bias)
    {p}attention = Softmax<axis = -1>({p}masked)
    {p}mixed = MatMul({p}attention, {p}vh)
    {p}mixed_t = Transpose<perm = [0, 2, 1, 3]>({p}mixed)
    {p}context = Reshape({p}mixed_t, merge)
    {p}o_mm = MatMul({p}context, {p}wo)
    {p}o = Add({p}o_mm, {p}bo)
    {p}r1 = Add({p}o, {x})
    {p}n1 = LayerNormalization<axis = -1, epsilon = 1e-5>({p}r1, {p}g1, {p}c1)
    {p}up_mm = MatMul({p}n1, {p}wu)
    {p}up = Add({p}up_mm, {p}bu)
    {p}e1 = Div({p}up, root2)
    {p}e2 = Erf({p}e1)
    {p}e3 = Add({p}e2, one)
    {p}e4 = Mul({p}up, {p}e3)
    {p}gelu = Mul({p}e4, half)
    {p}down_mm = MatMul({p}gelu, {p}wd)
    {p}down = Add({p}down_mm, {p}bd)
    {p}r2 = Add({p}down, {p}n1)
    {p}out = LayerNormalization<axis = -1, epsilon = 1e-5>({p}r2, {p}g2, {p}c2)
"""


def encoder(layers: int = 2, seed: int = 0) -> onnx.ModelProto:
    """ids int64 [batch, 12], mask int64 [batch, 12] -> y float32 [batch, 5]. Nodes have names, projections `proj`."""
    body = "embedded = Gather(table, ids)\n mask_f = Cast<to = 1>(mask)\n mask_4 = Unsqueeze(mask_f, axes)\n"
    body += "absent = Sub(one, mask_4)\n mask_bias = Mul(absent, minus)\n"
    x = "embedded"
    for layer in range(layers):
        body += _BLOCK.format(p=f"l{layer}_", x=x)
        x = f"l{layer}_out"
    body += f"pooled = ReduceMean<axes = [1], keepdims = 0>({x})\n y = Gemm(pooled, head, head_bias)"
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        encoder (int64[batch,{TOKENS}] ids, int64[batch,{TOKENS}] mask) => (float[batch,{CLASSES}] y) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    for name, array in _weights(layers, np.random.default_rng(seed)).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node in model.graph.node:
        node.name = f"/{node.output[0].replace('_mm', '_proj')}/{node.op_type}"
    onnx.checker.check_model(model, full_check=True)
    return model


def feed(seed: int = 1, batch: int = BATCH) -> dict[str, np.ndarray]:
    """Token ids, the last few of some rows masked."""
    random = np.random.default_rng(seed)
    lengths = random.integers(TOKENS // 2, TOKENS + 1, (batch, 1))
    return {
        "ids": random.integers(0, VOCABULARY, (batch, TOKENS)),
        "mask": (np.arange(TOKENS)[None] < lengths).astype(np.int64),
    }


def renamed(
    model: onnx.ModelProto, *, numbered: bool = False, stem: str = "value_", start: int = 0
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """`model` as another exporter would name it, all but its inputs and outputs; and the new names by the old."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    graph = other.graph
    kept = {i.name for i in graph.input} | {o.name for o in graph.output}
    inner = [t.name for t in graph.initializer] + [o for node in graph.node for o in node.output if o]
    fresh = "" if numbered else stem
    names = {name: name if name in kept else f"{fresh}{number}" for number, name in enumerate(inner, start)}
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    for number, node in enumerate(graph.node):
        node.name = f"node_{number}"
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    del graph.value_info[:]
    return other, names


def _weights(layers: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape) / np.sqrt(shape[0])

    found = {"table": random.standard_normal((VOCABULARY, WIDTH)), "head": normal(WIDTH, CLASSES)}
    found["head_bias"] = random.standard_normal(CLASSES)
    for layer in range(layers):
        p = f"l{layer}_"
        found |= {p + "w" + n: 2 * normal(WIDTH, WIDTH) for n in "qkvo"}
        found |= {p + "b" + n: random.standard_normal(WIDTH) / 2 for n in "qkvod"}
        found |= {p + "wu": normal(WIDTH, INNER), p + "bu": random.standard_normal(INNER) / 2}
        found |= {p + "wd": normal(INNER, WIDTH)}
        found |= {p + n: 1 + random.standard_normal(WIDTH) / 4 for n in ("g1", "g2")}
        found |= {p + n: random.standard_normal(WIDTH) / 4 for n in ("c1", "c2")}
    scalars = {"scale": np.sqrt(WIDTH // HEADS), "root2": np.sqrt(2), "one": 1, "half": 0.5, "minus": -1e4}
    found |= {name: np.array(value) for name, value in scalars.items()}
    integers = {"split": [0, 0, HEADS, WIDTH // HEADS], "merge": [0, 0, WIDTH], "axes": [1, 2]}
    return {name: array.astype(np.float32) for name, array in found.items()} | {
        name: np.array(value, np.int64) for name, value in integers.items()
    }
