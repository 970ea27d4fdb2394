"""Once around the page: against no policy, without a word to anybody else, for everybody, on every screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser import chromium
from tests.browser.chromium import PHONE, WIDE, Browser
from tests.browser.conftest import Serve
from tests.browser.page import VIEWS, axe_source, drawn, exists, go, wait_for_pictures
from tests.browser.serving import ROOT, wait_for

pytestmark = pytest.mark.slow

SEVERE = ("serious", "critical")
PAINTS = "return performance.getEntriesByType('paint').map(({ name, startTime }) => [name, startTime])"
WIDER = """
const wide = document.documentElement.clientWidth;
return [...document.querySelectorAll("body *")]
  .filter((node) => node.checkVisibility() && !node.closest("pre, textarea"))
  .filter((node) => node.getBoundingClientRect().right > wide + 1)
  .map((node) => node.outerHTML.slice(0, 120));
"""
RING = """
for (let node = document.activeElement; node && node !== document.body; node = node.parentElement) {
  const { outlineStyle, boxShadow } = getComputedStyle(node);
  if (outlineStyle !== "none" || boxShadow !== "none") return true;
}
return false;
"""
"""Whether a person sees where the keyboard is."""
ROOM = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"


def test_nothing_is_against_the_policy_and_nobody_else_is_asked(serve: Serve, tmp_path: Path) -> None:
    daemon = serve(cameras=3, dead=["cam2"])
    net_log = tmp_path / "net.json"
    with chromium.browsing(tmp_path, net_log) as browser:
        browser.open(daemon.url)
        wait_for_pictures(browser, cameras=2, more=3)
        paints = browser.js(PAINTS)
        print("\n" + ", ".join(f"{name}: {at:.0f} ms" for name, at in paints))
        for view in (*VIEWS, "cameras"):
            go(browser, view)
        complaints, console = browser.complaints(), browser.console()
    assert complaints == []
    assert console == []
    asked = chromium.asked_by_pages(net_log)
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(daemon.url).netloc}
    assert {urlsplit(url).path for url in asked} >= {"/", "/live", "/static/app.js", "/api/v1/status"}


def test_an_address_that_is_none_shows_what_there_is(serve: Serve, browser: Browser) -> None:
    daemon = serve(cameras=1)
    for address in ("#/camera/%", "#/constructor", "#/__proto__", "#//", "#/plots/1", "#/nothing"):
        browser.open("about:blank")
        browser.open(daemon.url + address)
        wait_for(lambda: "Running" in browser.text("[data-bar-state]"), f"the state, at {address}")
        assert len(browser.text("main")) > 10, address
        assert browser.complaints() == [], address


def test_a_browser_that_lets_no_page_keep_anything_shows_it_too(serve: Serve, tmp_path: Path) -> None:
    daemon = serve(cameras=1)
    with chromium.browsing(tmp_path, forgetful=True) as browser:
        browser.open(daemon.url)
        wait_for_pictures(browser, cameras=1)
        for theme in ("light", "dark", "auto"):
            browser.driver.find_element(By.CSS_SELECTOR, "[data-theme-button]").click()
            assert browser.js("return document.documentElement.dataset.theme") == theme
        assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_bars_anybody(serve: Serve, browser: Browser, keep_picture: Callable[[str], None], scheme: str) -> None:
    axe = axe_source(ROOT) or pytest.skip("axe-core is not in build/axe: .ci/run has npm fetch it")
    daemon = serve(cameras=3, dead=["cam2"])
    browser.scheme(scheme)
    browser.open(daemon.url)
    wait_for_pictures(browser, cameras=2, more=3)
    found = []
    for view in VIEWS:
        go(browser, view)
        if view == "cameras":
            wait_for_pictures(browser, cameras=2, more=3)
        keep_picture(f"{view}-{scheme}")
        found += [f"{view}: {fault}" for fault in severe(browser, axe)]
    assert found == []


def severe(browser: Browser, axe: str) -> list[str]:
    """What axe-core finds that bars people, a line each."""
    if not browser.js("return Boolean(window.axe)"):
        browser.cdp("Runtime.evaluate", expression=axe)
    answer: Any = browser.js("return await window.axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{fault['id']} ({fault['impact']}): {node['target']} {node['failureSummary']}"
        for fault in answer["violations"]
        if fault["impact"] in SEVERE
        for node in fault["nodes"]
    ]


def test_axe_finds_what_bars_people(browser: Browser) -> None:
    axe = axe_source(ROOT) or pytest.skip("axe-core is not in build/axe: .ci/run has npm fetch it")
    browser.open("data:text/html,<html lang=en><title>x</title><main><h1>x</h1><button></button></main>")
    assert [fault.split()[0] for fault in severe(browser, axe)] == ["button-name"]


def test_the_keyboard_is_enough(serve: Serve, browser: Browser) -> None:
    daemon = serve(cameras=3)
    browser.open(daemon.url)
    wait_for_pictures(browser, cameras=3)

    def press(*keys: str) -> None:
        ActionChains(browser.driver).send_keys(*keys).perform()

    def focused() -> str:
        return str(browser.js("return document.activeElement.getAttribute('href') ?? document.activeElement.tagName"))

    def at(address: str) -> None:
        wait_for(lambda: browser.js("return location.hash") == address, f"{address} in place of {focused()}")

    for _ in range(40):
        if focused() == "#/camera/cam0":
            break
        press(Keys.TAB)
        assert browser.js(RING), f"{focused()} does not show that it has the focus"
    assert focused() == "#/camera/cam0"
    press(Keys.ARROW_RIGHT)
    assert focused() == "#/camera/cam1"
    press(Keys.ENTER)
    at("#/camera/cam1")
    wait_for_pictures(browser, cameras=1)
    press(Keys.ARROW_RIGHT)
    at("#/camera/cam2")
    press(Keys.ESCAPE)
    wait_for(lambda: exists(browser, "camera-grid"), "the grid")
    assert focused() == "#/camera/cam2"  # where one came from
    press("?")
    wait_for(lambda: exists(browser, "dialog[open]"), "the keys")
    press(Keys.ESCAPE)
    wait_for(lambda: not exists(browser, "dialog[open]"), "the page without the keys")
    for key, view in zip("2345", ("plots", "model", "events", "config"), strict=True):
        press(key)
        at(VIEWS[view])
    press("1")
    wait_for(lambda: exists(browser, "camera-grid"), "the grid")
    assert set(drawn(browser)) == set(daemon.names)
    before = browser.js("return document.documentElement.dataset.theme")
    press("t")
    assert browser.js("return document.documentElement.dataset.theme") != before


def test_a_phone_scrolls_in_one_direction_only(
    serve: Serve, browser: Browser, keep_picture: Callable[[str], None]
) -> None:
    daemon = serve(cameras=3, dead=["cam2"])
    browser.size(*PHONE, mobile=True)
    browser.open(daemon.url)
    wait_for_pictures(browser, cameras=1, more=3)
    for view in VIEWS:
        go(browser, view)
        keep_picture(f"{view}-phone")
        scroll, room = browser.js(ROOM)
        assert scroll <= room, (view, browser.js(WIDER))
    browser.size(*WIDE)
    for view in VIEWS:
        go(browser, view)
        scroll, room = browser.js(ROOM)
        assert scroll <= room, (view, browser.js(WIDER))
