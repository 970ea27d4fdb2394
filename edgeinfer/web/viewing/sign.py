"""What stands in a stream of pictures while a source gives none: an old one would pass for what is there now."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeinfer.messages import StatusMessage
from edgeinfer.pictures.lettering import WHITE, heights, shortened, writable, write
from edgeinfer.pictures.showing import jpeg

BACKGROUND, MARGIN, LETTERS = 32, 16, 0.6
MAX_SIGN_WIDTH = 1280


@dataclass(frozen=True, slots=True)
class Sign:
    """Its lines."""

    lines: tuple[str, ...]

    @staticmethod
    def of(status: StatusMessage | None, source: str) -> Sign | None:
        """What there is to say of a source; None of one that runs or has not been heard of."""
        if status is None or status.state == "running":
            return None
        why = (status.reason.text,) if status.reason is not None else ()
        return Sign((f"{source}: {status.state}", *why))

    def jpeg(self, width: int) -> bytes:
        """As a picture of 16:9."""
        width = min(width, MAX_SIGN_WIDTH)
        image = np.full((max(1, width * 9 // 16), width, 3), BACKGROUND, np.uint8)
        above, below = heights(LETTERS)
        for number, line in enumerate(self.lines):
            text = shortened(writable(line), width - 2 * MARGIN, LETTERS)
            write(image, text, (MARGIN, MARGIN + above + number * 2 * (above + below)), LETTERS, WHITE)
        return jpeg(image)
