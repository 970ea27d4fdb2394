"""A camera that gives no picture never shows an old one as if it were live."""

from __future__ import annotations

import pytest

from tests.browser.chromium import Browser
from tests.browser.conftest import Serve
from tests.browser.page import drawn, veil, wait_for_pictures
from tests.browser.serving import wait_for

pytestmark = pytest.mark.slow

CLOCK = """
const tile = document.querySelector("camera-tile[data-source=cam0]"), veil = tile.querySelector("[data-veil]");
window.__last = performance.now();
tile.addEventListener("drawn", () => (window.__last = performance.now()));
new MutationObserver(() => {
  if (!veil.hidden) window.__covered ??= performance.now() - window.__last;
}).observe(veil, { attributes: true });
"""
"""Notes how long after its last picture a camera was covered, by the page's own clock."""


@pytest.mark.alone
def test_a_frozen_camera_says_so_over_its_picture_within_three_seconds(serve: Serve, browser: Browser) -> None:
    daemon = serve(cameras=2)
    browser.open(daemon.url)
    wait_for_pictures(browser, cameras=2, more=5)
    assert veil(browser, "cam0") == {}
    browser.js(CLOCK)
    daemon.tell("cam0", "frozen")
    wait_for(lambda: veil(browser, "cam0"), "the word over the picture")
    after_ms = browser.js("return window.__covered")
    print(f"\ncovered {after_ms:.0f} ms after its last picture")
    found = veil(browser, "cam0")
    assert found["title"] == "Stalled"
    assert found["text"]
    assert found["over"]
    assert after_ms <= 3000
    assert veil(browser, "cam1") == {}
    daemon.untell("cam0", "frozen")
    wait_for(lambda: veil(browser, "cam0") == {}, "the live picture")
    wait_for_pictures(browser, cameras=2, more=2)


def test_a_dead_camera_says_why_and_one_that_is_back_is_live_again(serve: Serve, browser: Browser) -> None:
    daemon = serve(cameras=2)
    browser.open(daemon.url)
    wait_for_pictures(browser, cameras=2, more=3)
    daemon.tell("cam0", "dead")
    wait_for(lambda: veil(browser, "cam0").get("title") == "Reconnecting", "the word over the picture")
    found = veil(browser, "cam0")
    assert "the camera was unplugged" in found["text"]
    assert found["over"]
    before = drawn(browser)["cam0"]
    wait_for_pictures(browser, cameras=1, more=5)  # the other one goes on
    assert drawn(browser)["cam0"] == before
    daemon.untell("cam0", "dead")
    wait_for(lambda: veil(browser, "cam0") == {}, "the live picture")
    wait_for_pictures(browser, cameras=2, more=2)


def test_a_camera_that_was_never_there_is_covered_too(serve: Serve, browser: Browser) -> None:
    daemon = serve(cameras=2, dead=["cam1"])
    browser.open(daemon.url)
    wait_for_pictures(browser, cameras=1, more=3)
    wait_for(lambda: "unplugged" in veil(browser, "cam1").get("text", ""), "the reason over the empty picture")
    assert drawn(browser)["cam1"] == 0


SLEEP = """
const Socket = WebSocket, now = Date.now;
window.__opened = 0;
window.WebSocket = class extends Socket {
  constructor(...given) {
    super(...given);
    window.__opened += 1;
  }
};
Date.now = () => now() + 3600e3;
document.dispatchEvent(new Event("visibilitychange"));
return document.querySelector("camera-tile").dataset.fresh;
"""
"""Sleep, in which `performance.now()` stands still. Whether the picture of before it passes for a live one."""


def test_after_a_sleep_no_picture_of_before_it_is_live(serve: Serve, browser: Browser) -> None:
    daemon = serve(cameras=1)
    browser.open(daemon.url)
    wait_for_pictures(browser, cameras=1, more=3)
    assert veil(browser, "cam0") == {}
    assert browser.js(SLEEP) == "false"
    wait_for(lambda: browser.js("return window.__opened") == 1, "a new connection, without what the old one had left")
    wait_for_pictures(browser, cameras=1, more=3)
    assert veil(browser, "cam0") == {}


JOIN = """
const { joined } = await import("/static/plots-view.js");
const of = (...fps) => ({ t_ns: fps, fps, cpu: fps, rss_bytes: fps, gpu_load: fps });
return [[3, 4], [], [4], [1, 2]].map((times) => joined(of(1, 2, 3), of(...times)).fps);
"""


def test_where_the_device_has_set_its_clock_back_the_plots_begin_anew(serve: Serve, browser: Browser) -> None:
    browser.open(serve(cameras=1).url)
    wait_for_pictures(browser, cameras=1)
    assert browser.js(JOIN) == [[1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 4], [1, 2]]
