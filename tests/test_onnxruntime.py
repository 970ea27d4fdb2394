"""ONNX Runtime as a backend: its options, its batches, and what it says where a model or a provider doesn't fit."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as runtime
import pytest

from edgeinfer.backends import onnxruntime
from edgeinfer.backends._session import SessionSettings, open_session
from edgeinfer.backends.onnxruntime import OnnxRuntime, Options
from edgeinfer.config.card import Model, load_model
from edgeinfer.errors import (
    ConfigError,
    FatalError,
    InputError,
    OutOfMemoryError,
    StickyError,
    TemporaryError,
    UnavailableError,
)
from tests.gpu import simulated

PLAIN = SessionSettings(threads=1, spin=False, providers=[("CPUExecutionProvider", {})])


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return simulated.echo_model(tmp_path_factory.mktemp("models"))


def carded(model: Model, max_batch: int = 4, **changes: Any) -> Model:
    card = msgspec.structs.replace(model.card, max_batch=max_batch)
    return msgspec.structs.replace(
        model, card=msgspec.structs.replace(card, input=msgspec.structs.replace(card.input, **changes))
    )


def run(backend: OnnxRuntime, count: int) -> Any:
    slot = backend.acquire()
    assert slot is not None
    images = [np.full((8, 8, 3), 10 * n, np.uint8) for n in range(1, count + 1)]
    backend.load(slot, images)
    backend.submit(slot)
    assert backend.collect(30) is slot
    return slot.outputs["boxes"]


@pytest.mark.parametrize(("card", "asked", "batch"), [(16, None, 4), (2, None, 2), (16, 9, 9), (2, 8, 8)])
def test_a_cpu_takes_small_batches_unless_it_is_told_otherwise(
    model: Model, card: int, asked: int | None, batch: int
) -> None:
    backend = onnxruntime.open(carded(model, card), asked, Options(threads=1))
    assert (backend.max_batch, backend.lane_depth, backend.name) == (batch, 1, "onnxruntime-cpu")
    backend.close()


def test_another_provider_takes_the_cards_batch() -> None:
    assert [onnxruntime._default_batch(name, 16) for name in ("onnxruntime-cpu", "onnxruntime-cuda")] == [4, 16]
    assert onnxruntime._reported_name(["CUDAExecutionProvider", "CPUExecutionProvider"]) == "onnxruntime-cuda"


def test_a_network_of_a_fixed_batch_is_always_run_whole(tmp_path: Path) -> None:
    backend = onnxruntime.open(simulated.echo_model(tmp_path, batch=3), 8, Options(threads=1))
    assert backend.max_batch == 3
    assert run(backend, 2).shape == (3, 48, 4)
    backend.close()


def test_a_free_batch_is_as_large_as_what_was_loaded(model: Model) -> None:
    backend = onnxruntime.open(model, 4, Options(threads=1))
    assert [run(backend, count).shape[0] for count in (1,)] == [1]
    backend.close()


def test_streams_and_threads_share_the_cores(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    backend = onnxruntime.open(model, 2, Options(streams=2))
    assert (backend.slots, backend.detail) == (3, "batches up to 2, 2 at once, 3 threads each")
    backend.close()
    assert [onnxruntime._cores(streams) for streams in (1, 4, 9)] == [6, 1, 1]
    assert not onnxruntime._spin(Options())
    assert onnxruntime._spin(Options(spin=True))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert onnxruntime._spin(Options())
    assert not onnxruntime._spin(Options(spin=False))


@pytest.mark.parametrize(
    ("cores", "given", "threads", "spins"),
    [
        (16, {}, 8, False),
        (6, {}, 3, False),
        (2, {}, 1, False),
        (1, {}, 1, False),
        (16, {"streams": 2}, 4, False),
        (16, {"threads": 12}, 12, False),
        (16, {"spin": True}, 8, True),
    ],
)
def test_beside_a_build_half_of_the_cores_are_left_to_it(
    monkeypatch: pytest.MonkeyPatch, cores: int, given: dict[str, Any], threads: int, spins: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    options = onnxruntime.thrifty(Options(**given))
    found = onnxruntime._settings(options)
    assert (found.threads, found.spin, options.streams) == (threads, spins, given.get("streams", 1))


def settings_of(model: Model, options: Options, monkeypatch: pytest.MonkeyPatch) -> Any:
    seen: list[Any] = []
    make = runtime.InferenceSession

    def session(path: str, settings: Any, providers: Any) -> Any:
        seen.append(
            (
                settings.intra_op_num_threads,
                settings.get_session_config_entry("session.intra_op.allow_spinning"),
                providers,
            )
        )
        return make(path, settings, providers=providers)

    monkeypatch.setattr(runtime, "InferenceSession", session)
    infer = onnxruntime.raw(model, options)
    outputs = infer(np.ones((1, 3, 8, 8), np.float32))
    assert isinstance(outputs, list)
    assert [o.shape for o in outputs] == [(1, 48, 4)] * 2
    onnxruntime.open(model, 1, options).close()
    return seen


@pytest.mark.slow
def test_alone_it_spins_as_is_its_default_and_in_the_pipeline_only_with_many_cores(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert settings_of(model, Options(), monkeypatch) == [(2, spin, [("CPUExecutionProvider", {})]) for spin in "10"]
    off = settings_of(model, Options(spin=False, threads=3), monkeypatch)
    assert [item[:2] for item in off] == [(3, "0")] * 2


def test_providers_are_named_as_people_do_and_have_options_of_their_own() -> None:
    options = Options(providers=("CPU",), provider_options={"cpu": {"arena": "x"}})
    assert onnxruntime._providers(options) == [("CPUExecutionProvider", {"arena": "x"})]
    with pytest.raises(UnavailableError, match=r"has no execution provider 'cpuu'; did you mean cpu"):
        onnxruntime._providers(Options(providers=("cpuu",)))
    with pytest.raises(ConfigError, match=r"backend\.provider_options\.cuda: not among the providers"):
        onnxruntime._providers(Options(provider_options={"cuda": {}}))


def test_the_specs_of_a_file(model: Model) -> None:
    inputs, outputs = onnxruntime.specs(model.path)
    assert [(s.name, s.shape, s.dtype) for s in inputs] == [("images", (-1, 3, 8, 8), "tensor(float)")]
    assert [s.name for s in outputs] == ["boxes", "scores"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "other"}, r"its inputs are images; the card says 'other'"),
        ({"width": 9}, r"is tensor\(float\) \[-1, 3, 8, 8\]; the card needs float32 \[N, 3, 8, 9\]"),
        ({"height": 9}, r"the card needs float32 \[N, 3, 9, 8\]"),
    ],
)
def test_a_model_that_does_not_fit_its_card_is_refused(model: Model, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        onnxruntime.open(carded(model, **changes), None, Options(threads=1))


def test_what_is_no_model_is_an_input_error(model: Model, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"rubbish")
    for path, says in (
        (tmp_path / "m.onnx", "not a model that ONNX Runtime can load"),
        (tmp_path / "n.onnx", "no such file"),
    ):
        with pytest.raises(InputError, match=says):
            onnxruntime.open(msgspec.structs.replace(model, path=path), None, Options())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", StickyError),
        ("Failed to allocate memory for requested buffer of size 268435456", OutOfMemoryError),
        ("Invalid input shape", FatalError),
    ],
)
def test_what_it_raises_is_judged_by_what_it_says(
    model: Model, monkeypatch: pytest.MonkeyPatch, text: str, kind: type[Exception]
) -> None:
    backend = onnxruntime.open(model, 2, Options(threads=1))

    class Broken:
        def run(self, *_: object) -> None:
            raise RuntimeError(text)

    backend._session = Broken()
    slot = backend.acquire()
    assert slot is not None
    backend.load(slot, [np.zeros((8, 8, 3), np.uint8)])
    backend.submit(slot)
    with pytest.raises(kind, match=f"ONNX Runtime failed on a batch of 1: {text}") as caught:
        backend.collect(30)
    assert type(caught.value) is kind
    backend.close()


def test_inference_is_timed_in_milliseconds(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = onnxruntime.open(model, 2, Options(threads=1))
    slot = backend.acquire()
    assert slot is not None
    backend.load(slot, [np.zeros((8, 8, 3), np.uint8)])
    ticks = iter([1.0, 3.5])
    monkeypatch.setattr("edgeinfer.backends.onnxruntime.time.perf_counter", lambda: next(ticks))
    backend._run(slot)  # type: ignore[arg-type]
    assert slot.infer_ms == 2500
    backend.close()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("std::bad_alloc"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: std::bad_alloc"),
        RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 123"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_a_lack_of_memory_is_no_bad_model(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(runtime, "InferenceSession", fail)
    with pytest.raises(TemporaryError, match="no memory") as caught:
        open_session(load_model("nanodet-g").path, PLAIN)
    assert caught.value.exit_code == 75


def test_another_failure_still_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Protobuf parsing failed")

    monkeypatch.setattr(runtime, "InferenceSession", fail)
    with pytest.raises(InputError, match="not a model"):
        open_session(load_model("nanodet-g").path, PLAIN)
