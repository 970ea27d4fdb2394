"""Finding TensorRT, progress, samples, errors in words, advice, and plans from elsewhere."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgeinfer.config.card import InputCard
from edgeinfer.daemon import selection
from edgeinfer.engine import diagnose, machine, toolkit
from edgeinfer.engine.build import samples, verify
from edgeinfer.engine.build.advice import advise
from edgeinfer.engine.build.builder import BuildOutcome
from edgeinfer.engine.build.ensure import ensure_task
from edgeinfer.engine.build.progress import BuildProgress, PhaseTree, by_clock
from edgeinfer.engine.build.protocol import BuildRequest
from edgeinfer.engine.build.samples import SampleSource
from edgeinfer.engine.build.task import Task, make_task
from edgeinfer.engine.errors import BuildError, BuildKilledError, CacheError, PlanError, UnsafeError
from edgeinfer.engine.options import BuildOptions
from edgeinfer.engine.store.cache import Cache, CachedEngine
from edgeinfer.engine.store.foreign import accept
from edgeinfer.engine.store.key import Target
from edgeinfer.engine.store.manifest import OutputError, Tolerance, encode
from edgeinfer.errors import InputError, UnavailableError
from edgeinfer.models.onnxfile import Tensor
from edgeinfer.preprocess.letterbox import Preprocessor
from edgeinfer.telemetry.bulletin import Bulletin
from tests.engine.plans import make_plan
from tests.engine.quick import quickly
from tests.engine.samples import NANODET, ORIN, manifest, model
from tests.engine.test_ensure import outcome, task

# --- finding TensorRT


def importer(**found: ModuleType | Exception) -> Any:
    def load(name: str) -> ModuleType:
        result = found.get(name, ModuleNotFoundError(f"No module named {name!r}", name=name))
        if isinstance(result, Exception):
            raise result
        return result

    return load


def fake_module(version: str) -> ModuleType:
    made = ModuleType("tensorrt")
    made.__version__ = version  # type: ignore[attr-defined]
    return made


def test_takes_whichever_module_there_is() -> None:
    found = toolkit.load("tensorrt", importer(tensorrt_bindings=fake_module("10.13.3.9")))
    assert (found.flavour, found.version, str(found)) == ("tensorrt", (10, 13, 3, 9), "TensorRT 10.13.3.9")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (None, "is not installed; on a Jetson make the venv with --system-site-packages"),
        (
            ImportError("libcudart.so.12: cannot open shared object file"),
            "is there, but can't be loaded: libcudart.so.12",
        ),
        (OSError("libnvinfer.so.8: undefined symbol"), "is there, but can't be loaded: libnvinfer.so.8"),
        (
            ModuleNotFoundError("No module named 'numpy'", name="numpy"),
            "is there, but can't be loaded: No module named 'numpy'",
        ),
        (AttributeError("module 'numpy' has no attribute 'bool'"), "is there, but can't be loaded: module 'numpy'"),
    ],
)
def test_says_what_is_missing(error: Exception | None, message: str) -> None:
    with pytest.raises(UnavailableError, match=message):
        toolkit.load("tensorrt", importer(**({"tensorrt": error} if error else {})))


def test_the_build_number_comes_from_the_library(tmp_path: Path) -> None:
    library = tmp_path / "libnvinfer.so.10"
    library.write_bytes(b"\x7fELF...tensorrt_version_10_3_0_30\0getInferLibVersion\0")
    maps = tmp_path / "maps"
    maps.write_text(f"7f00-7f01 r-xp 00000000 08:01 1 {library}\n7f02-7f03 r-xp 00000000 08:01 1 /usr/lib/libc.so.6\n")
    libraries = toolkit.loaded_libraries("tensorrt", maps)
    assert toolkit.full_version("10.3.0", libraries) == (10, 3, 0, 30)
    with pytest.raises(UnavailableError, match="does not tell its build number"):
        toolkit.full_version("10.7.0", toolkit.loaded_libraries("tensorrt", maps))
    with pytest.raises(UnavailableError, match="does not tell its build number"):
        toolkit.full_version("10.7.0", toolkit.loaded_libraries("tensorrt", tmp_path / "none"))


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic", "36.4.3"),
        ("# R35 (release), REVISION: 3.1", "35.3.1"),
        ("?", None),
        (None, None),
    ],
)
def test_the_jetson_release(text: str | None, release: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/nv_tegra_release").write_text(text + "\n")
    assert machine.l4t(tmp_path) == release


# --- progress


def test_nested_phases_add_up() -> None:
    told: list[float] = []
    tree = PhaseTree(lambda _, fraction: told.append(round(fraction, 3)))
    tree.start("all", None, 2)
    tree.start("part", "all", 4)
    for _ in range(4):
        tree.step("part")
    tree.finish("part")
    tree.step("all")
    tree.step("all")
    assert told == [0.125, 0.25, 0.375, 0.5, 1.0]


names = st.sampled_from(["a", "b", "c", "d"])


@given(
    st.lists(
        st.tuples(st.sampled_from(["start", "step", "finish"]), names, st.none() | names, st.integers(-1, 5)),
        max_size=40,
    )
)
def test_any_phases_give_a_growing_fraction(calls: list[tuple[str, str, str | None, int]]) -> None:
    told: list[float] = []
    tree = PhaseTree(lambda _, fraction: told.append(fraction))
    for call, name, parent, steps in calls:
        if call == "start":
            tree.start(name, parent, steps)
        else:
            getattr(tree, call)(name)
    assert told == sorted(told)
    assert all(0 < fraction <= 1 for fraction in told)


def test_the_clock_never_says_done() -> None:
    assert by_clock(5, 10) == 0.5
    assert by_clock(500, 10) == 0.99
    assert by_clock(5, None) is None


# --- samples


def test_arrays_are_taken_as_they_are(tmp_path: Path) -> None:
    values = np.arange(192, dtype=np.float64).reshape(3, 8, 8)
    np.save(tmp_path / "one.npy", values)
    np.savez(tmp_path / "two.npz", x=np.stack([values, values + 1]))
    loaded = list(samples.load(SampleSource(str(tmp_path)), model(), {"x": (2, 3, 8, 8)}))
    assert [sample["x"].dtype for sample in loaded] == [np.float32] * 2
    assert np.array_equal(loaded[0]["x"], np.stack([values, values]).astype(np.float32))
    assert np.array_equal(loaded[1]["x"][1], (values + 1).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"rubbish", "can't be read as an array"),
        ("a.jpg", b"rubbish", "can't be read as a picture"),
        ("a.txt", b"", "no pictures"),
    ],
)
def test_what_is_no_sample_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(samples.load(SampleSource(str(tmp_path)), model(), {"x": (1, 3, 8, 8)}))


def test_an_array_of_another_shape_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros((3, 8, 9)))
    with pytest.raises(InputError, match=r"one\.npy: holds shape \(3, 8, 9\) for input 'x' of shape \(1, 3, 8, 8\)"):
        list(samples.load(SampleSource(str(tmp_path)), model(), {"x": (1, 3, 8, 8)}))


PREPARED = InputCard(name="x", width=8, height=8, color="bgr", mean=[0.0, 0.0, 10.0], std=[1.0, 2.0, 1.0])


def save(path: Path, image: Any) -> None:
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(path), image)


def test_pictures_are_letterboxed_and_normalized(tmp_path: Path) -> None:
    picture = np.zeros((4, 8, 3), np.uint8)
    picture[:] = (10, 20, 30)  # blue, green, red
    save(tmp_path / "p.png", picture)
    (sample,) = samples.load(SampleSource(str(tmp_path), PREPARED), model(), {"x": (1, 3, 8, 8)})
    assert [sample["x"][0, channel, 4, 4] for channel in range(3)] == [10, 10, 20]
    assert [sample["x"][0, channel, 0, 0] for channel in range(3)] == [114, 57, 104]
    flat = msgspec.structs.replace(PREPARED, mean=[0.0] * 3, std=[1.0] * 3, color="rgb", resize="stretch")
    (stretched,) = samples.load(SampleSource(str(tmp_path), flat), model(), {"x": (1, 3, 8, 8)})
    assert [set(stretched["x"][0, channel].ravel()) for channel in range(3)] == [{30}, {20}, {10}]


def test_a_picture_without_a_card_is_rgb_from_0_to_1(tmp_path: Path) -> None:
    save(tmp_path / "p.png", np.full((8, 8, 3), (0, 51, 255), np.uint8))
    (sample,) = samples.load(SampleSource(str(tmp_path)), model(), {"x": (2, 3, 8, 8)})
    assert sample["x"].shape == (2, 3, 8, 8), "repeated, where the usual batch is larger"
    assert [set(sample["x"][:, channel].ravel()) for channel in range(3)] == [{1}, {np.float32(0.2)}, {0}]


def test_a_picture_takes_the_networks_size_where_the_card_has_another(tmp_path: Path) -> None:
    save(tmp_path / "p.png", np.full((8, 8, 3), 7, np.uint8))
    (sample,) = samples.load(SampleSource(str(tmp_path), PREPARED), model(), {"x": (1, 3, 4, 6)})
    assert sample["x"].shape == (1, 3, 4, 6)
    assert sample["x"][0, 0, 2, 3] == 7


SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40)) | st.sampled_from([(3599, 2), (1, 4000), (300, 200)])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SIZES, st.sampled_from(["bgr", "rgb"]), st.sampled_from(["letterbox", "stretch"]))
@example((2, 3599), "rgb", "letterbox")
def test_an_engine_is_checked_on_what_the_backend_makes_of_a_picture(
    tmp_path: Path, size: tuple[int, int], color: Any, resize: Any
) -> None:
    """Bit for bit, whatever its size."""
    width, height = size
    card = msgspec.structs.replace(PREPARED, width=12, height=20, color=color, resize=resize, fill=7)
    image = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    save(tmp_path / "p.png", image)
    expected = np.empty((3, 20, 12), np.float32)
    Preprocessor(card)(image, expected)
    (sample,) = samples.load(SampleSource(str(tmp_path), card), model(shape=(-1, 3, 20, 12)), {"x": (1, 3, 20, 12)})
    assert sample["x"].tobytes() == expected.tobytes()


CHANGED: dict[str, Any] = {
    "name": "y",
    "width": 9,
    "height": 9,
    "color": "rgb",
    "mean": [1.0, 0.0, 10.0],
    "std": [1.0, 2.0, 2.0],
    "resize": "stretch",
    "fill": 0,
}


def test_the_digest_stands_for_files_preparation_and_method(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"1")
    source = SampleSource(str(tmp_path), PREPARED)
    digests = {samples.digest(source, "entropy"), samples.digest(source, "minmax")}
    for name in InputCard.__struct_fields__:
        other = msgspec.structs.replace(PREPARED, **{name: CHANGED[name]})
        digests.add(samples.digest(SampleSource(str(tmp_path), other), "entropy"))
    (tmp_path / "a.npy").write_bytes(b"2")
    digests.add(samples.digest(source, "entropy"))
    (tmp_path / "b.npy").write_bytes(b"2")
    digests.add(samples.digest(source, "entropy"))
    assert len(digests) == 4 + len(CHANGED)
    assert len(samples.files(SampleSource(str(tmp_path), limit=1))) == 1


def test_the_digest_is_stable(tmp_path: Path) -> None:
    """A change here builds every INT8 engine in the field again."""
    (tmp_path / "a.npy").write_bytes(b"1")
    source = SampleSource(str(tmp_path), PREPARED)
    sent = msgspec.json.decode(msgspec.json.encode(source), type=SampleSource)
    assert sent == source
    digest = "f710b64f39eb44169fd723e80f399899cc10e9e4ce2f74a9b0ee31752e7606b7"
    assert samples.digest(source, "entropy") == samples.digest(sent, "entropy") == digest


# --- comparison


def test_errors_are_measured_in_the_outputs_own_unit() -> None:
    error = verify.difference(np.array([1.0, -4.0, np.inf]), np.array([1.5, -4.0, np.inf]))
    assert error == OutputError(0.5, 0.25, 4.0)
    assert verify.difference(np.zeros(3), np.array([0.0, 0.0, 3.0])) == OutputError(3.0, 1.0, 0.0)
    assert verify.within(error, Tolerance(0.125, 0.0625))
    assert not verify.within(error, Tolerance(0.12, 0.0625))
    assert not verify.within(error, Tolerance(0.125, 0.06))


def test_outputs_that_can_not_be_compared() -> None:
    assert verify.incomparable(np.zeros((2, 3)), np.zeros((2, 4))) == "has shape (2, 4) instead of (2, 3)"
    assert "no number" in verify.incomparable(np.zeros(2), np.array([0, np.nan]))
    assert verify.incomparable(np.array([np.inf]), np.array([np.inf])) == ""


def test_the_less_precise_the_more_is_let_pass() -> None:
    order = [verify.TOLERANCES[precision] for precision in ("fp32", "tf32", "fp16", "int8")]
    for closer, wider in itertools.pairwise(order):
        assert closer.max_error < wider.max_error
        assert closer.mean_error < wider.mean_error
    assert order[2] == Tolerance(0.05, 0.005)


def test_a_dead_output_never_passes() -> None:
    expected = np.random.default_rng(0).normal(size=1000)
    for tolerance in verify.TOLERANCES.values():
        assert not verify.within(verify.difference(expected, np.zeros(1000)), tolerance)


# --- reasons from the log


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("ERROR Version tag does not match. Note: Current Version: 213, Serialized Engine Version: 232", PlanError),
        (
            "ERROR The engine plan file is not compatible with this version of TensorRT, expecting 8.6.1.6 got 8.5.2.2",
            PlanError,
        ),
        (
            "ERROR The engine plan file is generated on an incompatible device, expecting compute 8.7 got compute 8.6",
            PlanError,
        ),
        ("ERROR Serialization assertion magicTagRead == kMAGIC_TAG failed.", PlanError),
        ("ERROR plan->header.size == blobSize failed", PlanError),
        ("ERROR getPluginCreator could not find plugin: EfficientNMS_TRT version: 1", UnavailableError),
        ("ERROR CUDA initialization failure with error: 35", UnavailableError),
        ("ERROR Requested amount of GPU memory could not be allocated: OutOfMemory", BuildKilledError),
        ("ERROR something new", BuildError),
    ],
)
def test_only_what_a_new_build_mends_is_a_plan_error(line: str, kind: type[Exception]) -> None:
    error = diagnose.explain(["INFO fine", line, "INFO later"], "loading")
    assert type(error) is kind
    assert line in error.message


def test_no_log_is_no_crash() -> None:
    assert "gave no reason" in diagnose.explain([], "loading").message


# --- advice


def advice_after(cache: Cache, **changes: Any) -> str:
    other = msgspec.structs.replace(ORIN, **changes)
    return advise(make_task(NANODET, BuildOptions(), other), cache).sentence


def test_advice(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert advise(task(), cache).sentence == "nanodet-g-416.onnx: would be built, as the cache holds no engine of it"
    engine = quickly(cache, task())
    assert advise(task(), cache).action == "reuse"
    assert f"engine {engine.key[:12]} would be reused (fp16" in advise(task(), cache).sentence
    assert advice_after(cache, tensorrt=(10, 3, 0, 31), l4t="36.4.4") == (
        f"nanodet-g-416.onnx: would be built, as engine {engine.key[:12]} "
        "differs in TensorRT 10.3.0.30 → 10.3.0.31, L4T 36.4.3 → 36.4.4"
    )
    changed = tmp_path / NANODET.name
    changed.write_bytes(NANODET.read_bytes() + b"\x12\x01x")  # the producer's name
    assert "differs in model file " in advise(make_task(changed, BuildOptions(), ORIN), cache).sentence


def test_advice_on_engines_that_are_not_fit(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    engine = quickly(cache, task())
    engine.folder.chmod(0o777)
    assert advise(task(), cache).action == "refuse"
    engine.folder.chmod(0o700)
    for _ in range(3):
        cache.strike(engine.key)
    assert "ended its process 3 times" in advise(task(), cache).sentence
    assert cache.usable(engine.key) is None
    assert "is in quarantine" in advise(task(), cache).sentence
    engine = quickly(cache, task())
    (engine.folder / "engine.plan").write_bytes(b"x")
    assert "its engine is damaged: " in advise(task(), cache).sentence
    assert engine.folder.exists(), "advice changes nothing"


def told_reason(cache: Cache, caplog: pytest.LogCaptureFixture, what: Task | None = None, **changes: Any) -> str:
    """Builds, and gives the reason that was told with every moment of it and once in the log."""
    caplog.clear()
    seen: list[BuildProgress] = []
    with caplog.at_level("INFO", "edgeinfer.engine.build.ensure"):
        made = what or make_task(NANODET, BuildOptions(), msgspec.structs.replace(ORIN, **changes))
        quickly(cache, made, seen.append)
    (reason,) = {moment.reason for moment in seen}
    assert [r.message for r in caplog.records if r.name.endswith(".ensure")] == [
        f"nanodet-g-416.onnx: building an engine, as {reason}"
    ]
    assert "\n" not in reason
    return reason


def flip(path: Path, position: int) -> None:
    """One bit."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_every_build_tells_its_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(tmp_path / "cache")
    assert told_reason(cache, caplog) == "the cache holds no engine of it"
    (engine,) = (item for item in cache.entries() if isinstance(item, CachedEngine))
    key, plan = engine.key[:12], engine.folder / "engine.plan"
    assert told_reason(cache, caplog, tensorrt=(10, 3, 0, 31)) == (
        f"engine {key} differs in TensorRT 10.3.0.30 → 10.3.0.31"
    )
    assert told_reason(cache, caplog, gpu="Orin NX", l4t="36.4.4") == (
        f"engine {key} differs in GPU Orin → Orin NX, L4T 36.4.3 → 36.4.4"
    )
    assert told_reason(cache, caplog, task("fp32")) == f"engine {key} differs in precision fp16 → fp32"
    flip(plan, 50_000)
    assert told_reason(cache, caplog) == (f"its engine is damaged: {plan}: its checksum is not the one in its manifest")
    for _ in range(3):
        cache.strike(engine.key)
    assert told_reason(cache, caplog) == f"engine {key} ended its process 3 times"


def test_what_was_found_before_is_the_reason_still(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The daemon asks what the cache has before it builds."""
    cache = Cache(tmp_path / "cache")
    engine = quickly(cache, task())
    (engine.folder / "manifest.json").write_bytes(b"{")
    assert cache.usable(engine.key) is None
    assert "manifest.json: damaged" in told_reason(cache, caplog)
    quickly(cache, task())
    cache.remove(engine.key)
    assert told_reason(cache, caplog) == "the cache holds no engine of it", "what is past is forgotten"


def test_a_header_that_can_not_be_read_is_the_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(tmp_path / "cache")
    engine = quickly(cache, task())
    flip(engine.folder / "engine.plan", 0)
    digest = hashlib.sha256((engine.folder / "engine.plan").read_bytes()).hexdigest()
    manifest_of = msgspec.structs.replace(engine.manifest, plan_sha256=digest)
    (engine.folder / "manifest.json").write_bytes(encode(manifest_of))
    assert "no TensorRT plan (it begins with 67 74 72 74)" in told_reason(cache, caplog)


@pytest.mark.parametrize(
    ("crashes", "why"), [(0, "because TensorRT refused it"), (3, "for ending its process 3 times")]
)
def test_quarantine_is_a_reason_in_the_next_process_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, crashes: int, why: str
) -> None:
    cache = Cache(tmp_path / "cache")
    engine = quickly(cache, task())
    for _ in range(crashes):
        cache.strike(engine.key)
    cache.quarantine(engine.key, "TensorRT refused it")
    assert told_reason(Cache(cache.root), caplog) == f"engine {engine.key[:12]} is in quarantine {why}"


def test_a_build_that_was_asked_for_says_so(tmp_path: Path) -> None:
    cache, seen = Cache(tmp_path / "cache"), list[BuildProgress]()
    quickly(cache, task())
    quickly(cache, task(), seen.append, rebuild=True)
    assert {moment.reason for moment in seen} == {"that was asked for"}


def test_the_daemons_news_say_why_it_builds() -> None:
    told: list[str] = []
    board = Bulletin()
    tell = selection.teller(board, "onnxruntime-cpu")
    for moment in (
        BuildProgress("Building", 0.25, 12.3, None, "the cache holds no engine of it"),
        BuildProgress("Waiting for another build", None, 3.0),
    ):
        tell(moment)
        assert board.news is not None
        assert board.news.code == "engine-building"
        told.append(board.news.text)
    assert told == [
        "Building 25%, 12 s; building because the cache holds no engine of it; serving on onnxruntime-cpu meanwhile",
        "Waiting for another build, 3 s; serving on onnxruntime-cpu meanwhile",
    ]


# --- plans from elsewhere


def write_plan(folder: Path, sidecar: bool = True, **changes: Any) -> Path:
    from tests.engine.samples import fields  # noqa: PLC0415

    path, plan = folder / "m.engine", make_plan()
    path.write_bytes(plan)
    if sidecar:
        (folder / "m.engine.json").write_bytes(encode(manifest(plan, fields(**changes))))
    for file in folder.iterdir():
        file.chmod(0o600)
    return path


def test_a_plan_that_fits_is_accepted(tmp_path: Path) -> None:
    found = accept(write_plan(tmp_path), ORIN)
    assert (found.plan, found.warnings) == (make_plan(), ())
    assert found.sidecar is not None


def test_the_wrapper_in_front_is_taken_off(tmp_path: Path) -> None:
    path = write_plan(tmp_path, sidecar=False)
    path.write_bytes(b"\x0b\0\0\0" + b'{"nc": 800}' + make_plan())
    found = accept(path, ORIN)
    assert found.plan == make_plan()
    assert found.header.metadata == {"nc": 800}
    assert "no side-car" in found.warnings[0]


@pytest.mark.parametrize(
    ("changes", "here", "message"),
    [
        ({}, {"tensorrt": (8, 6, 2, 3)}, "built by tensorrt 10.3.0.30, and here is tensorrt 8.6.2.3"),
        ({}, {"flavour": "tensorrt_rtx"}, "built by tensorrt 10.3.0.30, and here is tensorrt_rtx"),
        ({}, {"compute_capability": "7.2"}, "built for compute capability 8.7, and here is 7.2"),
        ({"sm_count": 16}, {}, "built for sm count 16, and here is 8"),
        ({"arch": "x86_64"}, {}, "built for arch x86_64, and here is aarch64"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_the_reason(
    changes: dict[str, Any], here: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=message):
        accept(write_plan(tmp_path, **changes), msgspec.structs.replace(ORIN, **here))


def test_a_tampered_or_open_plan_is_refused(tmp_path: Path) -> None:
    path = write_plan(tmp_path)
    path.write_bytes(make_plan(body=b"kernelz"))
    with pytest.raises(PlanError, match="checksum"):
        accept(path, ORIN)
    path.chmod(0o666)
    with pytest.raises(UnsafeError, match="others may write it"):
        accept(path, ORIN)


def test_an_rtx_plan_for_other_gpus_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.engine"
    path.write_bytes(
        make_plan((1, 7, 1, 116), magic=b"vtrt")[:28] + b"trtv" + (0x04).to_bytes(4, "little") + b"kernels"
    )
    here = Target(flavour="tensorrt_rtx", tensorrt=(1, 7, 1, 116), compute_capability="8.9")
    with pytest.raises(PlanError, match=r"built for compute capabilities 8.6, and here is 8.9"):
        accept(path, here)


def test_inputs_of_several_names_need_arrays(tmp_path: Path) -> None:
    one = model()
    two = dataclasses.replace(one, inputs=(*one.inputs, Tensor("z", (1, 2), "float32")))
    (tmp_path / "p.png").write_bytes(b"x")
    with pytest.raises(InputError, match="can't be the input of"):
        list(samples.load(SampleSource(str(tmp_path)), two, {"x": (1, 3, 8, 8), "z": (1, 2)}))


# --- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB, or a skip."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk can't be mounted here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)  # noqa: S607


def test_a_full_disk_is_told_and_leaves_nothing(small_disk: Path) -> None:
    cache = Cache(small_disk / "cache")

    def fill(request: BuildRequest, *_: object) -> BuildOutcome:
        done = outcome("fp16", 1.0, "passed", Path(request.work))
        with pytest.raises(OSError, match="No space"):
            (Path(request.work) / "filler").write_bytes(bytes(2 << 20))
        return done

    with pytest.raises(CacheError, match=r"No space left on device.; make room, or run `edgeinfer engines prune`"):
        ensure_task(task(), cache, lambda _: None, threading.Event(), build=fill)
    assert list(cache.tmp.iterdir()) == list(cache.engines.iterdir()) == []
    assert quickly(cache, task()).read()
