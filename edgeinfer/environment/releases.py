"""What NVIDIA released together. Tables of exact matches only: a release that is not here is unknown.

The Jetson tables follow NVIDIA's release pages and package lists; none could be checked on a device.
"""

from __future__ import annotations

JETPACK_OF_L4T = {
    "39.2.2": "7.2.2", "39.2.1": "7.2.1", "39.2.0": "7.2", "39.0.0": "7.2 EA",
    "38.4.0": "7.1", "38.2.2": "7.0", "38.2.1": "7.0", "38.2.0": "7.0",
    "36.5.2": "6.2.3", "36.5.0": "6.2.2", "36.4.7": "6.2.1", "36.4.4": "6.2.1", "36.4.3": "6.2",
    "36.4.2": "6.1", "36.4.0": "6.1", "36.3.0": "6.0", "36.2.0": "6.0 DP",
    "35.6.4": "5.1.6", "35.6.3": "5.1.5", "35.6.2": "5.1.5", "35.6.1": "5.1.5", "35.6.0": "5.1.4",
    "35.5.0": "5.1.3", "35.4.1": "5.1.2", "35.3.1": "5.1.1", "35.2.1": "5.1", "35.1.0": "5.0.2",
    "34.1.1": "5.0.1 DP", "34.1.0": "5.0 DP",
    "32.7.6": "4.6.6", "32.7.5": "4.6.5", "32.7.4": "4.6.4", "32.7.3": "4.6.3", "32.7.2": "4.6.2",
    "32.7.1": "4.6.1", "32.6.1": "4.6", "32.5.2": "4.5.1", "32.5.1": "4.5.1", "32.5.0": "4.5",
    "32.4.4": "4.4.1", "32.4.3": "4.4",
}  # fmt: skip

CAPABILITY_OF_SOC = {
    "tegra264": "11.0",  # Thor; CUDA up to 12.9 calls it 10.1
    "tegra234": "8.7",  # Orin
    "tegra194": "7.2",  # Xavier
    "tegra186": "6.2",  # TX2
    "tegra210": "5.3",  # Nano, TX1
}

_CUDA_12 = ("10.3.0.30",)
TENSORRT_OF_JETPACK = {
    "7.2.1": ("10.16.2.10",), "7.2": ("10.16.2.10",), "7.1": ("10.13.3.9",),
    "7.0": ("10.13.2.6", "10.13.3.9"),
    "6.2.3": _CUDA_12, "6.2.2": _CUDA_12, "6.2.1": _CUDA_12, "6.2": _CUDA_12, "6.1": _CUDA_12,
    "6.0": ("8.6.2.3",), "6.0 DP": ("8.6.2.3",),
}  # fmt: skip
"""Versions that came with a JetPack whose Python can run edgeinfer."""

DRIVER_FOR_CUDA = {13: 580, 12: 525, 11: 450}
"""CUDA major → the oldest driver branch that serves it on a PC or server, newest first.

From NVIDIA's "CUDA Compatibility", table of minor version compatibility.
"""
