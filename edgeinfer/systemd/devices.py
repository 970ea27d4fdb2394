"""Which devices a service needs that reads cameras and computes on a GPU: by their names, and by NVIDIA's own lists."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

LISTS = Path("etc/nvidia-container-runtime/host-files-for-container.d")
"""JetPack's lists of what a container with a GPU is given: CSV, with lines like `dev, /dev/nvhost-ctrl`."""
MAX_LIST_BYTES = 1 << 20
NAMES = re.compile(
    r"video\d+|media\d+|v4l-subdev\d+|v4l2-nv.+|capture-.+|dri/(card|renderD)\d+|"  # cameras, decoders, pictures
    r"nvidia.*|nvidia-caps.*/.+|nvgpu/.+|nvhost-.+|nvmap|nvgpu|nvsciipc|host1x-.+|tegra.+|dma_heap/.+"
)
"""Names below /dev of cameras, GPUs and Tegra's engines: PC, JetPack 6 (nvgpu, nvhost), JetPack 7 on Thor (nvidia)."""
FOLDERS = ("*", "dri/*", "nvgpu/*/*", "nvidia-caps*/*", "dma_heap/*")


def devices(root: Path) -> list[str]:
    """Those that are there below ROOT/dev, as the service will call them."""
    dev = root / "dev"
    found = {path for folder in FOLDERS for path in dev.glob(folder) if NAMES.fullmatch(str(path.relative_to(dev)))}
    found.update(_listed(root))
    return sorted(f"/{path.relative_to(root)}" for path in found if _is_device(path))


def listed(text: str) -> Iterator[str]:
    """The paths below /dev of a list, without the leading slash. What is no such line counts for nothing."""
    for line in text.splitlines():
        kind, comma, path = (part.strip() for part in line.partition(","))
        if comma and kind == "dev" and path.startswith("/dev/") and ".." not in path.split("/"):
            yield path.lstrip("/")


def _listed(root: Path) -> Iterable[Path]:
    for file in sorted((root / LISTS).glob("*.csv")):
        try:
            with file.open(encoding="utf-8", errors="replace") as opened:
                text = opened.read(MAX_LIST_BYTES)
        except OSError:
            continue
        for name in listed(text):
            yield from _matching(root, name)


def _matching(root: Path, pattern: str) -> list[Path]:
    """NVIDIA's lists hold patterns, too."""
    try:
        return list(root.glob(pattern))
    except (ValueError, NotImplementedError, OSError):
        return []


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except (OSError, ValueError):
        return False
