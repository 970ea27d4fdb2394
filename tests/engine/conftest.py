"""A small network and inputs for it, which several files build with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeinfer.engine.build.samples import SampleSource


@pytest.fixture(scope="session")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that doubles its input of free batch."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper  # noqa: PLC0415

    value = helper.make_tensor_value_info
    two = helper.make_tensor("two", TensorProto.FLOAT, [4, 4], 2 * np.eye(4, dtype=np.float32).ravel())
    nodes = [helper.make_node("MatMul", ["x", "two"], ["y"], name="matmul")]
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["N", 4])], [value("y", 1, ["N", 4])], [two])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("models") / "double.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> SampleSource:
    """Three recorded inputs."""
    (tmp_path / "inputs").mkdir()
    for number in range(3):
        np.save(tmp_path / f"inputs/{number}.npy", np.full(4, number + 1, np.float32))
    return SampleSource(str(tmp_path / "inputs"))
