"""Networks that a stranger made: what they try, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeinfer.errors import InputError
from edgeinfer.models.onnxfile import check_external, identify, read_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
READS_ANYTHING = (1, 24)
"""ONNX Runtime looks itself from this version on where a function's weights lie."""


def reader_of(location: str, count: int) -> Any:
    """A network that gives the first `count` bytes of a file: they are the default of a function's attribute."""
    helper, types = onnx.helper, onnx.TensorProto
    weights = types(name="w", data_type=types.UINT8, dims=[count], data_location=types.EXTERNAL)
    weights.external_data.add(key="location", value=location)
    weights.external_data.add(key="length", value=str(count))
    constant = helper.make_node("Constant", [], ["c"])
    constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, ref_attr_name="bytes")
    nodes = [
        constant,
        helper.make_node("Cast", ["c"], ["f"], to=types.FLOAT),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]
    function = helper.make_function("d", "Read", ["x"], ["y"], nodes, [helper.make_opsetid("", 17)])
    function.attribute_proto.add(name="bytes", type=onnx.AttributeProto.TENSOR).t.CopyFrom(weights)
    x, y = (helper.make_tensor_value_info(name, types.FLOAT, [count]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Read", ["x"], ["y"], domain="d")], "g", [x], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=9)


def test_a_functions_default_can_not_read_elsewhere(tmp_path: Path) -> None:
    """With an ONNX Runtime that is old enough it would, which shows that the network is a real one."""
    (tmp_path / "secret").write_bytes(b"the password")
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "m.onnx"
    onnx.save(reader_of("../secret", 12), path)
    for look in (check_external, identify, read_model):
        with pytest.raises(InputError, match="outside the model's folder"):
            look(path)
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < READS_ANYTHING:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (read,) = session.run(None, {"x": np.zeros(12, np.float32)})
        assert bytes(read.astype(np.uint8)) == b"the password"
