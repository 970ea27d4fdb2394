"""Which decoder a stream gets."""

from __future__ import annotations

from typing import Any, Literal

from edgeinfer.codecs.decoder import VideoDecoder
from edgeinfer.codecs.software import SoftwareDecoder
from edgeinfer.errors import UnavailableError

Wanted = Literal["auto", "av", "nvdec"]


def open_decoder(stream: Any, what: str, wanted: Wanted, live: bool) -> VideoDecoder:
    """A decoder for PyAV's `stream`. `what` is the source in errors, `live` whether its pictures are wanted at once.

    Raises CameraError where nothing here decodes it, and UnavailableError where what is wanted is not here.
    """
    if wanted == "nvdec":
        raise UnavailableError(f"{what}: there is no NVDEC here", "decoder: auto takes what there is")
    why = "as configured" if wanted == "av" else "there is no other decoder here"
    return SoftwareDecoder(stream, what, live, why)
