"""The witness itself: it sees what is right, and what is not. The other tests believe it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser import chromium, firefox, seen
from tests.browser.planted import Options

pytestmark = pytest.mark.slow

PAGE = """<!doctype html><title>stub</title><camera-tile></camera-tile><script>
const tile = document.querySelector("camera-tile");
tile.canvas = tile.appendChild(document.createElement("canvas"));
[tile.canvas.width, tile.canvas.height] = [640, 360];
const place = (number) => [32 + (number * 137) % 512, 32 + (number * 89) % 232];
window.draw = (number, late, stray) => {
  const pen = tile.canvas.getContext("2d");
  pen.fillStyle = "rgb(128, 128, 128)";
  pen.fillRect(0, 0, 640, 360);
  pen.fillStyle = "rgb(255, 0, 255)";
  pen.fillRect(...place(number), 64, 64);
  pen.strokeStyle = pen.fillStyle = "#00c853";
  pen.lineWidth = 3;
  const [x, y] = place(number - late);
  pen.strokeRect(x, y, 64, 64);
  pen.fillRect(x, y - 16, 60, 16);
  if (stray) pen.fillRect(2, 2, 8, 4);
  const [left, top] = place(number);
  tile.last = { source: "a", frame_id: number, width: 640, height: 360,
    detections: [{ box: [left, top, left + 64, top + 64] }] };
  tile.dispatchEvent(new Event("drawn"));
};
</script>"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write((PAGE if self.path == "/" else f"<img src=http://{self.path[1:]}/x.png>").encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
        pass


@pytest.fixture
def stub() -> Iterator[str]:
    """The address of a page with a tile that draws as it is told."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def drawn(browser: chromium.Browser | firefox.Firefox, late: int, stray: bool) -> list[seen.Seen]:
    browser.js(
        "const [late, stray] = arguments;"
        "for (let n = 1; n <= 20; n++) { window.draw(n, late, stray); await new Promise(requestAnimationFrame); }",
        late,
        stray,
    )
    return seen.gather(browser, 20)


def test_it_sees_boxes_that_lie_on_their_square_and_those_that_do_not(stub: str, tmp_path: Path) -> None:
    with chromium.browsing(tmp_path) as browser:
        browser.open(stub)
        seen.watch(browser)
        assert [fault for each in drawn(browser, 0, False) for fault in seen.faults(each, Options())] == []
        assert all(seen.faults(each, Options()) for each in drawn(browser, 1, False))  # a frame late
        assert all(seen.faults(each, Options()) for each in drawn(browser, 0, True))
        assert all(seen.faults(each, Options(phase=3)) for each in drawn(browser, 0, False))


def test_it_sees_the_same_in_firefox(stub: str, tmp_path: Path) -> None:
    with firefox.browsing(tmp_path) as browser:
        browser.open(stub)
        seen.watch(browser)
        assert [fault for each in drawn(browser, 0, False) for fault in seen.faults(each, Options())] == []
        assert all(seen.faults(each, Options()) for each in drawn(browser, 1, False))


def test_the_log_of_the_network_has_what_a_page_asks_of_others(stub: str, tmp_path: Path) -> None:
    with chromium.browsing(tmp_path, tmp_path / "net.json") as browser:
        browser.open(f"{stub}elsewhere.example")
    assert "http://elsewhere.example/x.png" in chromium.asked_by_pages(tmp_path / "net.json")
