"""The shape of the house: arrows point down, heavy libraries stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "edgeinfer"

STOREYS = [
    "__main__",
    "cli",
    "commands",
    "bench",
    "daemon",
    "web",
    "flow",
    "watchdog",
    "sources backends decoders sinks",
    "engine",
    "gpu",
    "preprocess",
    "config",
    "telemetry",
    "environment systemd client",
    "transport",
    "models frames interfaces",
    "types",
    "messages",
    "codes",
    "errors",
    "guard",
]
"""Top to bottom: the folders of the package, and the modules of its root. Whoever lives in one imports from itself and
from lower ones."""

PLUGIN_KINDS = ("sources", "backends", "decoders", "sinks")
HEAVY = {"cv2", "onnxruntime", "tensorrt", "cuda", "av", "gi"}
HEAVY_ROOMS = {"sources", "backends", "decoders", "sinks", "preprocess", "bench"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, dotted."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def room(dotted: str) -> str | None:
    """`edgeinfer.sources.video` → sources; None for other packages' modules and for the package itself."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "edgeinfer" and len(parts) > 1 else None


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def storey(name: str) -> int:
    return next(index for index, row in enumerate(STOREYS) if name in row.split())


UNFINISHED = {"edgeinfer.daemon.daemon", "edgeinfer.daemon.daemon.Daemon"}


def test_every_folder_has_its_storey() -> None:
    known = set(" ".join(STOREYS).split())
    rooms = {room(dotted(path)) for path in MODULES if path != PACKAGE / "__init__.py"}
    assert rooms == known


def test_every_folder_says_in_one_sentence_what_it_is_for() -> None:
    for folder in {path.parent for path in MODULES}:
        said = (ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or "").partition("\n\n")[0]
        assert said.endswith("."), folder
        assert ". " not in said, folder


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_down(path: Path) -> None:
    own = room(dotted(path))
    for target in imports(path):
        other = room(target)
        if own in (None, "__init__") or other in (None, "__version__", own):
            continue
        if path.name == "judge.py" and target in UNFINISHED:
            continue
        assert storey(own) < storey(other), target


@pytest.mark.parametrize("kind", PLUGIN_KINDS)
def test_plugins_of_a_kind_do_not_know_each_other(kind: str) -> None:
    for path in (PACKAGE / kind).glob("*.py"):
        for target in imports(path):
            if room(target) == kind and target.count(".") >= 2:
                assert target.split(".")[2].startswith("_"), f"{path.name} imports {target}"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_heavy_libraries_stay_in_their_plugins(path: Path) -> None:
    heavy = {target.split(".")[0] for target in imports(path)} & HEAVY
    assert not heavy or room(dotted(path)) in HEAVY_ROOMS


@pytest.mark.parametrize("command", ["--help", "check configs/archive.yaml", "models ls"])
def test_a_command_loads_no_network_runtime_without_need(command: str) -> None:
    code = (
        "import sys\nfrom edgeinfer.cli import run\n"
        f"try:\n    run({command.split()!r})\n"
        f"finally:\n    print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(ast.literal_eval(process.stderr.splitlines()[-1]))
    assert not loaded - ({"cv2", "onnxruntime"} if command.startswith("check") else set())


def test_only_the_published_time_is_wall_time() -> None:
    users = {path.name for path in MODULES if "time.time(" in path.read_text() or "datetime" in path.read_text()}
    assert users == set()
