"""Many viewers, and those that don't look any more, cost the others nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from websockets.sync.client import ClientConnection, connect

from edgeinfer.guard.limits import MAX_VIEWERS
from tests.browser import chromium, seen
from tests.browser.chromium import Browser
from tests.browser.conftest import Serve
from tests.browser.page import drawn, wait_for_pictures
from tests.browser.serving import Daemon, wait_for

pytestmark = pytest.mark.slow

ALLOWED_GROWTH = 24 << 20
IN_FLIGHT = 2


@contextmanager
def stopped(browser: Browser) -> Iterator[None]:
    """All processes of a browser are stopped, as with a laptop's lid."""
    pids = chromium.children(browser.driver.service.process.pid)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def test_a_viewer_that_is_stopped_costs_nobody_anything(serve: Serve, browser: Browser, tmp_path: Path) -> None:
    daemon = serve(cameras=2)
    process = psutil.Process(daemon.process.pid)
    (tmp_path / "other").mkdir()
    with chromium.browsing(tmp_path / "other") as other:
        for each in (browser, other):
            each.open(daemon.url)
            wait_for_pictures(each, cameras=2, more=5)
        other.js(
            "window.__frames = []; document.addEventListener('drawn', ({ detail }) => window.__frames.push(detail))"
        )
        before, resident = daemon.status(), process.memory_info().rss
        with stopped(other):
            wait_for_pictures(browser, cameras=2, more=100)
            after, grown = daemon.status(), process.memory_info().rss - resident
        wait_for_pictures(other, cameras=2, more=5)
        frames = other.js("return window.__frames.map(({ source, frame_id }) => [source, frame_id])")
    print(f"\nthe daemon grew by {grown / 1e6:.1f} MB")
    assert grown < ALLOWED_GROWTH
    for name, source in after["sources"].items():
        assert source["inferred"] - before["sources"][name]["inferred"] >= 100
        assert source["dropped"] == before["sources"][name]["dropped"]
        old = [frame for of, frame in frames if of == name and before["sources"][name]["captured"] < frame]
        late = [frame for frame in old if frame < source["captured"] - 2]
        assert len(late) <= IN_FLIGHT + 1, late  # what was on its way when it was stopped, and no more


def viewers(daemon: Daemon, count: int, stack: ExitStack) -> list[ClientConnection]:
    """So many connections that look at the first camera, and take nothing."""
    url = f"{daemon.url.replace('http', 'ws')}live?sources=cam0"
    return [stack.enter_context(connect(url, proxy=None)) for _ in range(count)]


def test_one_viewer_too_many_is_told_so_and_comes_in_when_there_is_room(serve: Serve, browser: Browser) -> None:
    daemon = serve(cameras=1)
    with ExitStack() as stack:
        others = viewers(daemon, MAX_VIEWERS, stack)
        browser.open(daemon.url)
        wait_for(lambda: "viewers" in browser.text("[data-notice]"), "the sentence")
        print(f"\n{browser.text('[data-notice]')}")
        assert drawn(browser) == {"cam0": 0}
        others[0].close()
        wait_for_pictures(browser, cameras=1)
        assert browser.text("[data-notice]") == ""


def test_the_last_viewer_that_is_let_in_sees_what_the_first_one_does(serve: Serve, browser: Browser) -> None:
    daemon = serve(cameras=1)
    with ExitStack() as stack:
        viewers(daemon, MAX_VIEWERS - 1, stack)
        browser.open(daemon.url)
        wait_for_pictures(browser, cameras=1)
        seen.watch(browser)
        pictures = seen.gather(browser, 20)
    assert [fault for each in pictures for fault in seen.faults(each, daemon.options("cam0"))] == []


def test_who_goes_to_another_page_gives_the_seat_back_and_finds_one_on_return(serve: Serve, browser: Browser) -> None:
    daemon = serve(cameras=1)

    def seats() -> int:
        return int(daemon.status()["daemon"]["http"]["viewers"])

    browser.open(daemon.url)
    wait_for_pictures(browser, cameras=1)
    assert seats() == 1
    browser.open("about:blank")  # the browser keeps the page, frozen, for the way back
    wait_for(lambda: seats() == 0, "the free seat", timeout_s=12)  # later the server notices by itself
    browser.driver.back()
    wait_for_pictures(browser, cameras=1, more=3)
    assert seats() == 1
    assert browser.complaints() == []
