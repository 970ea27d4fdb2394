"""Networks that a stranger made: without an end, of gigabytes, reading elsewhere, or no networks at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from onnx import AttributeProto, TensorProto, helper, numpy_helper, save

from tests.test_reload import network

GIB = 1 << 28
"""So many floats."""


def good(folder: Path) -> str:
    """The network that serves. It sees one thing, always."""
    return network(folder, "good", ["thing", "person"], [16, 14, 48, 50])


def hostile(folder: Path) -> list[str]:
    """The paths of all the others."""
    node = helper.make_node
    body = helper.make_graph(
        [node("Identity", ["c"], ["still"]), node("Add", ["v", "one"], ["more"])],
        "body",
        [helper.make_tensor_value_info(*item, []) for item in (("i", 7), ("c", 9), ("v", 1))],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []), helper.make_tensor_value_info("more", 1, [])],
        [numpy_helper.from_array(np.asarray(np.float32(1)), "one")],
    )
    loop = [node("Cast", ["mean"], ["bright"], to=TensorProto.BOOL)]
    loop.append(node("Loop", ["", "yes", "mean"], ["nothing"], body=body))
    swell = [node("Expand", ["mean", "big"], ["wide"]), node("ReduceMean", ["wide"], ["nothing"], keepdims=0)]
    fold = [node("Expand", ["zero", "big"], ["wide"]), node("ReduceSum", ["wide"], ["sum"], keepdims=0)]
    fold.append(node("Add", ["mean", "sum"], ["nothing"]))
    big = np.array([4 * GIB], np.int64)
    return [
        _write(folder, "endless", loop, yes=np.array(True)),
        _write(folder, "swelling", swell, big=big),
        _write(folder, "folding", fold, big=big),
        _elsewhere(folder),
        *_rubbish(folder),
    ]


def _write(folder: Path, name: str, nodes: list[Any], **constants: Any) -> str:
    """`nodes` make a number called `nothing` of the mean of the picture."""
    constants |= {"zero": np.float32(0), "b": np.zeros((1, 1, 4), np.float32), "s": np.zeros((1, 1, 2), np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
            *nodes,
            helper.make_node("Mul", ["nothing", "zero"], ["z"]),
            helper.make_node("Add", ["b", "z"], ["boxes"]),
            helper.make_node("Add", ["s", "z"], ["scores"]),
        ],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64, 64])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 1, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1, 2]),
        ],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    return _save(folder, name, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))


def _elsewhere(folder: Path) -> str:
    """Gives a file of the system: its bytes are the default of a function's attribute."""
    count = 12
    weights = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[count], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="../" * 12 + "etc/passwd")
    weights.external_data.add(key="length", value=str(count))
    constant = helper.make_node("Constant", [], ["c"])
    constant.attribute.add(name="value", type=AttributeProto.TENSOR, ref_attr_name="bytes")
    nodes = [constant, helper.make_node("Cast", ["c"], ["f"], to=TensorProto.FLOAT)]
    nodes.append(helper.make_node("Add", ["x", "f"], ["y"]))
    function = helper.make_function("d", "Read", ["x"], ["y"], nodes, [helper.make_opsetid("", 17)])
    function.attribute_proto.add(name="bytes", type=AttributeProto.TENSOR).t.CopyFrom(weights)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [count]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Read", ["x"], ["y"], domain="d")], "g", [x], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=9)
    return _save(folder, "elsewhere", model)


def _rubbish(folder: Path) -> list[str]:
    whole = (folder / "good.onnx").read_bytes()
    found = []
    for name, data in (("cut", whole[: len(whole) // 2]), ("zeros", bytes(4096)), ("empty", b"")):
        (folder / f"{name}.onnx").write_bytes(data)
        found.append(_card(folder, name))
    return found


def _save(folder: Path, name: str, model: Any) -> str:
    save(model, folder / f"{name}.onnx")
    return _card(folder, name)


def _card(folder: Path, name: str) -> str:
    look = {"name": "x", "width": 64, "height": 64, "color": "rgb", "mean": [0, 0, 0], "std": [1, 1, 1]}
    card = {"name": name, "labels": ["a", "b"], "decoder": {"name": "boxes_scores"}, "input": look}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**card, "file": f"{name}.onnx"}))
    return str(folder / f"{name}.onnx")
