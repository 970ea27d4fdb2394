"""FFmpeg's own lines go nowhere: what matters of them is in our errors."""

from __future__ import annotations

import av


def silence() -> None:
    """No callback into Python, whatever its level: a decoder's thread would wait there for the interpreter, while who
    holds it waits for that thread to end."""
    av.logging.set_level(None)
