"""A lack of memory is told by what a library says itself, not by what a network or a file is called."""

from __future__ import annotations

import errno
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgeinfer.backends._session import SessionSettings, open_session
from edgeinfer.cuda.status import error_from_text, status_in
from edgeinfer.engine import diagnose
from edgeinfer.engine.errors import BuildError, BuildKilledError
from edgeinfer.errors import FatalError, InputError, OutOfMemoryError, is_lack_of_memory
from edgeinfer.guard.foreign_words import reason_in

PLAIN = SessionSettings(threads=1, spin=False, providers=[("CPUExecutionProvider", {})])
FAILED_NODE = "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node. Name:'{}' "
ARENA = "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal("
HOSTILE = [
    "out of memory",
    "std::bad_alloc",
    "MemoryError: out of memory",
    "x' Status Message: std::bad_alloc",
    "x' Status Message: Failed to allocate memory for requested buffer of size 1",
    "CUDA failure 700: an illegal memory access was encountered",
    "CUDA failure 2: out of memory ; GPU=0",
    "Cannot allocate memory",
    "\nERROR OutOfMemory"[1:],
    "x} OutOfMemory {",
]


@pytest.mark.parametrize(
    "text",
    [
        "std::bad_alloc",
        "[ONNXRuntimeError] : 1 : FAIL : Load model from /tmp/out of memory/m.onnx failed:std::bad_alloc",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: std::bad_alloc",
        FAILED_NODE.format("big")
        + f"Status Message: {ARENA}size_t, bool, onnxruntime::Stream*) "
        + "Failed to allocate memory for requested buffer of size 40000000000\n",
        FAILED_NODE.format("big") + "Status Message: std::bad_alloc",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: /src/core/cuda_call.cc:"
        "129 std::conditional_t<THRW, void, common::Status> onnxruntime::CudaCall(ERRTYPE, int) [with ERRTYPE "
        "= cudaError; bool THRW = true] CUDA failure 2: out of memory ; GPU=0 ; hostname=x ; expr=cudaMalloc(&p, n); ",
        "OpenCV(4.10.0) /io/opencv/modules/core/src/alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate "
        "1000 bytes in function 'OutOfMemoryError'",
    ],
)
def test_what_libraries_say_without_memory(text: str) -> None:
    assert is_lack_of_memory(RuntimeError(text))


def test_a_kind_of_error_says_it_whatever_its_text() -> None:
    assert is_lack_of_memory(MemoryError())
    assert is_lack_of_memory(OSError(errno.ENOMEM, "x"))
    assert not is_lack_of_memory(OSError(errno.ENOENT, "No such file", "out of memory"))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_says_nothing_of_memory(name: str, tmp_path: Path) -> None:
    shapes = FAILED_NODE.format(name) + "Status Message: matmul_helper.h:59 Compute MatMul dimension mismatch"
    assert not is_lack_of_memory(RuntimeError(shapes))
    assert status_in(reason_in(shapes)) is None
    assert type(error_from_text(f"failed on a batch of 1: {shapes}", reason_in(shapes))) is FatalError
    log = [f"ERROR 10: [optimizer.cpp::computeCosts::3869] Error Code 10: no implementation for node {{{name}}}."]
    assert type(diagnose.explain([*log, f"ERROR In node 3 with name: {name} (parseNode)"], "building")) is BuildError
    path = tmp_path / (name.replace("/", "_") + ".onnx")
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], name=name)
    values = [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", 3]) for value in ("x", "y")]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(InputError, match="not a model that ONNX Runtime can load"):
        open_session(path, PLAIN)


@given(st.text(max_size=60))
def test_any_name_leaves_the_reason(name: str) -> None:
    assert reason_in(FAILED_NODE.format(name) + "Status Message: it is why") == "it is why"


@pytest.mark.parametrize(
    "line",
    [
        "ERROR 2: [virtualMemoryBuffer.cpp::resizePhysical::140] Error Code 2: OutOfMemory (Requested size was 9)",
        "ERROR [defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
        "ERROR Requested amount of GPU memory (9 bytes) could not be allocated.",
        "ERROR IRuntime::deserializeCudaEngine: Error Code 2: OutOfMemory (Requested size was 1075072515 bytes.)",
        "INTERNAL_ERROR [defaultAllocator.cpp::nvinfer1::internal::DefaultAllocator::allocate::63] "
        "Error Code 1: Cuda Runtime (out of memory)",
    ],
)
def test_what_tensorrt_says_without_memory(line: str) -> None:
    assert type(diagnose.explain(["INFO fine", line], "building")) is BuildKilledError
    assert type(error_from_text(f"not started: {line}", line)) is OutOfMemoryError


NO_TACTIC = "ERROR 10: [optimizer.cpp::computeCosts::3728] Error Code 10: Internal Error (Could not find any "
NO_TACTIC += "implementation for node {ForeignNode[/1/Constant_36_output_0.../1/Slice_4]}.)"
NO_TACTIC_10 = NO_TACTIC.replace("10: [optimizer.cpp::computeCosts::3728]", "IBuilder::buildSerializedNetwork:")


@pytest.mark.parametrize("last", [NO_TACTIC, NO_TACTIC_10])
@pytest.mark.parametrize(
    "line",
    [
        "WARNING Tactic Device request: 1536MB Available: 1024MB. Device memory is insufficient to use tactic.",
        "WARNING UNSUPPORTED_STATE: Skipping tactic 3 due to insuficient memory on requested size of 2457 detected for "
        "tactic 0x0000000000000004.",
        "ERROR Error Code: 9: Skipping tactic 0x0000000000000000 due to exception [tunable_graph.cpp:create:117] "
        "autotuning: User allocator error allocating 15485030400-byte buffer",
        "WARNING GPU memory allocation error during getBestTactic: conv0_fwd",
    ],
)
def test_a_node_that_nothing_could_compute_for_want_of_memory(last: str, line: str) -> None:
    found = diagnose.explain([line, last], "building")
    assert (type(found), found.exit_code) == (BuildKilledError, 75)
    assert "raise --workspace" in found.hint
    assert type(diagnose.explain([last], "building")) is BuildError, "and nothing was short of memory"
    assert type(diagnose.explain([line, "ERROR something else"], "building")) is BuildError


def test_a_real_lack_of_cuda_memory_under_a_hostile_name_is_told() -> None:
    said = FAILED_NODE.format("CUDA failure 700: x") + "Status Message: CUDA failure 2: out of memory ; GPU=0 ; line=54"
    assert type(error_from_text(said, reason_in(said))) is OutOfMemoryError
