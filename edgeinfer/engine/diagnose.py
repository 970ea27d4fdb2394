"""Tells from TensorRT's log why it gave nothing back: only some reasons are mended by building again."""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgeinfer.engine.errors import BuildError, BuildKilledError, PlanError
from edgeinfer.errors import EdgeinferError, UnavailableError
from edgeinfer.guard.foreign_words import TENSORRT_NO_MEMORY, lacked_memory_for_tactics

REBUILD = "build the engine again"
OTHER_VERSION = (PlanError, "the plan is of another TensorRT version", REBUILD)
OTHER_GPU = (PlanError, "the plan is of another kind of GPU", REBUILD)
MEMORY = (
    BuildKilledError,
    "out of memory",
    "stop what else runs, lower --workspace or --opt-level, or add swap; then try again",
)

NO_TACTIC = "no way to compute some node in the memory that there is"

CAUSES: tuple[tuple[str, tuple[type[EdgeinferError], str, str]], ...] = (
    (TENSORRT_NO_MEMORY.pattern, MEMORY),
    (r"CUDA initialization failure with error: 2\b|\bcudaErrorMemoryAllocation\b", MEMORY),
    (
        r"CUDA driver version is insufficient|CUDA initialization failure|no CUDA-capable device|cudaError (35|100)\b",
        (UnavailableError, "no GPU, or a driver too old for this CUDA", "see `edgeinfer doctor`"),
    ),
    (
        r"[Vv]ersion tag does not match|stdVersionRead ==|not compatible with this version of TensorRT"
        r"|serialization version|major version does not match",
        OTHER_VERSION,
    ),
    (r"incompatible device|not compatible with this hardware-compatible engine", OTHER_GPU),
    (
        r"could not find plugin|Cannot find plugin|[Pp]lugin not found",
        (UnavailableError, "a plugin that the engine needs is not loaded", "name its library with --plugin"),
    ),
    (
        r"EngineHostCodeAllowed",
        (
            UnavailableError,
            "a version-compatible plan needs leave to run its own code",
            "build without --version-compatible",
        ),
    ),
    (
        r"Input dimensions with this name",
        (
            BuildError,
            "the ONNX file gives several free dimensions one name, and so calls them equal",
            "name them apart when exporting, or fix them",
        ),
    ),
    (
        r"[mM]agicTag|header\.size == |kPLAN_ALIGNMENT|minBufferSize|Serialization assertion",
        (PlanError, "the plan is damaged", REBUILD),
    ),
)


def explain(log: Iterable[str], action: str) -> EdgeinferError:
    """The error that the log of a failed `action` amounts to. PlanError: building again mends it."""
    lines = list(log)
    text = "\n".join(lines)
    for pattern, (kind, cause, hint) in CAUSES:
        if match := re.search(pattern, text):
            line = next(line for line in lines if match[0] in line)
            return kind(f"{action} failed: {cause} ({_short(line)})", hint)
    if lacked_memory_for_tactics(text):
        return BuildKilledError(f"{action} failed: {NO_TACTIC}", "stop what else runs, or raise --workspace")
    last = next(
        (line for line in reversed(lines) if line.startswith(("ERROR", "INTERNAL_ERROR"))), "TensorRT gave no reason"
    )
    return BuildError(f"{action} failed: {_short(last)}", "see the whole log with --verbose")


def _short(line: str, limit: int = 240) -> str:
    return line if len(line) <= limit else line[: limit - 1] + "…"
