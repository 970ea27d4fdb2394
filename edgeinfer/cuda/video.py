"""Whether NVDEC decodes a stream here, through PyNvVideoCodec; and if not, why, and what helps.

`likely` may be asked anywhere. The rest loads NVIDIA's libraries and makes a CUDA context.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeinfer.cuda import access
from edgeinfer.cuda.library import served
from edgeinfer.errors import EdgeinferError
from edgeinfer.recipe import RELEASE, on_jetson, pip

MODULE = "PyNvVideoCodec"
CODECS = {
    "h264": "H264",
    "hevc": "HEVC",
    "av1": "AV1",
    "libdav1d": "AV1",
    "vp8": "VP8",
    "vp9": "VP9",
    "libvpx-vp9": "VP9",
}
"""FFmpeg's name of a codec, or of its decoder → NVIDIA's."""
BITS = {"yuv420p": 8, "yuvj420p": 8, "nv12": 8, "yuv420p10le": 10, "p010le": 10, "yuv420p12le": 12}
"""FFmpeg's formats of YUV 4:2:0 → bits a sample."""
FIRST_ON_THOR = (39, 2)
"""L4T, whose driver has NVDEC's library for Thor as PCs have it."""
VIDEO = "a container needs NVIDIA_DRIVER_CAPABILITIES=all (or one with video); elsewhere see edgeinfer doctor"
GSTREAMER = "decoder: gstreamer uses it"
SOFTWARE = "decoder: av decodes on the CPU"
_forbidden: list[bool] = []
_asking = threading.Lock()


@dataclass(frozen=True, slots=True)
class Lack:
    """Why NVDEC is not for something, and what helps; both for people."""

    why: str
    hint: str


def forbid() -> None:
    """This process decodes nothing with NVDEC: it was made for one source, and a CUDA context is for many."""
    _forbidden.append(True)


def allowed() -> bool:
    """See `forbid`."""
    return not _forbidden


def likely(root: Path = Path("/")) -> Lack | None:
    """What can be seen to be lacking without loading anything; None for nothing."""
    if (lack := _of_board(root)) is not None:
        return lack
    if importlib.util.find_spec(MODULE) is None:
        return Lack(f"{MODULE} is not installed", pip("install 'edgeinfer[nvdec]'"))
    return Lack(access.NO_DRIVER, "see edgeinfer doctor") if served() is None else None


def lacks_here() -> Lack | None:
    """Why NVDEC decodes nothing here, not even H.264; None where it does."""
    if (lack := likely()) is not None:
        return lack
    try:
        caps = capabilities("H264", 8)
    except Exception as error:
        return _of_failure(error)
    return None if _supported(caps) else Lack("this GPU has no decoder", SOFTWARE)


def lacks(stream: Any) -> Lack | None:
    """Why NVDEC can't decode PyAV's `stream` here; None where it can."""
    context = stream.codec_context
    if context is None or context.name not in CODECS:
        return Lack(f"NVDEC has no {'such codec' if context is None else context.name}", SOFTWARE)
    if context.pix_fmt is not None and context.pix_fmt not in BITS:
        return Lack(f"{context.pix_fmt} is not YUV 4:2:0, which alone is read from NVDEC", SOFTWARE)
    if (lack := likely()) is not None:
        return lack
    try:
        caps = capabilities(CODECS[context.name], BITS.get(context.pix_fmt or "", 8))
    except Exception as error:
        return _of_failure(error)
    return _of_capabilities(caps, context)


def load() -> Any:
    """PyNvVideoCodec. Raises what it raises where the driver is not what it needs."""
    return importlib.import_module(MODULE)


def capabilities(codec: str, bits: int) -> dict[str, int]:
    """What the GPU decodes of a codec. Raises what PyNvVideoCodec does, and UnavailableError without CUDA."""
    with _asking:  # it makes a context for the question, which takes a while
        return _capabilities(codec, bits)


@functools.lru_cache(maxsize=32)
def _capabilities(codec: str, bits: int) -> dict[str, int]:
    access.find()
    nvc = load()
    found: dict[str, int] = nvc.GetDecoderCaps(
        gpuid=0,
        codec=getattr(nvc.cudaVideoCodec, codec),
        chromaformat=getattr(nvc.cudaVideoChromaFormat, "420"),
        bitdepth=bits,
    )
    return found


def _of_capabilities(caps: dict[str, int], context: Any) -> Lack | None:
    name = f"{context.name} with {caps.get('bitdepth', 8)} bits"
    if not _supported(caps):
        return Lack(f"this GPU does not decode {name}", SOFTWARE)
    width, height = context.width, context.height
    large = width > caps.get("width_max", width) or height > caps.get("height_max", height)
    blocks = -(-width // 16) * -(-height // 16)
    if large or blocks > caps.get("mb_num_max", blocks):
        return Lack(f"{width} × {height} is more than this GPU decodes of {name}", SOFTWARE)
    if 0 < width < caps.get("width_min", 0) or 0 < height < caps.get("height_min", 0):
        return Lack(f"{width} × {height} is less than this GPU decodes of {name}", SOFTWARE)
    return None


def _supported(caps: dict[str, int]) -> bool:
    return bool(caps.get("supported", caps.get("width_max", 1)))


def _of_failure(error: Exception) -> Lack:
    text = next(iter(str(error).splitlines()), "")[:300]
    if isinstance(error, EdgeinferError):
        return Lack(error.message, error.hint)
    if re.search(r"libnv(cuvid|idia-encode)", str(error)):
        return Lack("the driver's video libraries are not here (libnvcuvid.so.1, libnvidia-encode.so.1)", VIDEO)
    if "too old" in text:
        return Lack(f"the NVIDIA driver is too old for {MODULE}", "update the driver")
    return Lack(f"{MODULE} fails: {text or type(error).__name__}", SOFTWARE)


def _of_board(root: Path) -> Lack | None:
    """Of a Jetson. Before Thor's, their decoder is behind another interface, which GStreamer's plugin uses."""
    if not on_jetson(root):
        return None
    try:
        text = (root / RELEASE).read_text(encoding="utf-8", errors="replace")[:200]
    except OSError:
        text = ""
    found = re.match(r"# R(\d+) \(release\), REVISION: (\d+)", text)
    if found and (int(found[1]), int(found[2])) >= FIRST_ON_THOR:
        return None
    return Lack("this Jetson's decoder is reached through GStreamer alone", GSTREAMER)
