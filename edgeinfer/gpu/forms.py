"""What the letterbox kernel is told of a picture but its addresses: alike for all of one size, layout and colour."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from edgeinfer.config.card import InputCard
from edgeinfer.gpu.kernel_code import Layout, form
from edgeinfer.pictures.host import HostSurface
from edgeinfer.preprocess.letterbox import geometry
from edgeinfer.types import Colour, Image, Letterbox, Planes, Surface

_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Form:
    """How a picture lies in the input, and the kernel's `Picture` after its addresses.

    `u`, `v`: where they begin in a block that begins with luma, in bytes; 0 for BGR.
    """

    box: Letterbox
    packed: bytes
    u: int = 0
    v: int = 0


class Forms:
    """Remembers the forms of what has been seen, for one card and one score threshold."""

    def __init__(self, card: InputCard) -> None:
        self._card = card
        self._score = 0.0
        self._known: dict[Hashable, Form] = {}

    def expect(self, score: float) -> None:
        """Sets the threshold of the pictures from now on."""
        self._score = score
        self._known.clear()

    def of_image(self, image: Image) -> Form:
        """Of a BGR image without gaps between its rows."""
        shape = image.shape
        return self._known.get(shape) or self._kept(shape, lambda: self._bgr(shape[1], shape[0]))

    def of_block(self, surface: HostSurface) -> Form:
        """Of a surface in host memory that lies in one block, wherever the GPU reads that."""
        key = surface.shape, surface.colour
        return self._known.get(key) or self._kept(key, lambda: self._yuv(surface, surface.shape.planes(0)))

    def of_planes(self, surface: Surface, planes: Planes) -> Form:
        """Of a surface whose planes are read where they are."""
        layout = planes.luma_pitch, planes.chroma_pitch, planes.chroma_step, planes.depth
        key = surface.width, surface.height, layout, surface.colour
        return self._known.get(key) or self._kept(key, lambda: self._yuv(surface, planes))

    def _bgr(self, width: int, height: int) -> Form:
        box = geometry(width, height, self._card)
        return Form(box, form(box, Layout(3 * width), Colour(), self._score))

    def _yuv(self, surface: Surface, planes: Planes) -> Form:
        box = geometry(surface.width, surface.height, self._card)
        layout = Layout(planes.luma_pitch, planes.depth, planes.chroma_pitch, planes.chroma_step)
        packed = form(box, layout, surface.colour, self._score)
        return Form(box, packed, planes.u - planes.luma, planes.v - planes.luma)

    def _kept(self, key: Hashable, make: Callable[[], Form]) -> Form:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[key] = made = make()
        return made
