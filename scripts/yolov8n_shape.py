"""Writes a network of YOLOv8n's shape with random weights, and its card: something larger than NanoDet to measure with.

    python scripts/yolov8n_shape.py FOLDER

The layers are those that the architecture is known for: convolutions with SiLU, C2f blocks, SPPF, a two-way feature
pyramid and a head of distance distributions; depth 0.33, width 0.25, 80 classes, input 640. What it finds is nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, CLASSES, BINS = 640, 80, 16
STRIDES = (8, 16, 32)
SCORE_BIAS = -0.71
"""So that some tens of the candidates reach a score of 0.5."""
CARD = f"""name: yolov8n-shape
file: yolov8n-shape.onnx
input: {{name: images, width: {SIZE}, height: {SIZE}, color: rgb, mean: [0, 0, 0], std: [255, 255, 255]}}
decoder: {{name: boxes_scores}}
thresholds: {{score: 0.5, iou: 0.6}}
labels: [{", ".join(f"class{number}" for number in range(CLASSES))}]
max_batch: 16
description: YOLOv8n's shape with random weights, for benchmarks
"""


class Graph:
    """Collects nodes and weights; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._random = np.random.default_rng(8)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """A constant."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def convolution(self, x: str, inside: int, out: int, kernel: int = 1, stride: int = 1, bias: float = 0.0) -> str:
        """A convolution; its weights keep the variance of what goes through."""
        scale = np.sqrt(2.3 / (inside * kernel * kernel))
        weight = self._random.standard_normal((out, inside, kernel, kernel)) * scale
        pad = [kernel // 2] * 4
        biases = self.constant(np.full(out, bias))
        return self.op(
            "Conv", x, self.constant(weight), biases, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pad
        )

    def block(self, x: str, inside: int, out: int, kernel: int = 1, stride: int = 1) -> str:
        """Convolution and SiLU."""
        y = self.convolution(x, inside, out, kernel, stride)
        return self.op("Mul", y, self.op("Sigmoid", y))

    def c2f(self, x: str, inside: int, out: int, repeats: int, shortcut: bool) -> str:
        """Half of the channels go through bottlenecks, and every step of theirs is kept."""
        half = out // 2
        y = self.block(x, inside, out)
        first = self.op("Slice", y, *(self.constant(v, np.int64) for v in ([0], [half], [1])))
        last = self.op("Slice", y, *(self.constant(v, np.int64) for v in ([half], [out], [1])))
        parts = [first, last]
        for _ in range(repeats):
            z = self.block(self.block(parts[-1], half, half, 3), half, half, 3)
            parts.append(self.op("Add", parts[-1], z) if shortcut else z)
        return self.block(self.op("Concat", *parts, axis=1), half * len(parts), out)

    def sppf(self, x: str, channels: int) -> str:
        """Three max pools in a row, all kept."""
        parts = [self.block(x, channels, channels // 2)]
        for _ in range(3):
            parts.append(self.op("MaxPool", parts[-1], kernel_shape=[5, 5], pads=[2] * 4, strides=[1, 1]))
        return self.block(self.op("Concat", *parts, axis=1), channels * 2, channels)

    def upsample(self, x: str) -> str:
        """Twice the size, nearest neighbour."""
        return self.op("Resize", x, "", self.constant([1, 1, 2, 2]), mode="nearest")

    def join(self, *parts: str) -> str:
        """Channels of all."""
        return self.op("Concat", *parts, axis=1)


def backbone(g: Graph) -> tuple[str, str, str]:
    """Features at strides 8, 16, 32, with 64, 128 and 256 channels."""
    x = g.block(g.block("images", 3, 16, 3, 2), 16, 32, 3, 2)
    x = g.c2f(x, 32, 32, 1, True)
    p3 = g.c2f(g.block(x, 32, 64, 3, 2), 64, 64, 2, True)
    p4 = g.c2f(g.block(p3, 64, 128, 3, 2), 128, 128, 2, True)
    p5 = g.c2f(g.block(p4, 128, 256, 3, 2), 256, 256, 1, True)
    return p3, p4, g.sppf(p5, 256)


def neck(g: Graph, p3: str, p4: str, p5: str) -> tuple[str, str, str]:
    """Down and up again, with the same channels."""
    middle = g.c2f(g.join(g.upsample(p5), p4), 384, 128, 1, False)
    small = g.c2f(g.join(g.upsample(middle), p3), 192, 64, 1, False)
    medium = g.c2f(g.join(g.block(small, 64, 64, 3, 2), middle), 192, 128, 1, False)
    large = g.c2f(g.join(g.block(medium, 128, 128, 3, 2), p5), 384, 256, 1, False)
    return small, medium, large


def head(g: Graph, features: tuple[str, str, str]) -> tuple[str, str]:
    """boxes (N, 8400, 4) in input pixels and scores (N, 8400, 80)."""
    distances, scores, centres, strides = [], [], [], []
    for feature, channels, stride in zip(features, (64, 128, 256), STRIDES, strict=True):
        cells = (SIZE // stride) ** 2
        box = g.convolution(g.block(g.block(feature, channels, 64, 3), 64, 64, 3), 64, 4 * BINS)
        score = g.convolution(g.block(g.block(feature, channels, 80, 3), 80, 80, 3), 80, CLASSES, bias=SCORE_BIAS)
        distances.append(g.op("Reshape", box, g.constant([0, 4 * BINS, cells], np.int64)))
        scores.append(g.op("Reshape", score, g.constant([0, CLASSES, cells], np.int64)))
        ys, xs = np.divmod(np.arange(cells), SIZE // stride)
        centres.append((np.stack([xs, ys], axis=1) + 0.5) * stride)
        strides.append(np.full((cells, 1), stride))
    cells = sum((SIZE // stride) ** 2 for stride in STRIDES)
    bins = g.op("Reshape", g.op("Concat", *distances, axis=2), g.constant([0, 4, BINS, cells], np.int64))
    share = g.op("Softmax", g.op("Transpose", bins, perm=[0, 3, 1, 2]), axis=3)
    sides = g.op("MatMul", share, g.constant(np.arange(BINS)[:, None]))
    sides = g.op("Reshape", sides, g.constant([0, cells, 4], np.int64))
    sides = g.op("Mul", sides, g.constant(np.concatenate(strides)[None] * np.array([-1, -1, 1, 1])))
    boxes = g.op("Add", sides, g.constant(np.tile(np.concatenate(centres), 2)[None]))
    return boxes, g.op("Sigmoid", g.op("Transpose", g.op("Concat", *scores, axis=2), perm=[0, 2, 1]))


def main(folder: Path) -> None:
    """Writes the network and its card."""
    g = Graph()
    boxes, scores = head(g, neck(g, *backbone(g)))
    for name, node in (("boxes", boxes), ("scores", scores)):
        g.nodes.append(helper.make_node("Identity", [node], [name]))
    cells = sum((SIZE // stride) ** 2 for stride in STRIDES)
    graph = helper.make_graph(
        g.nodes,
        "yolov8n-shape",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", cells, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", cells, CLASSES]),
        ],
        g.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / "yolov8n-shape.onnx"))
    (folder / "yolov8n-shape.yaml").write_text(CARD)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
