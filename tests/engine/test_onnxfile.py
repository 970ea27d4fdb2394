"""The look into ONNX files, against the onnx library and against rubbish."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeinfer.errors import InputError
from edgeinfer.guard.limits import MAX_GRAPH_DEPTH
from edgeinfer.models.onnxfile import ELEMENT_TYPES, Tensor, check_external, file_digest, read_model
from tests.engine.samples import NANODET

anywhere = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_the_vendored_network() -> None:
    model = read_model(NANODET)
    assert model.inputs == (Tensor("images", (-1, 3, 416, 416), "float32"),)
    assert model.outputs == (Tensor("boxes", (-1, 3549, 4), "float32"), Tensor("scores", (-1, 3549, 80), "float32"))
    assert model.digest == hashlib.sha256(NANODET.read_bytes()).hexdigest()
    assert (model.opset, len(model.nodes), model.quantized, model.half) == (17, 193, False, False)


@given(st.binary(max_size=200))
@anywhere
def test_rubbish_is_an_input_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(InputError, match="no ONNX model"):
        read_model(path)


@given(st.data())
@anywhere
def test_a_cut_or_flipped_model_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    onnx = pytest.importorskip("onnx")
    whole = bytearray(_network(onnx).SerializeToString())
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[position] ^= data.draw(st.integers(1, 255))
    written = bytes(whole[: data.draw(st.integers(1, len(whole)))])
    path = tmp_path / "m.onnx"
    path.write_bytes(written)
    try:
        model = read_model(path)
    except InputError:
        return
    assert model.inputs, "what is read can be fed"
    assert model.outputs
    assert model.digest == hashlib.sha256(written).hexdigest()


def _network(onnx: Any) -> Any:
    from onnx import TensorProto, helper  # noqa: PLC0415 (an optional library)

    weight = helper.make_tensor("w", TensorProto.FLOAT16, [2], [1.0, 2.0])
    nodes = [
        helper.make_node("Add", ["x", "w"], ["s"], name="add"),
        helper.make_node("QuantizeLinear", ["s", "w"], ["y"], name="quantize"),
    ]
    value = helper.make_tensor_value_info
    # The initializer is listed as an input too, as old exporters do.
    inputs = [value("x", TensorProto.FLOAT16, ["N", 2]), value("w", TensorProto.FLOAT16, [2])]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", TensorProto.INT8, None)], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])


def test_types_nodes_and_inputs(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnx.save(_network(onnx), tmp_path / "m.onnx")
    model = read_model(tmp_path / "m.onnx")
    assert model.inputs == (Tensor("x", (-1, 2), "float16"),)
    assert [(node.name, node.operator) for node in model.nodes] == [("add", "Add"), ("quantize", "QuantizeLinear")]
    assert model.quantized
    assert model.half
    assert model.opset == 19


def test_external_data_is_part_of_the_model(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx.external_data_helper import convert_model_to_external_data  # noqa: PLC0415

    network = onnx.load(NANODET)
    convert_model_to_external_data(network, location="w.bin", size_threshold=1024)
    onnx.save(network, tmp_path / "m.onnx")
    model = read_model(tmp_path / "m.onnx")
    assert model.external == (("w.bin", hashlib.sha256((tmp_path / "w.bin").read_bytes()).hexdigest()),)
    (tmp_path / "w.bin").rename(tmp_path / "gone")
    with pytest.raises(InputError, match=r"w\.bin: can't be read"):
        read_model(tmp_path / "m.onnx")


def write_external(path: Path, *locations: str, location_flag: bool = True) -> None:
    """A network whose weight lies elsewhere."""
    onnx = pytest.importorskip("onnx")
    network = _network(onnx)
    tensor = network.graph.initializer[0]
    tensor.ClearField("int32_data")
    if location_flag:
        tensor.data_location = onnx.TensorProto.EXTERNAL
    for location in locations:
        tensor.external_data.add(key="location", value=location)
    path.write_bytes(network.SerializeToString())


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("../secret", "outside the model's folder"),
        ("below/../../secret", "outside the model's folder"),
        ("below/../w.bin", "outside the model's folder"),
        ("/etc/passwd", "outside the model's folder"),
        ("link", "symbolic link"),
        ("linked/w.bin", "symbolic link"),
        ("below", "no regular file"),
        ("pipe", "no regular file"),
        ("none", "can't be read"),
        ("*/_ORT_MEM_ADDR_/*", "is no name for an external file"),
    ],
)
@pytest.mark.parametrize("look", [read_model, check_external])
def test_external_data_outside_the_folder_is_refused(
    tmp_path: Path, location: str, says: str, look: Callable[[Path], object]
) -> None:
    folder = tmp_path / "models"
    (folder / "below").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "linked").symlink_to(folder / "below")
    (folder / "below" / "w.bin").write_bytes(b"1234")
    os.mkfifo(folder / "pipe")
    write_external(folder / "m.onnx", location)
    with pytest.raises(InputError, match=says):
        look(folder / "m.onnx")


def test_external_data_below_the_folder_is_fine(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "w.bin").write_bytes(b"1234")
    write_external(tmp_path / "m.onnx", "below/w.bin")
    check_external(tmp_path / "m.onnx")
    assert read_model(tmp_path / "m.onnx").external == (("below/w.bin", hashlib.sha256(b"1234").hexdigest()),)


def test_a_location_counts_however_it_is_marked(tmp_path: Path) -> None:
    write_external(tmp_path / "m.onnx", "../secret", location_flag=False)
    with pytest.raises(InputError, match="outside the model's folder"):
        check_external(tmp_path / "m.onnx")


def test_two_locations_of_one_tensor(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"1234")
    write_external(tmp_path / "m.onnx", "w.bin", "../secret")
    with pytest.raises(InputError, match="two external files"):
        check_external(tmp_path / "m.onnx")


def test_a_model_that_is_too_large_or_no_file(tmp_path: Path) -> None:
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(3 << 30)  # takes no room on the disk
    os.mkfifo(tmp_path / "pipe.onnx")
    for look in (read_model, check_external):
        with pytest.raises(InputError, match="larger than 2 GiB"):
            look(tmp_path / "m.onnx")
        with pytest.raises(InputError, match="not a regular file"):
            look(tmp_path / "pipe.onnx")


def hidden(helper: Any, tensor: Any, place: str) -> Any:
    """A network with `tensor` somewhere that is no initializer of the main graph."""
    value = helper.make_tensor_value_info
    shapes = [value("x", 1, [2])], [value("y", 1, [2])]
    inner = helper.make_graph([helper.make_node("Identity", ["w"], ["z"])], "i", [], [value("z", 1, [2])], [tensor])
    whole = helper.make_tensor("o", 1, [1], [1.0])
    sparse = {"sparse values": (tensor, whole), "sparse indices": (whole, tensor), "sparse attribute": (tensor, whole)}
    made = helper.make_sparse_tensor(*sparse.get(place, (whole, whole)), [2])
    node = helper.make_node("Thing", ["x"], ["y"])
    attributes = {
        "tensor": tensor,
        "tensors": [tensor],
        "graph": inner,
        "graphs": [inner],
        "graph in a graph": helper.make_graph(
            [helper.make_node("If", ["c"], ["z"], then_branch=inner)], "o", [], [value("z", 1, [2])]
        ),
        "sparse attribute": made,
        "sparse attributes": [helper.make_sparse_tensor(tensor, whole, [2])],
    }
    if place in attributes:
        node.attribute.append(helper.make_attribute("a", attributes[place]))
    graph = helper.make_graph([node], "g", *shapes)
    if place in ("sparse values", "sparse indices"):
        graph.sparse_initializer.append(made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    if place == "function":
        inside = [helper.make_node("Constant", [], ["y"], value=tensor)]
        model.functions.append(helper.make_function("d", "F", ["x"], ["y"], inside, [helper.make_opsetid("", 17)]))
    return model


@pytest.mark.parametrize(
    "place",
    [
        "sparse values",
        "sparse indices",
        "tensor",
        "tensors",
        "graph",
        "graphs",
        "graph in a graph",
        "sparse attribute",
        "sparse attributes",
        "function",
    ],
)
def test_external_data_is_found_wherever_it_hides(tmp_path: Path, place: str) -> None:
    onnx = pytest.importorskip("onnx")
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT16, [2], [1.0, 2.0])
    tensor.ClearField("int32_data")
    tensor.external_data.add(key="location", value="w.bin")
    path = tmp_path / "m.onnx"
    path.write_bytes(hidden(onnx.helper, tensor, place).SerializeToString())
    with pytest.raises(InputError, match=r"w\.bin: can't be read"):
        check_external(path)
    (tmp_path / "w.bin").write_bytes(b"1234")
    check_external(path)
    model = read_model(path)
    assert model.external == (("w.bin", hashlib.sha256(b"1234").hexdigest()),)
    assert "float16" in model.weight_types


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    graph = helper.make_graph([], "g", [], [])
    for depth in range(1, MAX_GRAPH_DEPTH + 1):
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
        check_external(tmp_path / "m.onnx")
        node = helper.make_node("If", ["c"], ["y"])
        node.attribute.append(helper.make_attribute("then_branch", graph))
        graph = helper.make_graph([node], f"g{depth}", [], [])
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(InputError, match="graphs nested more than 32 deep"):
        check_external(tmp_path / "m.onnx")


def test_element_types_are_those_of_the_standard() -> None:
    onnx = pytest.importorskip("onnx")
    ours = {"float32": "FLOAT", "float64": "DOUBLE"}
    known = set(onnx.TensorProto.DataType.values())  # an older library knows fewer
    assert len(known & set(ELEMENT_TYPES)) >= 10
    assert {code: ours.get(name, name.upper()) for code, name in ELEMENT_TYPES.items() if code in known} == {
        code: onnx.TensorProto.DataType.Name(code) for code in ELEMENT_TYPES if code in known
    }


def test_the_opset_is_that_of_the_standard_domain(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    network = _network(onnx)
    for domains, opset in (((("ai.onnx.ml", 3), ("", 18)), 18), ((("ai.onnx", 12),), 12), ((("other", 5),), 0)):
        del network.opset_import[:]
        network.opset_import.extend(onnx.helper.make_opsetid(*domain) for domain in domains)
        (tmp_path / "m.onnx").write_bytes(network.SerializeToString())
        assert read_model(tmp_path / "m.onnx").opset == opset


def test_a_network_without_inputs_or_outputs_is_none(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for field in ("input", "output"):
        network = _network(onnx)
        del getattr(network.graph, field)[:]
        (tmp_path / "m.onnx").write_bytes(network.SerializeToString())
        with pytest.raises(InputError, match="no inputs or no outputs"):
            read_model(tmp_path / "m.onnx")


def test_a_file_that_is_not_there_or_empty_or_exactly_too_large(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m\.onnx: can't be read \(No such file"):
        read_model(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="it is empty"):
        read_model(tmp_path / "m.onnx")
    assert file_digest(tmp_path / "m.onnx") == hashlib.sha256().hexdigest()
    (tmp_path / "m.onnx").write_bytes(b"x" * ((1 << 20) + 5))
    assert file_digest(tmp_path / "m.onnx") == hashlib.sha256(b"x" * ((1 << 20) + 5)).hexdigest()
