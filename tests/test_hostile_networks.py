"""Networks that a stranger made: what they try, and what becomes of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgeinfer.backends import _trial, _verdicts
from edgeinfer.backends import onnxruntime as backend
from edgeinfer.backends._trial import TrialLimits
from edgeinfer.backends._verdicts import Verdicts
from edgeinfer.config.card import load_model
from edgeinfer.daemon.background import Background
from edgeinfer.errors import InputError, TemporaryError
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


# --- networks that swell, or have no end ---


def write(folder: Path, name: str, nodes: list[Any], size: int = 64, **constants: Any) -> Path:
    """A network whose `nodes` make a number called `nothing` of the mean of the picture, and its card."""
    helper, types = onnx.helper, onnx.TensorProto
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
        [helper.make_tensor_value_info("x", types.FLOAT, [1, 3, size, size])],
        [
            helper.make_tensor_value_info("boxes", types.FLOAT, [1, 1, 4]),
            helper.make_tensor_value_info("scores", types.FLOAT, [1, 1, 2]),
        ],
        [onnx.numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    look = {"name": "x", "width": size, "height": size, "color": "rgb", "mean": [0, 0, 0], "std": [1, 1, 1]}
    card = {"name": name, "file": path.name, "labels": ["a", "b"], "decoder": {"name": "boxes_scores"}, "input": look}
    path.with_suffix(".yaml").write_text(yaml.safe_dump(card))
    return path


def swelling(folder: Path, gib: float) -> Path:
    """365 bytes that want so much memory in the run."""
    node = onnx.helper.make_node
    nodes = [node("Expand", ["mean", "big"], ["wide"]), node("ReduceMean", ["wide"], ["nothing"], keepdims=0)]
    return write(folder, "swelling", nodes, big=np.array([int(gib * (1 << 28))], np.int64))


def folding(folder: Path, gib: float) -> Path:
    """The same while it is loaded: constants are worked out then."""
    node = onnx.helper.make_node
    nodes = [
        node("Expand", ["zero", "big"], ["wide"]),
        node("ReduceSum", ["wide"], ["sum"], keepdims=0),
        node("Add", ["mean", "sum"], ["nothing"]),
    ]
    return write(folder, "folding", nodes, big=np.array([int(gib * (1 << 28))], np.int64))


def endless(folder: Path, on: str = "yes") -> Path:
    """A loop that goes on for ever; or as long as the value `on` of the network is true."""
    helper, types = onnx.helper, onnx.TensorProto
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["still"]), helper.make_node("Add", ["v", "one"], ["more"])],
        "body",
        [helper.make_tensor_value_info(*item, []) for item in (("i", 7), ("c", 9), ("v", 1))],
        [helper.make_tensor_value_info("still", types.BOOL, []), helper.make_tensor_value_info("more", 1, [])],
        [onnx.numpy_helper.from_array(np.asarray(np.float32(1)), "one")],
    )
    nodes = [
        helper.make_node("Cast", ["mean"], ["bright"], to=types.BOOL),
        helper.make_node("Loop", ["", on, "mean"], ["nothing"], body=body),
    ]
    return write(folder, "endless", nodes, yes=np.array(True))


@pytest.fixture(autouse=True)
def nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Every child that was started for a trial."""
    started: list[subprocess.Popen[bytes]] = []
    start = _trial._start

    def spy(request: Any) -> subprocess.Popen[bytes]:
        started.append(start(request))
        return started[-1]

    monkeypatch.setattr(_trial, "_start", spy)
    return started


def tried(path: Path, cancel: threading.Event | None = None, **options: Any) -> None:
    chosen = backend.Options(threads=1, **options)
    backend.try_out(load_model(str(path)), None, chosen, cancel or threading.Event())


@pytest.mark.slow
@pytest.mark.parametrize("make", [swelling, folding])
def test_a_network_that_swells_is_refused_before_it_is_loaded(tmp_path: Path, make: Any, children: list[Any]) -> None:
    with pytest.raises(InputError, match=r"the network needs more than 0\.25 GiB of memory; use smaller batches"):
        tried(make(tmp_path, 0.5), memory_mb=256)
    assert children[0].returncode is not None
    tried(make(tmp_path, 1 / 1024), memory_mb=256)


def test_the_usual_budget_is_three_gibibytes_and_four_times_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "w"
    file.write_bytes(bytes(1000))
    monkeypatch.setattr(_trial, "total_bytes", lambda: 64 << 30)
    assert _trial.usual_limits([file, file]) == TrialLimits((3 << 30) + 8000, 60)
    monkeypatch.setattr(_trial, "total_bytes", lambda: 4 << 30)
    assert _trial.usual_limits([file]).memory_bytes == 2 << 30


@pytest.mark.slow
def test_a_network_without_an_end_is_given_up(tmp_path: Path, children: list[Any]) -> None:
    with pytest.raises(InputError, match=r"the network gave no result within 1 s when it was tried"):
        tried(endless(tmp_path), trial_s=1)
    assert children[0].returncode is not None


def test_a_trial_that_nobody_waits_for_is_over_at_once(tmp_path: Path, children: list[Any]) -> None:
    cancel = threading.Event()
    job = Background("trial", lambda _: tried(endless(tmp_path), cancel))
    wait(lambda: children)
    cancel.set()
    wait(lambda: not job.running)
    assert isinstance(job.outcome(), TemporaryError)
    assert children[0].returncode is not None


@pytest.mark.slow
def test_a_trial_never_outlives_the_daemon(tmp_path: Path) -> None:
    """The child holds its parent's pipe open as long as it lives."""
    path = endless(tmp_path)
    code = (
        "import threading, os\nfrom edgeinfer.backends import onnxruntime as backend, _trial\n"
        "from edgeinfer.config.card import load_model\n"
        "started = _trial._start\n"
        "def start(request):\n    child = started(request)\n    print(child.pid, flush=True)\n    return child\n"
        "_trial._start = start\n"
        f"backend.try_out(load_model({str(path)!r}), None, backend.Options(), threading.Event())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    wait(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])


@pytest.mark.slow
def test_a_network_that_ran_well_is_not_tried_again(tmp_path: Path, children: list[Any]) -> None:
    path = swelling(tmp_path, 1 / 1024)
    for _ in range(3):
        tried(path)
    assert len(children) == 1
    tried(path, memory_mb=512)
    assert len(children) == 2, "other limits are another question"
    tried(swelling(tmp_path, 2 / 1024))
    assert len(children) == 3, "another network too"


@pytest.mark.slow
def test_a_network_for_a_device_is_tried_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: list[Any]
) -> None:
    """What only the device can run passes; what swells does not."""
    on_device: list[tuple[str, dict[str, Any]]] = [("CUDAExecutionProvider", {})]
    with monkeypatch.context() as patch:
        patch.setattr(backend, "_providers", lambda options: on_device)
        path = write(tmp_path, "fused", [onnx.helper.make_node("Fused", ["mean"], ["nothing"], domain="of.a.device")])
        tried(path)
        with pytest.raises(InputError, match=r"needs more than 0\.25 GiB"):
            tried(swelling(tmp_path, 0.5), memory_mb=256)
    with pytest.raises(InputError, match="not a model that ONNX Runtime can load"):
        tried(path)
    assert len(children) == 3


def test_what_came_with_edgeinfer_is_not_tried(children: list[Any]) -> None:
    backend.try_out(load_model("nanodet-g"), None, backend.Options(), threading.Event())
    assert not children


def test_a_verdict_that_others_could_have_written_does_not_count(tmp_path: Path) -> None:
    verdicts = Verdicts()
    assert not verdicts.known("a", 1)
    verdicts.remember("a", 1)
    assert verdicts.known("a", 1)
    assert not verdicts.known("a", 2)
    (file,) = (tmp_path / "cache" / "trials").iterdir()
    for place in (file, file.parent, file.parent.parent):
        mode = place.stat().st_mode
        place.chmod(0o777)
        assert not verdicts.known("a", 1), place
        place.chmod(mode)
    assert verdicts.known("a", 1)
    file.write_bytes(b"ran")
    assert not verdicts.known("a", 1)
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(b"ran well\n")
    assert not verdicts.known("a", 1)


def test_without_a_cache_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    verdicts = Verdicts(tmp_path / "file")
    verdicts.remember("a")
    assert not verdicts.known("a")


def test_verdicts_are_bounded_in_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_verdicts, "MAX_VERDICTS", 3)
    verdicts = Verdicts()
    verdicts.remember("first")
    folder = tmp_path / "cache" / "trials"
    (folder / "notes").write_text("somebody's own")
    os.utime(next(folder.glob("?" * 64)), (0, 0))
    for number in range(3):
        verdicts.remember(number)
    assert len(list(folder.iterdir())) == 4
    assert (folder / "notes").exists()
    assert not verdicts.known("first")


def test_a_network_that_does_not_fit_its_card_is_told_by_the_one_that_loads_it(tmp_path: Path) -> None:
    path = swelling(tmp_path, 1 / 1024)
    path.with_suffix(".yaml").write_text(path.with_suffix(".yaml").read_text().replace("name: x", "name: other"))
    tried(path)


@pytest.mark.parametrize(
    ("end", "kind", "says"),
    [
        ("os.kill(os.getpid(), 11)", InputError, "ended with SIGSEGV when the network was tried"),
        ("os.abort()", InputError, "ended with SIGABRT when the network was tried"),
        ("os.kill(os.getpid(), 9)", TemporaryError, "killed, most likely for lack of memory"),
        ("os._exit(3)", InputError, "ended with exit code 3 when"),
        ("os.write(1, b'[1]')", InputError, "ended with exit code 0 when"),
    ],
)
def test_whatever_the_child_does_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, kind: type[Exception], says: str
) -> None:
    monkeypatch.setattr(_trial, "CHILD", f"import os; {end}")
    with pytest.raises(kind, match=says):
        tried(swelling(tmp_path, 1 / 1024))


def test_settings_in_a_networks_metadata_have_no_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this variable ONNX Runtime would take them, and write a profile into the working folder."""
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    monkeypatch.chdir(tmp_path)
    path = swelling(tmp_path, 1 / 1024)
    model = onnx.load(path)
    model.metadata_props.add(key="ort_config", value='{"session_options": {"enable_profiling": 1}}')
    onnx.save(model, path)
    opened = backend.open(load_model(str(path)), 1, backend.Options(threads=1))
    opened.close()
    assert not list(tmp_path.glob("onnxruntime_profile*"))


def test_a_network_whose_files_change_while_it_is_loaded_is_not_used(tmp_path: Path) -> None:
    model = load_model(str(swelling(tmp_path, 1 / 1024)))
    swelling(tmp_path, 2 / 1024)
    with pytest.raises(InputError, match="its files changed while it was loaded"):
        backend.open(model, 1, backend.Options(threads=1))


@pytest.mark.slow
def test_a_loop_that_only_some_pictures_start_ends_with_its_backend(tmp_path: Path) -> None:
    """Zeros run through; the picture of the rehearsal does not, and no thread is left behind."""
    path = endless(tmp_path, on="bright")
    tried(path)
    opened = backend.open(load_model(str(path)), 1, backend.Options(threads=1))
    slot = opened.acquire()
    assert slot is not None
    opened.load(slot, [np.full((64, 64, 3), 128, np.uint8)])
    opened.submit(slot)
    assert opened.collect(0.5) is None
    closing = threading.Thread(target=opened.close, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()


@pytest.mark.slow
def test_a_look_into_a_network_is_confined_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = write(tmp_path, "heavy", [onnx.helper.make_node("Identity", ["mean"], ["nothing"])], w=np.zeros(1 << 22))
    monkeypatch.setattr(backend, "usual_limits", lambda files: TrialLimits(16 << 20, 60))
    with pytest.raises(InputError, match=r"the network needs more than 0\.0156 GiB"):
        backend.specs(heavy)
    monkeypatch.undo()
    inputs, _ = backend.specs(folding(tmp_path, 1 / 1024))
    assert [(spec.name, spec.shape) for spec in inputs] == [("x", (1, 3, 64, 64))]


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
