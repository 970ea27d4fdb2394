"""A browser, and a daemon for it to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium
from tests.browser.serving import ROOT, Daemon, serving

SCREENSHOTS = ROOT / "build" / "screenshots"
Serve = Callable[..., Daemon]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[chromium.Browser]:
    """A Chromium of the test's own."""
    with chromium.browsing(tmp_path) as browser:
        yield browser


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a daemon with planted cameras; ended with the test."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Daemon:
            folder = tmp_path / "daemon"
            folder.mkdir(exist_ok=True)
            return stack.enter_context(serving(folder, **settings))

        yield start


@pytest.fixture
def keep_picture(browser: chromium.Browser) -> Callable[[str], None]:
    """Keeps what the browser shows among the artefacts."""

    def keep(name: str) -> None:
        browser.screenshot(SCREENSHOTS / f"{name}.png")

    return keep
