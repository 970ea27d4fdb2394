"""Builds README.md, CHANGELOG.md and docs/*.md as a site in build/site, with Sphinx, MyST and Furo.

The pages are plain Markdown and know nothing of this. They are put into a folder of their own, laid out as the
repository is, so that every link in them means there what it means here; files that they link to come along. Whatever
Sphinx warns of is an error: a page or heading that is not there above all. The site asks no other host for anything.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
START = "README"
CHAPTERS = {
    "Use it": ("commands", "configuration", "messages", "metrics", "web", "api", "doctor", "models", "engines"),
    "Run it for good": ("reliability", "security", "limits", "jetson"),
    "Know it": ("performance", "benchmark", "architecture", "extending"),
}
"""The pages in the order in which they are to be read; those that are named nowhere come at the end."""
SETTINGS = {
    "project": "edgeinfer",
    "html_title": "edgeinfer",
    "root_doc": START,
    "extensions": "myst_parser",
    "myst_heading_anchors": "6",
    "highlight_language": "none",
    "html_theme": "furo",
    "html_copy_source": "0",
    "html_show_sphinx": "0",
    "html_show_copyright": "0",
}
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
REQUEST = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=["']?(?P<src>(?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?![^>]*\brel=["']?(?:canonical|author|license))[^>]*\bhref=["']?(?P<link>(?:https?:)?//[^"'\s>]+)"""
    r"""|(?:url\(|@import\s)\s*["']?(?P<css>(?:https?:)?//[^"')\s]+)""",
    re.IGNORECASE,
)
"""What makes a browser ask another host."""


def main() -> int:
    """Returns 1 where something is wrong, having said what."""
    source, site = ROOT / "build" / "site-source", ROOT / "build" / "site"
    for folder in (source, site):
        shutil.rmtree(folder, ignore_errors=True)
    problems = lay_out(ROOT, source)
    if not problems and build(source, site) != 0:
        problems = ["the site could not be built"]
    problems = problems or list(requests_in(site))
    if problems:
        sys.stderr.writelines(f"{problem}\n" for problem in problems)
        return 1
    shutil.copy(site / f"{START}.html", site / "index.html")
    print(site / "index.html")
    return 0


def lay_out(root: Path, target: Path) -> list[str]:
    """Copies the pages, and the files that they link to. Returns the links that lead to no file of the repository."""
    pages = [root / f"{START}.md", root / "CHANGELOG.md", *sorted((root / "docs").glob("*.md"))]
    problems = []
    for page in pages:
        copy(page, root, target)
        for link in links(page.read_text()):
            linked = (page.parent / link).resolve()
            if not linked.is_file() or root.resolve() not in linked.parents:
                problems.append(f"{page.relative_to(root)}: {link}: no file of the repository")
            else:
                copy(linked, root.resolve(), target)
    with (target / f"{START}.md").open("a") as start:
        start.write(contents([page.stem for page in pages[2:]]))
    return problems


def links(text: str) -> list[str]:
    """What a page links to in the repository, without the part after #; code has no links."""
    return [link for link in LINK.findall(CODE.sub("", text)) if not re.match(r"[a-z]+:", link)]


def copy(path: Path, root: Path, target: Path) -> None:
    """Puts a file where it is in the repository."""
    place = target / path.relative_to(root)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, place)


def contents(pages: list[str]) -> str:
    """The navigation, in MyST's own words; it is only in the copy of the first page."""
    named = {name for chapter in CHAPTERS.values() for name in chapter}
    chapters = {**CHAPTERS, "More": tuple(name for name in pages if name not in named)}
    text = ""
    for heading, names in chapters.items():
        lines = [f"docs/{name}" for name in names if name in pages] + (["CHANGELOG"] if heading == "More" else [])
        text += "\n".join(["", "", "```{toctree}", ":hidden:", f":caption: {heading}", "", *lines, "```", ""])
    return text


def build(source: Path, site: Path) -> int:
    """Runs Sphinx, which says what is wrong; warnings are errors."""
    settings = [part for name, value in SETTINGS.items() for part in ("-D", f"{name}={value}")]
    argv = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-E", "-n", "-W", "--keep-going", "-C", *settings]
    doctrees = source.with_name(f"{source.name}-doctrees")
    return subprocess.run(  # noqa: S603 (our own words)
        [*argv, "-d", str(doctrees), str(source), str(site)], check=False
    ).returncode


def requests_in(site: Path) -> Iterator[str]:
    """Everything in the site that another host would be asked for."""
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css"):
            for found in REQUEST.finditer(path.read_text(errors="replace")):
                yield f"{path.relative_to(site)}: asks another host: {found['src'] or found['link'] or found['css']}"


if __name__ == "__main__":
    sys.exit(main())
