"""The budget page: every bound on what others can make this process hold, wait for, open or say.

A bound is declared here, beside its neighbours, and imported by the module that keeps it. docs/limits.md is generated
from this list. `test` names the test that goes beyond it.
"""

from __future__ import annotations

from typing import NamedTuple


class Bound(NamedTuple):
    """A line of the page. `beyond` says what happens to whoever asks for more; `setting` is its key, if it has one."""

    what: str
    value: int
    unit: str
    beyond: str
    test: str
    setting: str = ""


BOUNDS: list[Bound] = []


def _bound(value: int, unit: str, what: str, beyond: str, test: str, setting: str = "") -> int:
    BOUNDS.append(Bound(what, value, unit, beyond, test, setting))
    return value


# Pictures

MAX_PIXELS = _bound(
    1 << 26,
    "pixels",
    "one picture, by its header: 8192 × 8192",
    "the picture is unreadable; a camera that sends such is `failed` with `codec`",
    "test_a_picture_that_swells_is_refused_by_its_header",
)

# Memory and children

# Descriptors and threads

# Subscribers

# HTTP

# Configuration

# Models

MAX_MODEL_BYTES = _bound(
    2 << 30,
    "bytes",
    "an ONNX file or a plan; protobuf's own limit. Larger networks keep their weights beside the file",
    "the model is refused (exit 66)",
    "test_a_model_that_is_too_large_or_no_file",
)
MAX_EXTERNAL_BYTES = _bound(
    16 << 30,
    "bytes",
    "all weights that a network keeps beside its file",
    "the model is refused (exit 66)",
    "test_weights_that_never_end",
)
MAX_EXTERNAL_FILES = _bound(
    4096,
    "files",
    "with a network's weights",
    "the model is refused (exit 66)",
    "test_weights_that_never_end",
)
MAX_ONNX_FIELDS = _bound(
    2_000_000,
    "fields",
    "an ONNX file, on the way to all of its tensors; a network of 20 000 nodes has 600 000",
    "the model is refused (exit 66)",
    "test_a_network_of_endless_fields",
)
MAX_GRAPH_DEPTH = _bound(
    32,
    "graphs",
    "graphs within graphs",
    "the model is refused (exit 66)",
    "test_graphs_nested_without_end_are_refused",
)

# Engines

# Sinks

# What is said

# The subscriber's side
