"""The configuration in the page: what is wrong is underlined, what would change is said, and only an admin writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser.chromium import Browser
from tests.browser.conftest import Serve
from tests.browser.page import drawn, exists, go, wait_for_pictures
from tests.browser.serving import wait_for
from tests.browser.test_rights import new_token, sign_in

pytestmark = pytest.mark.slow

WHERE = """
const area = document.querySelector("[data-editor] textarea"), style = getComputedStyle(area);
const marks = [...document.querySelectorAll("[data-error]")];
const rows = marks.map((mark) => [mark.textContent, mark.getBoundingClientRect()]);
const box = area.getBoundingClientRect(), pen = document.createElement("canvas").getContext("2d");
pen.font = style.font;
const letter = pen.measureText("m".repeat(100)).width / 100, line = parseFloat(style.lineHeight);
const left = box.left + parseFloat(style.borderLeftWidth) + parseFloat(style.paddingLeft) - area.scrollLeft;
const top = box.top + parseFloat(style.borderTopWidth) + parseFloat(style.paddingTop) - area.scrollTop;
return rows.map(([text, { left: x, top: y, width, height }]) => ({
  text,
  line: (y + height / 2 - top) / line + 0.5,
  column: (x - left) / letter + 1,
  letters: width / letter,
  drawn: getComputedStyle(marks[0]).textDecorationLine,
}));
"""
"""Where an underline is on the screen, in lines and columns of the text that is edited, from 1."""


def edit(browser: Browser, text: str) -> None:
    """Replaces the text, as a person would who pastes another."""
    area = browser.driver.find_element(By.CSS_SELECTOR, "[data-editor] textarea")
    area.click()
    area.send_keys(Keys.CONTROL, "a")
    browser.cdp("Input.insertText", text=text)


def test_the_wrong_key_is_underlined_where_it_stands(serve: Serve, browser: Browser) -> None:
    daemon = serve(cameras=3)
    browser.open(daemon.url)
    go(browser, "config")
    text = daemon.path.read_text()
    edit(browser, text.replace("  cam1:\n", "  cam1:\n    phaze: 3\n"))
    wait_for(lambda: exists(browser, "[data-error]"), "the underline")
    lines = browser.js("return document.querySelector('[data-editor] textarea').value").split("\n")
    (number,) = [index for index, line in enumerate(lines, 1) if "phaze" in line]
    (found,) = browser.js(WHERE)
    assert found["text"] == "phaze"
    assert found["drawn"] == "underline"
    assert round(found["line"]) == number
    assert abs(found["column"] - 5) < 0.3
    assert abs(found["letters"] - 5) < 0.3
    assert f"line {number}, column 5" in browser.text("[data-errors]")
    assert "phase" in browser.text("[data-errors]")  # what it may have been meant to be
    edit(browser, text)
    wait_for(lambda: not exists(browser, "[data-error]"), "no underline")
    assert browser.complaints() == []


def test_without_a_token_for_it_nothing_is_written(serve: Serve, browser: Browser) -> None:
    daemon = serve(cameras=1)
    browser.open(daemon.url)
    go(browser, "config")
    before = daemon.path.read_bytes()
    edit(browser, daemon.path.read_text().replace("fps: 10.0", "fps: 5.0"))
    wait_for(lambda: "cam0" in browser.text("[data-changes]"), "what would change")
    browser.driver.find_element(By.CSS_SELECTOR, "[data-reload]").click()
    wait_for(lambda: exists(browser, "[data-login]"), "the form")
    assert daemon.path.read_bytes() == before
    assert daemon.request("POST", "/api/v1/reload", {"text": "sources: {}"})[0] == 403
    assert daemon.request("DELETE", "/api/v1/sources/cam0")[0] == 403
    assert daemon.path.read_bytes() == before


def test_an_admin_takes_a_camera_away(serve: Serve, browser: Browser, tmp_path: Path) -> None:
    token = new_token(tmp_path / "tokens", "--admin")
    daemon = serve(cameras=2, token=str(tmp_path / "tokens"))
    browser.open(daemon.url)
    wait_for(lambda: exists(browser, "[data-login]"), "the form")
    sign_in(browser, token)
    wait_for_pictures(browser, cameras=2)
    before = daemon.path.read_text()
    go(browser, "config")
    del daemon.config["sources"]["cam1"]
    daemon.write()
    wanted = daemon.path.read_text()
    daemon.path.write_text(before)
    edit(browser, wanted)
    wait_for(lambda: "cam1" in browser.text("[data-changes]"), "what would change")
    browser.driver.find_element(By.CSS_SELECTOR, "[data-reload]").click()
    wait_for(lambda: exists(browser, "[data-confirm]"), "the question")
    assert daemon.path.read_text() == before
    browser.driver.find_element(By.CSS_SELECTOR, "[data-confirm]").click()
    wait_for(lambda: daemon.path.read_text() == wanted, "the file")
    assert Path(f"{daemon.path}.before").read_text() == before
    wait_for(lambda: not browser.js("return document.querySelector('config-view').changed"), "the reload")
    go(browser, "cameras")
    wait_for(lambda: set(drawn(browser)) == {"cam0"}, "one camera")
    wait_for_pictures(browser, cameras=1, more=3)
    assert browser.complaints() == []
