"""What tests do in the page, and read of it, by the names that it has for that."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

from tests.browser.chromium import Browser
from tests.browser.firefox import Firefox
from tests.browser.serving import wait_for

VIEWS = {
    "cameras": "#/",
    "camera": "#/camera/cam0",
    "plots": "#/plots",
    "model": "#/model",
    "events": "#/events",
    "config": "#/config",
}
SHOWN = {
    "cameras": "camera-tile[data-fresh=true]",
    "camera": "camera-view [data-found] td",
    "plots": "[data-plot=fps] .uplot",
    "model": "[data-panel=labels]",
    "events": "[data-event]",
    "config": "config-view [data-editor]",
}
"""What is there once a view has what it shows."""


def drawn(browser: Browser | Firefox) -> dict[str, int]:
    """How many pictures of each camera the page has drawn."""
    found: dict[str, int] = browser.js(
        "return Object.fromEntries([...document.querySelectorAll('camera-tile')]"
        ".map(({ dataset }) => [dataset.source, Number(dataset.drawn)]))"
    )
    return found


def wait_for_pictures(browser: Browser | Firefox, cameras: int, more: int = 1) -> None:
    """Until so many cameras have drawn so many more pictures than now."""
    before = drawn(browser)

    def came() -> bool:
        return sum(count >= before.get(name, 0) + more for name, count in drawn(browser).items()) >= cameras

    wait_for(came, f"{more} pictures of {cameras} cameras")


def veil(browser: Browser, source: str) -> dict[str, Any]:
    """What stands over a camera's picture: its words, and whether they are on top. Empty where it is live."""
    found: dict[str, Any] = browser.js(
        """
        const tile = document.querySelector(`camera-tile[data-source="${arguments[0]}"]`);
        const { left, top, width, height } = tile.canvas.getBoundingClientRect();
        const veil = tile.querySelector("[data-veil]");
        if (veil.hidden) return {};
        veil.style.pointerEvents = "auto"; // one that lets the mouse through is not found otherwise
        const there = document.elementsFromPoint(left + width / 2, top + height / 2);
        const [over, under] = [there.findIndex((node) => veil.contains(node)), there.indexOf(tile.canvas)];
        const words = (name) => tile.querySelector(`[data-veil-${name}]`).textContent;
        return { title: words("title"), text: words("text"), over: over >= 0 && over < under };
        """,
        source,
    )
    return found


def go(browser: Browser | Firefox, view: str) -> None:
    """Opens a view, and waits until it shows something."""
    browser.js("location.hash = arguments[0]", VIEWS[view])
    wait_for(
        lambda: browser.js("return document.querySelector(arguments[0]) !== null", SHOWN[view]), f"the view {view}"
    )


def exists(browser: Browser, selector: str) -> bool:
    """Whether such an element is there, and can be seen."""
    return bool(browser.js("return document.querySelector(arguments[0])?.checkVisibility() ?? false", selector))


def axe_source(root: Path) -> str | None:
    """The script of axe-core, as npm packs it into build/axe; None where it is not there."""
    for archive in sorted((root / "build" / "axe").glob("axe-core-*.tgz")):
        with tarfile.open(archive) as packed:
            file = packed.extractfile("package/axe.min.js")
            return None if file is None else file.read().decode()
    return None
