"""The page's own files: small, whole, nothing from elsewhere, nothing that its Content-Security-Policy would refuse."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import edgeinfer.web

STATIC = Path(edgeinfer.web.__file__).parent / "static"
FILES = sorted(path for path in STATIC.rglob("*") if path.is_file())
OURS = [path for path in FILES if path.parent == STATIC]
MODULES = [path for path in OURS if path.suffix == ".js" and path.name != "theme.js"]
MOST_BYTES = 120_000
NAMESPACE = "http://www.w3.org/2000/svg"


class Elements(HTMLParser):
    """Every element with its attributes, and the text within scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] in ("script", "style"):
            self.inline += data.strip()


@pytest.fixture(scope="module")
def index() -> Elements:
    parser = Elements()
    parser.feed((STATIC / "index.html").read_text())
    return parser


def test_all_files_together_are_small() -> None:
    assert sum(path.stat().st_size for path in FILES) <= MOST_BYTES


def test_what_is_vendored_brings_its_licence() -> None:
    assert "MIT License" in (STATIC / "vendor/LICENSE.uPlot").read_text()


def test_nothing_is_inline(index: Elements) -> None:
    assert index.inline == ""
    for tag, attributes in index.found:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag


def test_all_that_the_page_names_is_there(index: Elements) -> None:
    named = [
        address
        for tag, attributes in index.found
        if tag in ("link", "script") and (address := attributes.get("href") or attributes.get("src"))
    ]
    assert named
    for address in named:
        assert (STATIC / address.removeprefix("static/")).is_file(), address


def test_no_module_is_found_late(index: Elements) -> None:
    """All are asked for by the page itself or by its first module: none waits for one that waits for another."""
    asked = {attributes.get("src") or attributes.get("href") for _, attributes in index.found}
    first = set(re.findall(r'import (?:\{[^}]*\} from )?"\./([^"]+)"', (STATIC / "app.js").read_text()))
    assert {f"static/{path.name}" for path in MODULES} <= asked | {f"static/{name}" for name in first}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_imports_what_is_exported(path: Path) -> None:
    for names, other in re.findall(r'import \{([^}]*)\} from "\./([^"]+)"', path.read_text()):
        exported = re.findall(r"export (?:async )?(?:const|class|function\*?) (\w+)", (STATIC / other).read_text())
        assert {name.strip() for name in names.split(",")} <= set(exported), other


@pytest.mark.parametrize("path", [path for path in OURS if path.suffix in (".js", ".html")], ids=lambda path: path.name)
def test_text_can_become_nothing_but_text(path: Path) -> None:
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|\beval\(|new Function|DOMParser|javascript:"
    assert not re.findall(sinks, path.read_text())


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_nothing_comes_from_elsewhere(path: Path) -> None:
    assert not re.findall(r"https?://|@import|url\(", path.read_text().replace(NAMESPACE, ""))
