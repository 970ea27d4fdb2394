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
TRIAL_MEMORY_BYTES = _bound(
    3 << 30,
    "bytes",
    "memory of a network when it is tried, beside four times its weights; at most half of what there is for us",
    "the model is refused (exit 66, or a reload that fails); what serves goes on",
    "test_a_network_that_swells_is_refused_before_it_is_loaded",
    "backend.memory_mb",
)
TRIAL_WEIGHTS = _bound(
    4,
    "times",
    "a network's files, in its budget of memory: as read, as loaded, as rearranged, and one to spare",
    "the model is refused (exit 66, or a reload that fails); what serves goes on",
    "test_a_network_that_swells_is_refused_before_it_is_loaded",
    "backend.memory_mb",
)
TRIAL_S = _bound(
    60,
    "seconds",
    "loading a network and running it once, when it is tried",
    "the model is refused (exit 66, or a reload that fails); what serves goes on",
    "test_a_network_without_an_end_is_given_up",
    "backend.trial_s",
)
MAX_VERDICTS = _bound(
    64,
    "files",
    "networks that have been tried well, remembered in the cache",
    "the oldest is forgotten, and that network tried again",
    "test_verdicts_are_bounded_in_number",
)
MAX_GRAPH_DEPTH = _bound(
    32,
    "graphs",
    "graphs within graphs",
    "the model is refused (exit 66)",
    "test_graphs_nested_without_end_are_refused",
)

# Engines

MIN_FREE_BYTES = _bound(
    128 << 20,
    "bytes",
    "memory that a build leaves on the machine",
    "the build is stopped, and tried again at the next start",
    "test_limits_of_memory_are_looked_at",
)
MAX_CACHE_BYTES = _bound(
    8 << 30,
    "bytes",
    "engines in the cache after a build of the daemon's",
    "those that were used last longest ago are removed",
    "test_the_cache_is_pruned_after_a_build",
)
MAX_LOG_TEXT = _bound(
    2000,
    "characters",
    "a line of TensorRT's log: nodes are called as the network says",
    "the rest of the line is left out",
    "test_a_networks_names_do_not_swell_what_is_said",
)
MAX_NODES_TOLD = _bound(
    16,
    "nodes",
    "in the account of a network that TensorRT does not take",
    "the others are counted",
    "test_a_networks_names_do_not_swell_what_is_said",
)
MAX_BUILD_S = _bound(
    4 * 3600,
    "seconds",
    "building an engine for the daemon; `edgeinfer build` has its own --timeout",
    "the build is given up, and another backend serves if one may",
    "test_limits_of_memory_are_looked_at",
)

# Sinks

# What is said

# The subscriber's side
