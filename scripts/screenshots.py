"""Takes the pictures in docs/images of a daemon with demo cameras, one of which can't be reached.

    scripts/screenshots [--check]

DIGESTS says beside them which code drew each. With `--check` nothing is taken; a picture that other code drew is named,
and the exit code is 1. The machine's own name is not in them.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import yaml
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent.parent))

from edgeinfer.client import Subscriber
from edgeinfer.commands import _drawing, _overview, _report, top
from edgeinfer.commands._remote import RemoteDaemon, ask
from edgeinfer.sources import demo

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
STATIC = ROOT / "edgeinfer" / "web" / "static"
SIZE = 1280, 800
QUALITY = 72
PATIENCE_S = 60.0
WARM_S = 40.0
"""Until rates and latencies are those of a daemon that has been running for a while."""
CAMERAS = {
    "entrance": {"uri": "demo:", "fps": 5, "width": 960, "height": 540},
    "yard": {"uri": "rtsp://127.0.0.1:9/yard", "stall_s": 1, "timeout_s": 2},
    "office": {"uri": "demo:", "fps": 2, "width": 960, "height": 540},
    "garage": {"uri": "demo:", "fps": 3.5, "width": 960, "height": 540},
}
"""Of different rates, so that a moment comes at which each shows another scene."""
NAME = "edge"
"""In the place of the machine's."""


def drawing_code() -> dict[str, list[bytes]]:
    """Picture → the code that draws it, piece by piece."""
    page = [path for path in sorted(STATIC.rglob("*")) if path.is_file()]
    terminal = [inspect.getsource(part).encode() for part in (top, _overview, _drawing, _report.plain_table)]
    named = [piece for path in page for piece in (path.relative_to(STATIC).as_posix().encode(), path.read_bytes())]
    return {"page.webp": named, "top.svg": terminal}


def digests() -> str:
    """What DIGESTS says of pictures that are current, a line each."""
    made = {name: hashlib.sha256(b"\0".join(pieces)).hexdigest() for name, pieces in drawing_code().items()}
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(made.items()))


def old() -> list[str]:
    """The pictures that other code drew than there is now."""
    path = IMAGES / "DIGESTS"
    kept = set(path.read_text().splitlines()) if path.exists() else set()
    return [line.split()[1] for line in digests().splitlines() if line not in kept]


def main() -> int:
    """Returns 1 where `--check` finds something that is not current."""
    if "--check" in sys.argv:
        sys.stderr.writelines(f"docs/images/{name} is not current; run scripts/screenshots\n" for name in old())
        return 1 if old() else 0
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, _daemon(Path(folder)) as (address, endpoint):
        time.sleep(WARM_S)
        _take_page(Path(folder), address)
        _take_top(endpoint)
    (IMAGES / "DIGESTS").write_text(digests())
    for path in sorted(IMAGES.iterdir()):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")
    return 0


@contextmanager
def _daemon(folder: Path) -> Iterator[tuple[str, str]]:
    """A running daemon: the page's address and the endpoint that it publishes at."""
    endpoint, said = f"ipc://{folder}/s", folder / "said"
    config = {
        "sources": CAMERAS,
        "publish": {"bind": endpoint},
        "http": {"bind": "127.0.0.1:0", "web": True},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "edgeinfer", "run", "--config", str(folder / "config.yaml")]
    with said.open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)  # noqa: S603
    try:
        until = time.monotonic() + PATIENCE_S
        while (found := re.search(r"page (http://\S+)", said.read_text())) is None:
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < until, said.read_text()
            time.sleep(0.1)
        yield found[1], endpoint
    finally:
        process.terminate()
        process.wait()


def _take_page(folder: Path, address: str) -> None:
    import cv2  # noqa: PLC0415 (not for --check)

    from tests.browser.chromium import browsing  # noqa: PLC0415 (not for --check)

    with browsing(folder) as browser:
        browser.size(*SIZE)
        browser.scheme("dark")
        browser.open(address)
        shown = "return [...document.querySelectorAll('camera-tile')].flatMap(({ last }) => last?.frame_id ?? [])"
        until = time.monotonic() + PATIENCE_S
        while len({demo.scene_number(frame) for frame in browser.js(shown)}) < len(CAMERAS) - 1:
            assert time.monotonic() < until, browser.text()
            time.sleep(0.1)
        browser.js("document.querySelector('.host').remove()")
        browser.screenshot(folder / "page.png")
    picture = cv2.imread(str(folder / "page.png"))
    assert picture is not None
    cv2.imwrite(str(IMAGES / "page.webp"), picture, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])


def _take_top(endpoint: str) -> None:
    with Subscriber(endpoint, kinds=("info", "status")) as subscriber:
        overview = ask(subscriber, PATIENCE_S)
    console = Console(file=io.StringIO(), record=True, width=118, highlight=False, markup=False, emoji=False)
    console.print(_overview.page(_nameless(overview)))
    svg = console.export_svg(title="edgeinfer top")
    # Its fonts would be fetched from elsewhere; a picture in a page may not do that, and falls back to another.
    (IMAGES / "top.svg").write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


def _nameless(overview: RemoteDaemon) -> RemoteDaemon:
    assert overview.info is not None
    return RemoteDaemon(msgspec.structs.replace(overview.info, host=NAME), overview.daemon, overview.sources)


if __name__ == "__main__":
    sys.exit(main())
