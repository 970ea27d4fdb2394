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
    "isolation",
    "codecs",
    "engine",
    "gpu",
    "preprocess",
    "config",
    "telemetry",
    "environment systemd client",
    "cuda",
    "transport",
    "pictures",
    "models frames interfaces contract",
    "types",
    "messages",
    "codes recipe",
    "errors",
    "guard",
]
"""Top to bottom: the folders of the package, and the modules of its root. Whoever lives in one imports from itself and
from lower ones."""

PLUGIN_KINDS = ("sources", "backends", "decoders", "sinks")
TENSORRT = {"tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"}
HEAVY = {"cv2", "onnx", "onnxconverter_common", "onnxruntime", "cuda", "av", "gi", "jtop", "PyNvVideoCodec"} | TENSORRT
HEAVY |= {"starlette", "uvicorn", "websockets"}
HEAVY_ROOMS = {
    "sources": {"cv2", "av", "gi"},
    "codecs": {"cv2", "av"},
    "backends": {"onnxruntime"},
    "decoders": {"cv2"},
    "sinks": {"cv2"},
    "preprocess": {"cv2"},
    "pictures": {"cv2"},
    "bench": {"cv2", "av"},
    "cuda": {"cuda", "PyNvVideoCodec"},
    "engine": {"cv2", "onnx", "onnxconverter_common", "onnxruntime"} | TENSORRT,
    "environment": {"cuda", "onnxruntime", "jtop"} | TENSORRT,
    "web": {"cv2", "starlette", "uvicorn", "websockets"},
}
"""Which heavy libraries a room may import."""
NAMED_ONLY = {"edgeinfer.config.plugins"}
"""Names heavy libraries to say which extra brings one that is missing, and imports plugins by name."""
LATE_ROOMS = ("cuda", "engine", "environment")
"""Rooms that import theirs by name when they are first needed, never when they are imported themselves."""

WALL_CLOCK = {
    "edgeinfer.commands._overview": "the age of a daemon whose message says when it started",
    "edgeinfer.commands.engines": "when an engine was last used, for people",
    "edgeinfer.engine.build.ensure": "when an engine was built, in its manifest",
    "edgeinfer.flow.compose": "t_publish_ns and t_start_ns of messages",
    "edgeinfer.flow.wallclock": "tells of its jumps",
    "edgeinfer.sources._clock": "t_capture_ns of a frame",
    "edgeinfer.sources.rtsp": "how old a picture is whose camera says when it was taken",
    "edgeinfer.watchdog.crash": "when a run began and ended, which is read after a boot",
}
"""Who may ask for the time of day, and what for: it jumps, so that no deadline or duration may be made of it."""
WALL_CALLS = {f"time.{name}" for name in ("time", "time_ns", "gmtime", "localtime", "ctime", "asctime", "strftime")}
WALL_CALLS |= {"time.CLOCK_REALTIME", "time.CLOCK_TAI", "datetime"}

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


def loaded_by_name(path: Path) -> set[str]:
    """Heavy modules that a file names, where it also imports modules by their names.

    The names may be arguments, entries of a module's tuple or passed on by a helper: wherever they stand, they count.
    """
    tree = ast.parse(path.read_text())
    importers = {"import_module", "__import__"}
    names = {getattr(node, "attr", getattr(node, "id", getattr(node, "name", ""))) for node in ast.walk(tree)}
    if not importers & names:
        return set()
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text for text in texts if text.split(".")[0] in HEAVY and all(map(str.isidentifier, text.split(".")))}


def wall_clock_uses(tree: ast.Module) -> set[str]:
    """What a file takes of the modules `time` and `datetime` that tells the time of day, called or handed on."""
    aliases: dict[str, str] = {}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases.update({alias.asname or alias.name: alias.name for alias in node.names})
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update({node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)})
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{aliases.get(node.value.id, '')}.{node.attr}")
    return found & WALL_CALLS


def room(dotted: str) -> str | None:
    """`edgeinfer.sources.video` → sources; None for other packages' modules and for the package itself."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "edgeinfer" and len(parts) > 1 else None


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def storey(name: str) -> int:
    return next(index for index, row in enumerate(STOREYS) if name in row.split())


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
        assert storey(own) < storey(other), target


@pytest.mark.parametrize("kind", PLUGIN_KINDS)
def test_plugins_of_a_kind_do_not_know_each_other(kind: str) -> None:
    for path in (PACKAGE / kind).glob("*.py"):
        for target in imports(path):
            if room(target) == kind and target.count(".") >= 2:
                assert target.split(".")[2].startswith("_"), f"{path.name} imports {target}"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    named = set() if dotted(path) in NAMED_ONLY else loaded_by_name(path)
    heavy = {target.split(".")[0] for target in imports(path) | named} & HEAVY
    assert heavy <= HEAVY_ROOMS.get(room(dotted(path)) or "", set())


def test_rooms_that_import_late_load_nothing_heavy_themselves() -> None:
    late = [dotted(path) for path in MODULES if room(dotted(path)) in LATE_ROOMS and path.name != "__main__.py"]
    code = f"import importlib, sys\nfor name in {late!r}: importlib.import_module(name)\n"
    code += f"print(sorted({HEAVY!r} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert process.stdout == "[]\n"


@pytest.mark.parametrize(
    "text",
    [
        "import importlib\nimportlib.import_module('cv2')",
        "from importlib import import_module\nNAMES = ('x', 'cv2.dnn')\nfor name in NAMES: import_module(name)",
        "from importlib import import_module as load\nload('cv2')",
        "__import__('cv2')",
    ],
)
def test_a_module_imported_by_its_name_is_seen(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.py"
    path.write_text(text)
    assert {name.split(".")[0] for name in loaded_by_name(path)} == {"cv2"}


@pytest.mark.parametrize("command", ["--help", "check configs/archive.yaml", "models ls"])
def test_a_command_loads_no_network_runtime_without_need(command: str) -> None:
    code = (
        "import sys\nfrom edgeinfer.cli import run\n"
        f"try:\n    run({command.split()!r})\n"
        f"finally:\n    print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(ast.literal_eval(process.stderr.splitlines()[-1]))
    assert not loaded - ({"av", "cv2", "onnxruntime"} if command.startswith("check") else set())


def test_the_time_of_day_is_asked_for_where_the_list_says_what_for() -> None:
    assert {dotted(path) for path in MODULES if wall_clock_uses(ast.parse(path.read_text()))} == set(WALL_CLOCK)


@pytest.mark.parametrize(
    ("text", "uses"),
    [
        ("import time\ntime.time()", True),
        ("import time as t\nf = t.time_ns", True),
        ("from time import time_ns", True),
        ("import time\ntime.clock_gettime(time.CLOCK_REALTIME)", True),
        ("from datetime import datetime\ndatetime.now()", True),
        ("import datetime", True),
        ("import time\ntime.monotonic()\ntime.sleep(1)", False),
        ("class A:\n    time = 1\nA.time", False),
    ],
)
def test_a_look_at_the_time_of_day_is_seen(text: str, uses: bool) -> None:
    assert bool(wall_clock_uses(ast.parse(text))) is uses
