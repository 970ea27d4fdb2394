"""What is known of the CUDA kernels in `kernels/`: code, structs, constants. No GPU is touched here."""

from __future__ import annotations

import re
import struct
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from edgeinfer.config.card import InputCard
from edgeinfer.pictures.colour import coefficients
from edgeinfer.types import Colour, Letterbox

TEGRA = frozenset({(5, 3), (6, 2), (7, 2), (8, 7), (10, 1), (11, 0)})
"""Compute capabilities of Tegra chips: TX1, TX2, Xavier, Orin, and Thor as CUDA 12 and as CUDA 13 count."""

KERNELS = Path(__file__).parent / "kernels"

PLACES, FORM = struct.Struct("<3Q"), struct.Struct("<10i7f4x")
"""`Picture` of frames.cu: where it lies (its pixels, u and v), and everything else."""
PICTURE_BYTES = PLACES.size + FORM.size

CANDIDATE = np.dtype(
    [("box", np.float32, 4), ("score", np.float32), ("class_id", np.int32), ("row", np.int32), ("unused", np.int32)]
)
"""`Candidate` of frames.cu."""


@dataclass(frozen=True, slots=True)
class Constants:
    """Of the letterbox kernel: a value of output channel k is `level * scale[k] + bias[k]`."""

    fill: float
    swap: bool
    scale: tuple[float, float, float]
    bias: tuple[float, float, float]


def constants(card: InputCard) -> Constants:
    """As the card says."""
    scale = [1 / std for std in card.std]
    bias = [-mean / std for mean, std in zip(card.mean, card.std, strict=True)]
    return Constants(float(card.fill), card.color == "rgb", (scale[0], scale[1], scale[2]), (bias[0], bias[1], bias[2]))


@dataclass(frozen=True, slots=True)
class Layout:
    """How samples lie, in bytes: `Planes` without the addresses. For BGR all but `pitch` count for nothing."""

    pitch: int
    depth: int = 1
    chroma_pitch: int = 0
    chroma_step: int = 0


def form(box: Letterbox, layout: Layout, colour: Colour, score: float) -> bytes:
    """All of a `Picture` but its addresses."""
    fit = round(box.frame_width * box.scale_x), round(box.frame_height * box.scale_y)
    size = box.frame_width, box.frame_height
    lies = layout.pitch, layout.depth, layout.chroma_pitch, layout.chroma_step
    return FORM.pack(*size, *lies, *fit, box.pad_x, box.pad_y, *astuple(coefficients(colour)), score)


def code(major: int, minor: int, folder: Path = KERNELS) -> bytes | None:
    """The compiled kernels for a compute capability; None where there are none that it runs.

    Its own, else those of the same major version and the nearest lower minor one. That holds among graphics cards only:
    a Tegra runs its own and no other, and no card runs a Tegra's (CUDA C++ Programming Guide, "Binary Compatibility").
    """
    made = {divmod(int(match[1]), 10): path for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    if (major, minor) in made:
        return made[major, minor].read_bytes()
    fitting = [own for own in made if own[0] == major and own[1] < minor and not TEGRA & {own, (major, minor)}]
    return made[max(fitting)].read_bytes() if fitting else None


_NAME = re.compile(r"sm_(\d+)\.cubin")
