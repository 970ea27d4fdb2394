"""The ways of feeding the pipeline that are measured, as configurations."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, get_args

from msgspec import Struct

from edgeinfer.bench.figures import Feed
from edgeinfer.config.settings import Config, load_config

Kind = Literal["memory", "file", "video", "rtsp", "live"]
"""Frames from memory and a video, as fast as can be; videos at their own rate, network cameras, and frames from memory
at 30 a second, which come by themselves."""
KINDS: tuple[Kind, ...] = get_args(Kind)
LIVE = ("video", "rtsp", "live")
FROM_MEMORY = ("memory", "live")

MEMORY = "edgeinfer.bench.memory:"
LIVE_FPS, LIVE_FRAMES = 30, 150
FEWEST_FRAMES = 20
FILES = (1, 8)
"""So many copies of the video are played as fast as can be, whatever else is asked for."""

Overrides = list[tuple[str, Any]]


class BenchPlan(Struct, frozen=True):
    """What to measure: `sources` are the numbers of sources to feed, `rtsp` those of network cameras.

    With `growth` videos and cameras are measured with 1, 2, 4, … up to that many too; `only` leaves out other kinds.
    """

    clip: str | None
    sources: tuple[int, ...]
    rounds: int
    frames: int
    rtsp: tuple[int, ...] = ()
    growth: int = 0
    only: Collection[str] = KINDS

    def ways(self) -> list[Way]:
        """In the order in which they are measured and shown."""
        powers = {min(1 << power, self.growth) for power in range(self.growth.bit_length() + 1)} - {0}
        numbers: dict[Kind, Collection[int]] = {
            "memory": self.sources,
            "file": sorted({*FILES, *self.sources}),
            "video": sorted({*self.sources, *powers}),
            "rtsp": sorted({*self.rtsp, *(powers if self.rtsp else ())}),
            "live": self.sources,
        }
        return [Way(kind, number) for kind in KINDS if kind in self.only for number in numbers[kind]]


class Way(Struct, frozen=True):
    """A kind of sources, and how many of them."""

    kind: Kind
    sources: int

    @property
    def label(self) -> str:
        """As tables call it."""
        return self.kind if self.sources == 1 else f"{self.kind} ×{self.sources}"

    @property
    def live(self) -> bool:
        """Whether its sources set the pace themselves."""
        return self.kind in LIVE

    def feed(self, config: Config) -> Feed:
        """What is shown in it."""
        uri = str(next(iter(config.sources.values())).uri)
        return Feed(Path(uri).name if "/" in uri else uri, self.sources, self.live)


def configured(way: Way, overrides: Overrides, frames: int, clip: str, camera: str) -> Config:
    """The daemon's configuration for a way. `frames` are in all, or of each source that sets the pace itself."""
    each = min(frames, LIVE_FRAMES) if way.live else max(FEWEST_FRAMES, frames // way.sources)
    tables: dict[Kind, dict[str, Any]] = {
        "memory": {"uri": MEMORY, "frames": each},
        "file": {"uri": clip, "loop": True},
        "video": {"uri": clip, "loop": True, "realtime": True},
        "rtsp": {"uri": camera},
        "live": {"uri": MEMORY, "frames": each, "fps": LIVE_FPS},
    }
    sources = [(f"sources.s{number}", dict(tables[way.kind])) for number in range(way.sources)]
    return load_config(None, [("publish.bind", "tcp://127.0.0.1:*"), *overrides, ("frames", each), *sources])
