"""Bounds that more than one module needs."""

MAX_PIXELS = 1 << 26
"""Of a picture: 8192 × 8192. A few hundred kilobytes can promise gigabytes of pixels."""
