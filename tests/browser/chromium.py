"""Debian's Chromium without a screen, driven by its own driver: nothing is downloaded for it, and it asks nobody."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By

QUIET = (
    "headless=new",
    "no-sandbox",  # it has none for root, who runs CI
    "disable-dev-shm-usage",
    "disable-gpu",
    "disable-extensions",
    "disable-background-networking",
    "disable-component-update",
    "disable-domain-reliability",
    "disable-client-side-phishing-detection",
    "disable-background-timer-throttling",
    "disable-renderer-backgrounding",
    "disable-backgrounding-occluded-windows",
    "disable-features=OptimizationHints,MediaRouter,Translate,AutofillServerCommunication,CertificateTransparencyComponentUpdater",
    "metrics-recording-only",
    "no-first-run",
    "no-default-browser-check",
    "no-pings",
    "password-store=basic",
    "force-color-profile=srgb",
    "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
EARLY = """{
window.__violations = [];
window.__errors = [];
document.addEventListener("securitypolicyviolation", (event) => window.__violations.push(
  `${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber} ${event.sample}`));
const fail = (text) => window.__errors.push(text);
window.addEventListener("error", (event) => fail(`${event.message} ${event.filename}:${event.lineno}`));
window.addEventListener("unhandledrejection", (event) => fail(`${event.reason?.stack || event.reason}`));
}"""
"""Runs in every document before anything of it does."""
COMPLAINTS = "return [...window.__violations, ...window.__errors]"
WIDE, PHONE = (1280, 800), (360, 740)


def binary() -> tuple[str, str]:
    """Paths of the browser and its driver. Skips the test where either is missing."""
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in found:
        pytest.skip("chromium and chromium-driver are not installed")
    return str(found[0]), str(found[1])


class Browser:
    """One Chromium with a profile of its own."""

    def __init__(self, folder: Path, net_log: Path | None = None, forgetful: bool = False) -> None:
        """`forgetful`: pages may keep nothing, no cookie either."""
        browser, driver = binary()
        options = ChromeOptions()
        options.binary_location = browser
        size = f"window-size={WIDE[0]},{WIDE[1]}"
        for word in (
            *QUIET,
            size,
            f"user-data-dir={folder / 'profile'}",
            *([f"log-net-log={net_log}"] if net_log else []),
        ):
            options.add_argument(f"--{word}")
        if forgetful:
            options.add_experimental_option("prefs", {"profile.default_content_setting_values.cookies": 2})
        options.accept_insecure_certs = True  # those of tests are signed by nobody
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        environment = {**os.environ, "SE_OFFLINE": "true", "SE_AVOID_STATS": "true", "HOME": str(folder)}
        self.driver = Chrome(options, ChromeService(driver, env=environment))
        self.driver.set_script_timeout(60)
        self.cdp("Page.addScriptToEvaluateOnNewDocument", source=EARLY)

    def cdp(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol."""
        answer: dict[str, Any] = self.driver.execute_cdp_cmd(method, parameters)
        return answer

    def open(self, url: str) -> None:
        """Loads a page."""
        self.driver.get(url)

    def js(self, code: str, *arguments: Any) -> Any:
        """What `code`, the body of a function, returns in the page; a promise's value once it is there."""
        return self.driver.execute_script(f"return (async function () {{ {code} }})(...arguments)", *arguments)

    def text(self, selector: str = "body") -> str:
        """What a person reads in the first element that matches."""
        return str(self.driver.find_element(By.CSS_SELECTOR, selector).text)

    def scheme(self, name: str) -> None:
        """`light` or `dark`, as the system would say; and nothing moves, so that a picture shows no passing state."""
        wanted = {"prefers-color-scheme": name, "prefers-reduced-motion": "reduce"}
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": key, "value": wanted[key]} for key in wanted])

    def size(self, width: int, height: int, mobile: bool = False) -> None:
        """The size of the page's part of the window, in CSS pixels."""
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def console(self, *, ignore: str = "") -> list[str]:
        """The warnings and errors since the last look."""
        driver: Any = self.driver
        entries = [entry for entry in driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]
        return [entry["message"] for entry in entries if not ignore or ignore not in entry["message"]]

    def complaints(self) -> list[str]:
        """What went against the page's policy, and errors that nobody caught."""
        found: list[str] = self.js(COMPLAINTS)
        return found

    def renderers(self) -> list[int]:
        """The processes of pages."""
        return [pid for pid in children(self.driver.service.process.pid) if "--type=renderer" in command_of(pid)]

    def screenshot(self, path: Path) -> None:
        """The visible part, as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))

    def quit(self) -> None:
        """Ends it."""
        self.driver.quit()


@contextmanager
def browsing(folder: Path, net_log: Path | None = None, forgetful: bool = False) -> Iterator[Browser]:
    """A Chromium for the time of a block."""
    browser = Browser(folder, net_log, forgetful)
    try:
        yield browser
    finally:
        browser.quit()


def children(pid: int) -> list[int]:
    """All processes below a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


def command_of(pid: int) -> str:
    """A process's command line."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def asked_by_pages(net_log: Path) -> set[str]:
    """The URLs that pages of 127.0.0.1 asked for, by the browser's log of the network; not what it asks for itself."""
    text = net_log.read_text()
    try:
        log = json.loads(text)
    except json.JSONDecodeError:  # cut short where the browser was ended
        log = json.loads(text.rstrip().rstrip(",") + "]}")
    events = [event.get("params", {}) for event in log["events"]]
    return {str(each["url"]) for each in events if "http://127.0.0.1" in each.get("network_isolation_key", "")}
