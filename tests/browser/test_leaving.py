"""A daemon that ends while somebody looks, comes back, and changes."""

from __future__ import annotations

import signal

import pytest

from tests.browser import seen
from tests.browser.chromium import Browser
from tests.browser.conftest import Serve
from tests.browser.page import drawn, veil, wait_for_pictures
from tests.browser.serving import wait_for

pytestmark = pytest.mark.slow


def test_a_daemon_that_is_killed_is_told_of_and_comes_back_by_itself(serve: Serve, browser: Browser) -> None:
    daemon = serve(cameras=2)
    browser.open(daemon.url)
    wait_for_pictures(browser, cameras=2, more=3)
    session = daemon.status()["session"]
    daemon.kill()
    wait_for(lambda: all(veil(browser, name).get("over") for name in daemon.names), "the word over the pictures")
    wait_for(lambda: browser.text("[data-notice]"), "the notice")
    assert veil(browser, "cam0")["title"] == "Not connected"
    wait_for(lambda: browser.text("[data-bar-state]") == "Not connected", "the bar's word")
    daemon.start()
    assert daemon.status()["session"] != session
    wait_for(lambda: veil(browser, "cam0") == {} and veil(browser, "cam1") == {}, "live pictures")
    seen.watch(browser)
    pictures = seen.gather(browser, 20)
    assert [fault for each in pictures for fault in seen.faults(each, daemon.options(each.source))] == []
    wait_for(lambda: browser.text("[data-bar-state]") == "Running", "the bar's word")
    assert browser.complaints() == []


def test_cameras_that_are_reloaded_come_and_go_on_the_page(serve: Serve, browser: Browser) -> None:
    daemon = serve(cameras=3)
    browser.open(daemon.url)
    wait_for_pictures(browser, cameras=3, more=3)
    taken = daemon.config["sources"].pop("cam1")
    daemon.write()
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: set(drawn(browser)) == {"cam0", "cam2"}, "two cameras")
    wait_for_pictures(browser, cameras=2, more=3)
    daemon.config["sources"]["cam9"] = taken
    daemon.write()
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: set(drawn(browser)) == {"cam0", "cam2", "cam9"}, "a new one")
    wait_for_pictures(browser, cameras=3, more=3)
    assert browser.complaints() == []


def test_a_camera_that_is_taken_away_while_it_is_looked_at_is_said_to_be_gone(serve: Serve, browser: Browser) -> None:
    daemon = serve(cameras=2)
    browser.open(f"{daemon.url}#/camera/cam1")
    wait_for_pictures(browser, cameras=1, more=3)
    del daemon.config["sources"]["cam1"]
    daemon.write()
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: veil(browser, "cam1").get("over"), "the word over the picture")
    wait_for(lambda: "no such camera" in browser.text("camera-view [data-state]"), "the sentence")
    assert browser.complaints() == []
