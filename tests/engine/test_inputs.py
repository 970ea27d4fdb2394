"""Inputs for calibration and verification, and the files that are converted with them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeinfer.engine.build import calibrate, convert, samples
from edgeinfer.engine.build.samples import SampleSource
from edgeinfer.errors import InputError, UnavailableError
from tests.engine.samples import model


def test_files_are_picked_evenly(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for number in range(9):
        (tmp_path / f"{number}.npy").write_bytes(b"")
    (tmp_path / "below/z.JPG").write_bytes(b"")
    (tmp_path / "note.txt").write_bytes(b"")

    def picked(limit: int) -> list[str]:
        return [path.name for path in samples.files(SampleSource(str(tmp_path), limit=limit))]

    assert picked(10) == [*(f"{n}.npy" for n in range(9)), "z.JPG"]
    assert picked(4) == ["0.npy", "3.npy", "6.npy", "z.JPG"]
    assert picked(5) == ["0.npy", "2.npy", "4.npy", "6.npy", "8.npy"]
    assert picked(9) == ["0.npy", "2.npy", "4.npy", "6.npy", "8.npy"]
    assert SampleSource("/x").limit == 512
    assert [p.name for p in samples.files(SampleSource(str(tmp_path / "3.npy")))] == ["3.npy"]


def test_a_recording_longer_than_the_batch_is_cut_and_a_shorter_one_repeated(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3 * 192, dtype=np.float32).reshape(3, 3, 8, 8))
    for batch, firsts in ((1, [0]), (2, [0, 192]), (4, [0, 192, 384, 0])):
        (sample,) = samples.load(SampleSource(str(tmp_path)), model(), {"x": (batch, 3, 8, 8)})
        assert sample["x"][:, 0, 0, 0].tolist() == firsts


def test_a_recording_without_an_input_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", other=np.zeros(3))
    with pytest.raises(InputError, match=r"holds nothing for input 'x' of shape \(1, 3, 8, 8\)"):
        list(samples.load(SampleSource(str(tmp_path)), model(), {"x": (1, 3, 8, 8)}))
    np.save(tmp_path / "a.npz.npy", np.zeros((0, 3, 8, 8)))
    (tmp_path / "a.npz").unlink()
    with pytest.raises(InputError, match=r"holds shape \(0, 3, 8, 8\)"):
        list(samples.load(SampleSource(str(tmp_path)), model(), {"x": (1, 3, 8, 8)}))


def test_noise_is_smooth_and_the_same_every_time() -> None:
    shapes: dict[str, tuple[int, ...]] = {"x": (2, 3, 32, 32)}
    one, other = (list(samples.noise(model(), shapes, 3)) for _ in range(2))
    assert len(one) == 3
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a["x"], b["x"])
        assert a["x"].dtype == np.float32
        assert 0 <= a["x"].min() < a["x"].max() <= 1
        assert np.abs(np.diff(a["x"], axis=3)).mean() < 0.2, "raw noise differs by a third"
    assert not np.array_equal(one[0]["x"], one[1]["x"])


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 3, 8), (1, 3)])
def test_what_takes_no_pictures_is_told(tmp_path: Path, shape: tuple[int, ...]) -> None:
    (tmp_path / "p.png").write_bytes(b"x")
    assert samples.plain_input(model(), {"x": shape}) is None
    with pytest.raises(InputError, match="can't be the input of"):
        list(samples.load(SampleSource(str(tmp_path)), model(), {"x": shape}))


# --- conversion


@pytest.fixture(scope="session")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that doubles its input, with some bias."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper  # noqa: PLC0415

    value = helper.make_tensor_value_info
    two = helper.make_tensor("two", TensorProto.FLOAT, [4, 4], np.diag([2, 4, 8, 16]).astype(np.float32).ravel())
    nodes = [helper.make_node("MatMul", ["x", "two"], ["y"], name="matmul")]
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["N", 4])], [value("y", 1, ["N", 4])], [two])
    path = tmp_path_factory.mktemp("models") / "double.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_half_file_keeps_its_inputs_and_outputs(double: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxconverter_common")
    convert.to_half(double, tmp_path / "half.onnx")
    made = onnx.load(tmp_path / "half.onnx")
    assert [v.type.tensor_type.elem_type for v in (*made.graph.input, *made.graph.output)] == [1, 1]
    assert {t.data_type for t in made.graph.initializer} == {10}
    assert len({node.name for node in made.graph.node}) == len(made.graph.node)


@pytest.mark.parametrize("calibrator", ["entropy", "minmax"])
def test_a_quantized_file_is_symmetric_per_channel_and_signed(double: Path, tmp_path: Path, calibrator: str) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    inputs = [{"x": np.full((1, 4), n, np.float32)} for n in (1, 2, 3)]
    convert.to_qdq(double, tmp_path / "q.onnx", inputs, calibrator)
    made = onnx.load(tmp_path / "q.onnx")
    values = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    zeros = [v for name, v in values.items() if "zero_point" in name]
    assert zeros
    assert all(not v.any() and v.dtype == np.int8 for v in zeros)
    assert {v.size for name, v in values.items() if name.endswith("_scale")} == {1, 4}
    scale = float(values["x_scale"])
    assert scale == pytest.approx(3 / 127, rel=0.02), "of the largest input"


def test_the_calibrators_name_reaches_the_quantizer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    seen: list[Any] = []
    monkeypatch.setattr(quantization, "quantize_static", lambda *_, **known: seen.append(known["calibrate_method"]))
    for name in ("entropy", "minmax"):
        convert.to_qdq(tmp_path, tmp_path, [], name)
    assert seen == [quantization.CalibrationMethod.Entropy, quantization.CalibrationMethod.MinMax]


def test_a_missing_converter_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnavailableError, match=r"to convert that onnx is needed.*pip install 'edgeinfer\[build\]'"):
        convert.to_half(tmp_path, tmp_path)


def test_a_helper_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x"
    calibrate.replace(path, b"one")
    calibrate.replace(path, b"two")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"two", [path])
    calibrate.replace(tmp_path / "none/x", b"lost")
    assert not (tmp_path / "none").exists()
