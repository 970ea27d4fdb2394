"""What a library itself says in its errors, apart from names and paths that somebody else chose.

A network's nodes, tensors and operators may be called "out of memory", and its folder too.
"""

from __future__ import annotations

import re

_BEGINNING = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |Load model from .*? ?failed:|"
    r"Non-zero status code returned while running .* Status Message: |Exception(?: during \w+)?: ",
    re.DOTALL,
)
"""What ONNX Runtime puts before a reason. Up to the last status message: a name may hold the words before it."""
_QUOTED = re.compile(r"'.*'|\".*\"|\{.*\}", re.DOTALL)
_NO_MEMORY = re.compile(
    r"\s*(?:\S+\.(?:cc|cpp|cu|h|hpp):\d+ [^'\"]{0,1000}?|\w+::\w+ )?"
    r"(?:(?:std::)?bad_alloc|bad allocation|Failed to allocate memory for requested buffer of size \d+|"
    r"Resource temporarily unavailable|Cannot allocate memory|"
    r"CUDA (?:failure|error) 2: out of memory(?: ;.*)?)\s*",
    re.DOTALL,
)
_OPENCV = re.compile(r"OpenCV\([^)]{0,40}\) \S{1,400}:\d+: error: \(-4:Insufficient memory\) ")
TENSORRT_NO_MEMORY = re.compile(
    r"(?m)^(?:(?:INTERNAL_)?ERROR |WARNING )?(?:\d+: )?(?:\[\w+\.\w+::(?:\w+::)*\d+\] |\w+::\w+: )?"
    r"(?:Error Code \d+: )?"
    r"(?:Requested amount of GPU memory|OutOfMemory|Cuda Runtime \(out of memory\)|out of memory"
    r"|Insufficient memory|(?:std::)?bad_alloc)"
)
"""How such a line of TensorRT's log begins, before any name of the network's."""
NVMAP_NO_MEMORY = re.compile(r"(?m)^NvMapMem\w+: (?:\d+ )?error \d+$")
"""What a Jetson's memory allocator writes to standard error itself where it has none left. The number that may stand
before is a size in bytes; the error is 12 (ENOMEM), or 0."""
_NO_TACTIC = re.compile(r"(?m)^(?:INTERNAL_)?ERROR .{0,120}Could not find any implementation for node ")
_TACTIC_WITHOUT_MEMORY = re.compile(
    r"(?m)^(?:(?:INTERNAL_)?ERROR |WARNING )(?:Error Code: \d+: |UNSUPPORTED_STATE:? ?)?"
    r"(?:Tactic Device request: \d+ ?MB Available: |GPU memory allocation error during |Skipping tactic \w+ due to "
    r"(?:insuff?icient memory|exception \[[\w.:]+\] (?:autotuning: )?User allocator error))"
)


def lacked_memory_for_tactics(log: str) -> bool:
    """Whether TensorRT found no way to compute a node, after it passed some over for want of memory."""
    return bool(_NO_TACTIC.search(log) and _TACTIC_WITHOUT_MEMORY.search(log))


def reason_in(text: str) -> str:
    """The last reason in an error of ONNX Runtime's, without what it ran into that in, and what is quoted."""
    while found := _BEGINNING.match(text):
        text = text[found.end() :]
    return _QUOTED.sub("", text)


def tells_of_no_memory(text: str) -> bool:
    """Whether all that is said, or how it begins, is what ONNX Runtime, CUDA, OpenCV or C++ say without memory."""
    return bool(_NO_MEMORY.fullmatch(reason_in(text)) or _OPENCV.match(text))
