"""Asks NVML every two seconds, in a process of its own: a driver that hangs then holds up nobody.

Run as a script; ends when stdin does. Prints lines of JSON: {"gpu_load" 0 to 1, "gpu_hz"}; at last {"fault": message}.
Only where there is one GPU: of several it is not known which one is in use. Structures and numbers are from nvml.h.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time
from typing import Any

PERIOD_S = 2.0
_CLOCK_SM = 1


class Utilization(ctypes.Structure):
    """nvmlUtilization_t: per cent."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class NvmlError(Exception):
    """A call that failed, in words."""


def connect(nvml: Any) -> ctypes.c_void_p:
    """The only GPU. Raises NvmlError."""
    if status := nvml.nvmlInit_v2():
        raise NvmlError(f"nvmlInit failed with error {status}")
    count = ctypes.c_uint()
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    if count.value != 1:
        raise NvmlError(f"there are {count.value} GPUs")
    handle = ctypes.c_void_p()
    if status := nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)):
        raise NvmlError(f"the GPU can't be asked: error {status}")
    return handle


def answer(nvml: Any, handle: ctypes.c_void_p) -> dict[str, Any]:
    """What it says now; what it refuses is left out."""
    found: dict[str, Any] = {}
    load, megahertz = Utilization(), ctypes.c_uint()
    if nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(load)) == 0:
        found["gpu_load"] = min(load.gpu, 100) / 100
    if nvml.nvmlDeviceGetClockInfo(handle, _CLOCK_SM, ctypes.byref(megahertz)) == 0:
        found["gpu_hz"] = megahertz.value * 1_000_000
    return found


def main() -> None:
    """Answers until the parent is gone."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        handle = connect(nvml)
        while found := answer(nvml, handle):
            _say(found)
            time.sleep(PERIOD_S)
        _say({"fault": "it knows neither load nor clock of this GPU"})
    except (OSError, AttributeError, NvmlError) as error:
        _say({"fault": str(error)})
    os._exit(0)


def _say(what: dict[str, Any]) -> None:
    os.write(1, (json.dumps(what) + "\n").encode())


def _end_with_the_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
