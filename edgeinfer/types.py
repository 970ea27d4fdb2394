"""What flows through the pipeline: frozen data, numpy only.

A frame's image is written once, by its source, and only read after that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from edgeinfer.messages import ModelInfo

Image = npt.NDArray[np.uint8]
"""(H, W, 3) uint8, BGR, C-contiguous."""

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
AnyArray = npt.NDArray[Any]

Matrix = Literal["bt601", "bt709", "bt2020"]

CaptureClock = Literal["driver", "rtcp", "arrival", "file"]
"""Who stamped a frame: the camera driver, the sender's RTCP clock, our clock on arrival, or a file being read."""


@dataclass(frozen=True, slots=True)
class Colour:
    """How YUV samples are to be read: the matrix, and whether luma goes from 0 to 255 (`full_range`) or 16 to 235.

    Rec. ITU-R BT.601-7, BT.709-6 and BT.2020-2 (non-constant luminance).
    """

    matrix: Matrix = "bt601"
    full_range: bool = False


@dataclass(frozen=True, slots=True)
class Planes:
    """Where a YUV 4:2:0 picture lies: addresses of its samples, in host or device memory; lengths in bytes.

    luma: (height, width) samples, rows `luma_pitch` apart. u, v: ((height + 1) // 2, (width + 1) // 2) samples each,
    rows `chroma_pitch` and neighbours `chroma_step` apart. A sample has `depth` bytes: 1, or 2 (little endian, the
    value in the upper bits, as in P010). Chroma samples lie on the left luma column of their pair, and between its rows
    (chroma_sample_loc_type 0 of Rec. ITU-T H.264, the default).
    """

    luma: int
    u: int
    v: int
    luma_pitch: int
    chroma_pitch: int
    chroma_step: int
    depth: int


@runtime_checkable
class Surface(Protocol):
    """A picture as a decoder gives it, YUV 4:2:0. Its memory is lent: it goes back when nobody refers to the surface.

    `on_device`: whether its planes lie in the memory of GPU 0. `written`: a CUDA event after which they are there; it
    is for a stream to wait for before it reads them, and 0 where they are there already.
    """

    @property
    def written(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def planes(self) -> Planes: ...

    @property
    def colour(self) -> Colour: ...

    @property
    def on_device(self) -> bool: ...

    def image(self) -> Image:
        """The picture as BGR in host memory, made once and shared by all who ask; read-only. Any thread may ask.

        Raises StalledError where there is no memory for it in time.
        """

    def sample(self, grid: int) -> bytes:
        """Some of its luma, about `grid` × `grid` samples spread over the picture. Alike in alike pictures."""


Picture = Image | Surface
"""What a source may give."""


@dataclass(frozen=True, slots=True)
class Capture:
    """One picture as a source hands it over.

    `t_ns` is CLOCK_REALTIME and `t_mono_ns` CLOCK_MONOTONIC of the same instant; `t_media_ns` is the position in
    the medium (a file's timeline), where there is one. `seen` is width and height of what the camera saw, where the
    picture is a smaller copy of it; results are told in its pixels.
    """

    picture: Picture
    t_ns: int
    t_mono_ns: int
    clock: CaptureClock = "arrival"
    t_media_ns: int | None = None
    seen: tuple[int, int] | None = None

    @property
    def image(self) -> Image:
        """The picture, (H, W, 3) uint8 BGR in host memory, read-only. See `Surface.image` for what it may raise."""
        return self.picture if isinstance(self.picture, np.ndarray) else self.picture.image()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, of what the camera saw."""
        return self.seen or size_of(self.picture)


def size_of(picture: Picture) -> tuple[int, int]:
    """Width and height of a picture itself, in pixels."""
    if isinstance(picture, np.ndarray):
        return picture.shape[1], picture.shape[0]
    return picture.width, picture.height


@dataclass(frozen=True, slots=True)
class DecoderChoice:
    """What decodes a source, as `decoder` in the configuration names it, and why that, in a few words for people."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Start:
    """How many seconds opening a source may take, where that is longer than usual, and why, for people."""

    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A capture with its place in the run. `frame_id` counts the frames captured from `source`, from 0.

    `live`: whether its source would rather lose it than wait. `t_received_mono_ns` is when the daemon had it.
    """

    source: str
    frame_id: int
    capture: Capture
    live: bool
    t_received_mono_ns: int = field(default_factory=time.monotonic_ns)

    @property
    def image(self) -> Image:
        """See `Capture.image`."""
        return self.capture.image


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How a frame was fitted into the model's input: scaled per axis, then shifted by the padding.

    Lengths are in pixels; a frame pixel x lies at `x * scale_x + pad_x` of the input.
    """

    frame_width: int
    frame_height: int
    scale_x: float
    scale_y: float
    pad_x: int
    pad_y: int

    @property
    def table(self) -> Float32:
        """(3, 4): shift, scale and limit of x1 y1 x2 y2. Shared, not to be written to."""
        return _table(self)

    def seen_as(self, width: int, height: int) -> Letterbox:
        """The same for a frame of that size, of which a copy of another size was fitted."""
        across, down = self.frame_width / width, self.frame_height / height
        return Letterbox(width, height, self.scale_x * across, self.scale_y * down, self.pad_x, self.pad_y)

    def to_frame(self, boxes: Float32) -> Float32:
        """Maps (n, 4) x1 y1 x2 y2 boxes from input to frame pixels, clipped to the frame. Returns a new array."""
        shift, scale, limit = self.table
        inside: Float32 = np.clip((boxes - shift) / scale, 0, limit)
        return inside


@lru_cache(maxsize=256)
def _table(box: Letterbox) -> Float32:
    rows = ((box.pad_x, box.pad_y), (box.scale_x, box.scale_y), (box.frame_width, box.frame_height))
    return np.array([row * 2 for row in rows], np.float32)


@dataclass(frozen=True, slots=True)
class Detections:
    """Objects found in one frame, best score first.

    boxes: (n, 4) float32, x1 y1 x2 y2 in pixels of the frame, origin top left.
    scores: (n,) float32, 0 to 1.
    class_ids: (n,) int32, indices into the model's labels.
    """

    boxes: Float32
    scores: Float32
    class_ids: Int32

    def __post_init__(self) -> None:
        n = len(self.scores)
        shapes = (self.boxes.shape, self.scores.shape, self.class_ids.shape)
        if shapes != ((n, 4), (n,), (n,)):
            raise ValueError(f"expected boxes, scores and class_ids of shapes {((n, 4), (n,), (n,))}, got {shapes}")

    def __len__(self) -> int:
        return len(self.scores)

    @staticmethod
    def empty() -> Detections:
        """Nothing found."""
        return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a frame's time went until its result was there, in milliseconds. A batch's times are of the whole batch.

    `queue` + `preprocess` + `wait` + `infer` + `decode` is all of it. `receive` is the part of `queue` from the
    capture's stamp until the daemon had the frame, and `wait` what the batch was in the backend for beside `infer`.
    """

    queue: float
    preprocess: float
    infer: float
    decode: float
    receive: float = 0.0
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """A frame with what was found in it. `seq` counts the results of a source without gaps, from 0.

    `dropped` is how many of its frames were dropped so far, `backend` what ran the network on this one and `model`
    which network that was. `t_ready_mono_ns` is when it was there.
    """

    frame: Frame
    seq: int
    detections: Detections
    timing: Timing
    dropped: int
    backend: str
    model: ModelInfo
    t_ready_mono_ns: int = field(default_factory=time.monotonic_ns)

    def publish_ms(self, t_publish_mono_ns: int) -> float:
        """How long it took from being there to being published at that time."""
        return (t_publish_mono_ns - self.t_ready_mono_ns) / 1e6


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a model. `shape` holds -1 where the size is free."""

    name: str
    shape: tuple[int, ...]
    dtype: str


Outputs = Mapping[str, AnyArray]
"""Output name → array with the batch as its first axis. Valid until the slot that holds it is released."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The rows of a batch's outputs that reached the score threshold, picture by picture, each in the rows' order.

    boxes: (n, 4) float32 as the network writes them. scores: (n,) float32. class_ids: (n,) int32, the best class.
    counts: (N,) int, how many belong to each picture.
    """

    boxes: Float32
    scores: Float32
    class_ids: Int32
    counts: npt.NDArray[np.intp]
