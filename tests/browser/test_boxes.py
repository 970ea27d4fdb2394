"""Boxes lie on what was found, on every picture that is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import firefox, seen
from tests.browser.chromium import Browser
from tests.browser.conftest import Serve
from tests.browser.page import VIEWS, go, wait_for_pictures

pytestmark = pytest.mark.slow

DRAWN, DRAWN_BY_FIREFOX = 200, 60


def test_every_box_lies_on_its_square(serve: Serve, browser: Browser) -> None:
    daemon = serve(cameras=4)
    browser.open(daemon.url)
    wait_for_pictures(browser, cameras=4)
    seen.watch(browser)
    pictures = seen.gather(browser, DRAWN)
    assert [fault for each in pictures for fault in seen.faults(each, daemon.options(each.source))] == []
    assert {each.source for each in pictures} == set(daemon.names)
    assert browser.complaints() == []


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (1280, 960)], ids=["640x360", "360x640", "1280x960"])
def test_every_box_lies_on_its_square_in_a_large_picture(serve: Serve, browser: Browser, size: tuple[int, int]) -> None:
    daemon = serve(cameras=2, sizes=[size, size])
    browser.open(f"{daemon.url}#/camera/cam1")
    wait_for_pictures(browser, cameras=1)
    seen.watch(browser)
    pictures = seen.gather(browser, 30)
    assert [fault for each in pictures for fault in seen.faults(each, daemon.options("cam1"))] == []
    assert {(each.source, each.size) for each in pictures} == {("cam1", size)}


def test_every_box_lies_on_its_square_in_firefox_and_every_view_is_shown(serve: Serve, tmp_path: Path) -> None:
    with firefox.browsing(tmp_path) as browser:
        daemon = serve(cameras=2)
        browser.open(daemon.url)
        wait_for_pictures(browser, cameras=2)
        seen.watch(browser)
        pictures = seen.gather(browser, DRAWN_BY_FIREFOX)
        assert [fault for each in pictures for fault in seen.faults(each, daemon.options(each.source))] == []
        assert {each.source for each in pictures} == set(daemon.names)
        for view in VIEWS:
            go(browser, view)
        assert browser.complaints() == []
        assert browser.console == []
