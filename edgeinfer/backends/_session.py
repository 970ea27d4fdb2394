"""ONNX Runtime's sessions, made alike in the daemon and in the child in which a network is tried first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime
from msgspec import Struct

from edgeinfer.errors import InputError, OutOfMemoryError, is_lack_of_memory
from edgeinfer.types import TensorSpec

VERSION = str(onnxruntime.__version__)


class SessionSettings(Struct, frozen=True, kw_only=True):
    """How a session runs. `providers`: ONNX Runtime's names with their options, the preferred one first."""

    threads: int
    spin: bool
    providers: list[tuple[str, dict[str, Any]]]


def open_session(path: Path, settings: SessionSettings) -> Any:
    """A session on an ONNX file. Raises InputError for what can't be loaded, OutOfMemoryError for want of memory."""
    onnxruntime.set_default_logger_severity(4)
    os.environ["ORT_LOAD_CONFIG_FROM_MODEL"] = "0"  # it would take settings from the network's metadata, log files too
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = settings.threads
    options.enable_mem_pattern = False  # it took twice what the first run needed, and was no quicker
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings.spin else "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")  # not what the file's name says
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=settings.providers)
    except Exception as error:  # ONNX Runtime raises classes of its own that share no base
        if not path.is_file():
            raise InputError(f"{path}: no such file") from None
        if is_lack_of_memory(error):
            raise _too_large(path) from None
        raise InputError(f"{path}: not a model that ONNX Runtime can load: {_reason(error)}") from None


def specs_of(values: Sequence[Any]) -> list[TensorSpec]:
    """A session's inputs or outputs; a free dimension is -1."""
    return [
        TensorSpec(value.name, tuple(d if isinstance(d, int) else -1 for d in value.shape), value.type)
        for value in values
    ]


def _too_large(path: Path) -> OutOfMemoryError:
    return OutOfMemoryError(f"{path}: no memory left to load it", "stop what else runs, or use a smaller network")


def _reason(error: Exception) -> str:
    text = str(error).split(" : ")[-1]
    return " ".join(text.split())[:200]
