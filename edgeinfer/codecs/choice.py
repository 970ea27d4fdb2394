"""Which decoder a stream gets.

NVDEC decodes in the daemon's own process, beside the network: a CUDA context of its own would take turns with that on
the GPU (docs/performance.md). What it can't decode of a camera's is decoded by FFmpeg in a process of its own.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any, Literal

from edgeinfer.codecs.decoder import Elsewhere, VideoDecoder
from edgeinfer.codecs.nvdec import NvDecoder
from edgeinfer.codecs.software import SoftwareDecoder
from edgeinfer.cuda import video
from edgeinfer.errors import UnavailableError

log = logging.getLogger(__name__)

Wanted = Literal["auto", "av", "nvdec"]
TURNED = video.Lack("it does not turn pictures, as this file says they are to be", "decoder: av does")
ALONE = video.Lack("it decodes in the daemon's process alone", "leave out isolated and memory_mb")
_instead: list[str] = []


def wants_nvdec(wanted: Wanted, root: Path = Path("/")) -> bool:
    """Whether a source is to be opened where NVDEC decodes. Cheap, and no promise: that shows there.

    `auto`: where TensorRT is. Elsewhere the network reads pictures in host memory, and FFmpeg is quicker to have them.
    """
    if wanted != "auto":
        return wanted == "nvdec"
    return video.likely(root) is None and importlib.util.find_spec("tensorrt") is not None


def came_from_elsewhere(why: str) -> None:
    """This process was made for a stream that could not be decoded where it was tried first."""
    _instead.append(why)


def open_decoder(
    stream: Any, what: str, wanted: Wanted, live: bool, turned: bool = False, elsewhere: bool = False
) -> VideoDecoder:
    """A decoder for PyAV's `stream`. `what` is the source in errors, `live` whether its pictures are wanted at once.

    `turned`: its pictures are to be turned, as a telephone's are. `elsewhere`: what NVDEC can't decode is to be opened
    elsewhere, not decoded by FFmpeg here. Raises CameraError where nothing here decodes it, UnavailableError where what
    is wanted is not here, and Elsewhere.
    """
    lack = ALONE if not video.allowed() else TURNED if turned else None
    if wanted == "nvdec" or (lack is None and wants_nvdec(wanted)):
        lack = lack or video.lacks(stream)
        if lack is None:
            why = "as configured" if wanted == "nvdec" else "this GPU decodes it"
            return NvDecoder(stream, what, why, live, optional=wanted == "auto")
    if wanted == "nvdec" and lack is not None:
        raise UnavailableError(f"{what}: decoder: nvdec: {lack.why}", lack.hint)
    if elsewhere:
        raise Elsewhere(lack.why if lack is not None else "as configured")
    return SoftwareDecoder(stream, what, live, _why_software(wanted, lack))


def in_software(stream: Any, what: str, live: bool, why: Elsewhere) -> SoftwareDecoder:
    """FFmpeg in the place of NVDEC, which turned out not to decode it."""
    log.warning("%s: decoded on the CPU: NVDEC: %s", what, why)
    return SoftwareDecoder(stream, what, live, f"NVDEC: {why}")


def _why_software(wanted: Wanted, lack: video.Lack | None) -> str:
    if wanted == "av":
        return "as configured"
    if _instead:
        return f"NVDEC: {_instead[-1]}"
    lack = video.likely() or lack
    return "there is no TensorRT here, which reads the GPU's memory" if lack is None else f"NVDEC: {lack.why}"
