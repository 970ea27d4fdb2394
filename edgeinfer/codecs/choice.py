"""Which decoder a stream gets.

NVDEC decodes in processes that sources share, and nothing else does: FFmpeg's decoders read what others send in a
process for each source. Which of the two a source is opened in first, `wants_nvdec` says.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

from edgeinfer.codecs.decoder import Elsewhere, VideoDecoder
from edgeinfer.codecs.nvdec import NvDecoder
from edgeinfer.codecs.software import SoftwareDecoder
from edgeinfer.cuda import video
from edgeinfer.errors import UnavailableError

Wanted = Literal["auto", "av", "nvdec"]
TURNED = video.Lack("it does not turn pictures, as this file says they are to be", "decoder: av does")
ALONE = video.Lack("it decodes in processes that sources share alone", "leave out isolated and memory_mb")
_instead: list[str] = []


def wants_nvdec(wanted: Wanted, live: bool, root: Path = Path("/")) -> bool:
    """Whether a source is to be opened where NVDEC decodes. Cheap, and no promise: that shows there.

    A file is where TensorRT is: elsewhere the network reads pictures in host memory, and is slower than FFmpeg.
    """
    if wanted != "auto":
        return wanted == "nvdec"
    return video.likely(root) is None and (live or importlib.util.find_spec("tensorrt") is not None)


def came_from_elsewhere(why: str) -> None:
    """This process was made for a stream that could not be decoded where it was tried first."""
    _instead.append(why)


def open_decoder(stream: Any, what: str, wanted: Wanted, live: bool, turned: bool = False) -> VideoDecoder:
    """A decoder for PyAV's `stream`. `what` is the source in errors, `live` whether its pictures are wanted at once.

    `turned`: its pictures are to be turned, as a telephone's are. Raises CameraError where nothing here decodes it,
    UnavailableError where what is wanted is not here, and Elsewhere.
    """
    if wanted != "av" and video.enabled():
        lack = TURNED if turned else video.lacks(stream)
        if lack is None:
            why = "as configured" if wanted == "nvdec" else "this GPU decodes it"
            return NvDecoder(stream, what, why, optional=wanted == "auto")
        if wanted == "auto":
            raise Elsewhere(lack.why)
        raise _not_here(what, lack)
    if wanted == "nvdec":
        raise _not_here(what, video.likely() or ALONE)
    return SoftwareDecoder(stream, what, live, _why_software(wanted, live))


def _not_here(what: str, lack: video.Lack) -> UnavailableError:
    return UnavailableError(f"{what}: decoder: nvdec: {lack.why}", lack.hint)


def _why_software(wanted: Wanted, live: bool) -> str:
    if wanted == "av":
        return "as configured"
    if _instead:
        return f"NVDEC: {_instead[-1]}"
    if (lack := video.likely()) is not None:
        return f"NVDEC: {lack.why}"
    return f"NVDEC: {ALONE.why}" if wants_nvdec("auto", live) else "a file, and no TensorRT that reads the GPU's memory"
