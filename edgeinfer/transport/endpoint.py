"""Where a daemon publishes and its subscribers look for it, unless they are told otherwise."""

from __future__ import annotations

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5555"
"""On loopback, where no other machine can reach it."""
