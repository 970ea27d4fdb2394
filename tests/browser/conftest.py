"""A browser, and a daemon for it to look at."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import WebDriverException

from tests.browser import chromium
from tests.browser.serving import ROOT, Daemon, serving

SCREENSHOTS = ROOT / "build" / "screenshots"
Serve = Callable[..., Daemon]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keeps what the browser showed when a test failed."""
    report = yield
    shown = getattr(item, "funcargs", {}).get("browser")
    if report.failed and report.when == "call" and shown is not None:
        with suppress(WebDriverException):  # it may have been what failed
            shown.screenshot(SCREENSHOTS / "failed" / f"{re.sub(r'[^a-z0-9]+', '-', item.name)}.png")
    return report


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
