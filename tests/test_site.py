"""The documentation as a site: links lead somewhere, and a browser asks nobody else for anything."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_script", ROOT / "scripts" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A repository with a few pages that link to one another, and to a file."""
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    (root / "edgeinfer").mkdir()
    (root / "edgeinfer" / "LICENSE").write_text("do what you want")
    (root / "README.md").write_text(
        "# It\n\n## Try it\n\n[more](docs/more.md#some-more), [licence](edgeinfer/LICENSE)\n"
    )
    (root / "CHANGELOG.md").write_text("# Changes\n\n* all of it\n")
    (root / "docs" / "more.md").write_text("# More\n\n## Some more\n\n[back](../README.md#try-it)\n")
    return root


def test_links_are_those_to_files_and_not_in_code(site: ModuleType) -> None:
    text = "[a](x.md) [b](x.md#y 'title') [c](https://h/z.md) [d](#here) [e](mailto:a@b)"
    text += " `[f](no.md)`\n\n```\n[g](no.md)\n```\n"
    assert site.links(text) == ["x.md", "x.md"]


def test_what_a_page_links_to_comes_along(site: ModuleType, pages: Path, tmp_path: Path) -> None:
    assert site.lay_out(pages, tmp_path / "laid") == []
    assert (tmp_path / "laid" / "edgeinfer" / "LICENSE").read_text() == "do what you want"
    assert "docs/more\n" in (tmp_path / "laid" / "README.md").read_text(), (
        "a page that is named nowhere is in the contents"
    )
    assert "docs/engines" not in (tmp_path / "laid" / "README.md").read_text()
    assert "toctree" not in (pages / "README.md").read_text()


@pytest.mark.parametrize("target", ["none.md", "../none.md", "../edgeinfer", "../../outside.md"])
def test_a_link_that_leads_to_no_file_of_the_repository(
    site: ModuleType, pages: Path, tmp_path: Path, target: str
) -> None:
    (tmp_path / "outside.md").touch()
    (pages / "docs" / "more.md").write_text(f"# More\n\n[x]({target})\n")
    assert site.lay_out(pages, tmp_path / "laid") == [f"docs/more.md: {target}: no file of the repository"]


@pytest.mark.parametrize(
    ("name", "text", "asked"),
    [
        ("x.html", '<script src="https://cdn.example/x.js">', "https://cdn.example/x.js"),
        ("x.html", "<script async src=//cdn.example/x.js>", "//cdn.example/x.js"),
        ("x.html", '<img alt="" src="http://h/x.png">', "http://h/x.png"),
        ("x.html", '<link rel="stylesheet" href="https://fonts.example/css">', "https://fonts.example/css"),
        ("x.css", "@import 'https://fonts.example/css';", "https://fonts.example/css"),
        ("x.css", "a { background: url(https://h/x.png) }", "https://h/x.png"),
        ("x.html", '<a href="https://h/">h</a> <script src="_static/x.js"></script>', None),
        ("x.html", '<link rel="stylesheet" href="_static/x.css"><link rel="canonical" href="https://h/">', None),
        (
            "x.css",
            "a { background: url('data:image/svg+xml;charset=utf-8,<svg xmlns=\"http://www.w3.org/2000/svg\"/>') }",
            None,
        ),
    ],
)
def test_what_another_host_would_be_asked_for(
    site: ModuleType, tmp_path: Path, name: str, text: str, asked: str | None
) -> None:
    (tmp_path / name).write_text(text)
    assert list(site.requests_in(tmp_path)) == ([f"{name}: asks another host: {asked}"] if asked else [])


def test_the_contents_name_pages_that_there_are(site: ModuleType) -> None:
    named = [name for chapter in site.CHAPTERS.values() for name in chapter]
    assert len(named) == len(set(named))
    assert set(named) <= {path.stem for path in (ROOT / "docs").glob("*.md")}


def test_the_pages_are_plain_markdown() -> None:
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")):
        assert not re.search(r"^(?:```|:::)\{|\{(?:ref|doc|term)\}`", page.read_text(), re.MULTILINE), page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("[back](../README.md#try-it)", True),
        ("[back](../README.md#tried-it)", False),
        ("[here](#more)", True),
        ("[here](#less)", False),
    ],
)
def test_a_heading_that_is_not_there_is_an_error(
    site: ModuleType, pages: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, good: bool
) -> None:
    for name in ("sphinx", "myst_parser", "furo"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: scripts/site installs it")
    (pages / "docs" / "more.md").write_text(f"# More\n\n## Some more\n\n{text}\n")
    assert site.lay_out(pages, tmp_path / "laid") == []
    assert (site.build(tmp_path / "laid", tmp_path / "site") == 0) is good
    said = capfd.readouterr().err
    assert ("xref_missing" in said) is not good
    if good:
        assert 'href="docs/more.html#some-more"' in (tmp_path / "site" / "README.html").read_text()
        assert list(site.requests_in(tmp_path / "site")) == []
