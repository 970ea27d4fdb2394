"""Compares an engine with ONNX Runtime on the same inputs."""

from __future__ import annotations

import importlib
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np

from edgeinfer import recipe
from edgeinfer.engine.build.samples import Sample
from edgeinfer.engine.store.manifest import OutputError, Tolerance, Verification
from edgeinfer.errors import EdgeinferError, OutOfMemoryError, UnavailableError, is_lack_of_memory
from edgeinfer.models.onnxfile import OnnxModel
from edgeinfer.types import AnyArray

Run = Callable[[Sample], Sample]

MAX_SAMPLES = 8
WARM_UP, TIMED = 3, 20

# Of the largest reference value. An engine that lost its weights or its shapes is far beyond any of these.
TOLERANCES = {
    "fp32": Tolerance(max_error=0.01, mean_error=0.001),
    "tf32": Tolerance(max_error=0.02, mean_error=0.002),
    "fp16": Tolerance(max_error=0.05, mean_error=0.005),
    "int8": Tolerance(max_error=0.5, mean_error=0.05),
}


def verify(
    reference: Run, candidate: Run, samples: Iterable[Sample], tolerance: Tolerance, inputs: str
) -> Verification:
    """Runs both on the first few samples, times the candidate, and judges. `inputs`: where they come from."""
    errors: dict[str, OutputError] = {}
    sample: Sample | None = None
    count = 0
    for count, sample in enumerate(itertools.islice(samples, MAX_SAMPLES), 1):
        expected, found = reference(sample), candidate(sample)
        for name in expected:
            if reason := incomparable(expected[name], found[name]):
                return Verification(state="exceeded", reason=f"output {name} {reason}", samples=count, inputs=inputs)
            errors[name] = worst(errors.get(name), difference(expected[name], found[name]))
    if sample is None:
        return Verification(state="skipped", reason="no sample")
    return Verification(
        state="passed" if all(within(error, tolerance) for error in errors.values()) else "exceeded",
        samples=count,
        inputs=inputs,
        outputs=errors,
        tolerance=tolerance,
        latency_ms=latency_ms(candidate, sample),
    )


def both(one: Verification, other: Verification) -> Verification:
    """The check of one profile with that of another: the worst of both. `latency_ms` stays the first one's."""
    if other.state != "passed":
        return other
    outputs = {name: worst(error, other.outputs[name]) for name, error in one.outputs.items()}
    return msgspec.structs.replace(one, outputs=outputs, samples=one.samples + other.samples)


def incomparable(expected: AnyArray, found: AnyArray) -> str:
    """Why there is no measure for how far `found` is from `expected`; "" where there is one."""
    if expected.shape != found.shape:
        return f"has shape {found.shape} instead of {expected.shape}"
    if not np.array_equal(np.isfinite(expected), np.isfinite(found)):
        return "is infinite or no number where ONNX Runtime's is not, or the other way round"
    return ""


def difference(expected: AnyArray, found: AnyArray) -> OutputError:
    """How far `found` is from `expected`, over all finite values. Both have one shape."""
    finite = np.isfinite(expected)
    reference = expected[finite].astype(np.float64)
    gaps = np.abs(reference - found[finite].astype(np.float64))
    scale = float(np.max(np.abs(reference), initial=0.0))
    return OutputError(float(np.max(gaps, initial=0.0)), float(gaps.mean()) if gaps.size else 0.0, scale)


def worst(one: OutputError | None, other: OutputError) -> OutputError:
    """The larger of each number."""
    if one is None:
        return other
    return OutputError(
        *(max(a, b) for a, b in zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True))
    )


def within(error: OutputError, tolerance: Tolerance) -> bool:
    """Whether an output's errors are within the tolerance."""
    return (
        error.max_error <= tolerance.max_error * error.scale and error.mean_error <= tolerance.mean_error * error.scale
    )


def describe(result: Verification) -> str:
    """The errors of every output, in words."""
    if result.state == "skipped":
        return f"not checked against ONNX Runtime: {result.reason}"
    if result.reason:
        return f"{result.reason} (sample {result.samples}, {result.inputs})"
    errors = (
        f"{name} max {e.max_error:.3g} mean {e.mean_error:.3g} of {e.scale:.3g}" for name, e in result.outputs.items()
    )
    return f"errors against ONNX Runtime: {'; '.join(errors)} ({result.samples} samples, {result.inputs})"


def latency_ms(run: Run, sample: Sample) -> float:
    """Median time of one run, in milliseconds."""
    for _ in range(WARM_UP):
        run(sample)
    times = []
    for _ in range(TIMED):
        start = time.perf_counter()
        run(sample)
        times.append(1e3 * (time.perf_counter() - start))
    return round(statistics.median(times), 3)


def reference_runner(model: OnnxModel) -> Run:
    """ONNX Runtime on the CPU. Raises UnavailableError where it is missing or can't run the model."""
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise UnavailableError(
            f"ONNX Runtime can't be imported: {error}", recipe.pip("install 'edgeinfer[cpu]'")
        ) from error
    os.environ["ORT_LOAD_CONFIG_FROM_MODEL"] = "0"  # it would take settings from the network's metadata
    try:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.load_model_format", "ONNX")  # not what the file's name says
        session = onnxruntime.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        kind = OutOfMemoryError if is_lack_of_memory(error) else UnavailableError
        raise kind(f"ONNX Runtime can't run {model.path}: {error}") from error
    names = [output.name for output in session.get_outputs()]
    return lambda sample: dict(zip(names, session.run(names, sample), strict=True))


def skipped(error: EdgeinferError) -> Verification:
    """The record of a check that could not be made."""
    return Verification(state="skipped", reason=error.message)
