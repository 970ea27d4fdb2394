"""What must not get in: files that others could have written, networks that read elsewhere, pictures and texts that
swell."""

from __future__ import annotations

import os
import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeinfer.config import plugins
from edgeinfer.config.card import load_model
from edgeinfer.config.settings import load_config
from edgeinfer.config.yamlfile import parse_yaml
from edgeinfer.engine import toolkit
from edgeinfer.engine.errors import UnsafeError
from edgeinfer.errors import ConfigError, InputError
from edgeinfer.guard.limits import MAX_PIXELS, MAX_YAML_DEPTH
from edgeinfer.sources import images
from tests.conftest import Cli
from tests.engine.test_onnxfile import write_external
from tests.test_run import one_error_line, write_constant_network

QUIET = ("--set", "publish=null")


def test_a_network_that_reads_elsewhere_is_refused_by_every_command(cli: Cli, tmp_path: Path) -> None:
    write_constant_network(tmp_path / "good.onnx", batch=1)
    card = re.sub(r"(?m)^sha256:.*$", "", cli("models", "inspect", "good.onnx", "--card").stdout)
    (tmp_path / "bad.yaml").write_text(card.replace("good.onnx", "bad.onnx"))
    write_external(tmp_path / "bad.onnx", "../../../../etc/passwd")
    (tmp_path / "c.yaml").write_text("model: bad.onnx\nsources: {a: 'demo:'}\n")
    for args in (("check", "c.yaml"), ("run", "--config", "c.yaml", *QUIET), ("bench", "--model", "bad.onnx")):
        process = cli(*args)
        assert process.returncode == 66, args
        assert "outside the model's folder" in one_error_line(process)


def test_a_pinned_model_is_the_only_one_that_runs(cli: Cli, tmp_path: Path) -> None:
    digest = load_model("nanodet-g").sha256
    (tmp_path / "c.yaml").write_text(f"model: {{path: nanodet-g, sha256: {digest}}}\nsources: {{a: 'demo:'}}\n")
    assert cli("check", "c.yaml").returncode == 0
    (tmp_path / "c.yaml").write_text(f"model: {{path: nanodet-g, sha256: {'0' * 64}}}\nsources: {{a: 'demo:'}}\n")
    for args in (("check", "c.yaml"), ("run", "--config", "c.yaml", *QUIET)):
        process = cli(*args)
        assert process.returncode == 78
        assert "model.sha256" in one_error_line(process)


# --- code ---


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a plugin, outside edgeinfer."""
    package = tmp_path / "away" / f"cameras{os.getpid()}"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("loaded = []\n")
    (package / "noise.py").write_text(
        "from msgspec import Struct\n\n\nclass Options(Struct):\n    pass\n\n\ndef open(uri, options): ...\n"
    )
    for path in (package.parent, package, *package.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    monkeypatch.syspath_prepend(str(package.parent))
    for name in [name for name in sys.modules if name.startswith(package.name)]:
        monkeypatch.delitem(sys.modules, name)
    return package


def test_a_plugin_of_ones_own_is_loaded(elsewhere: Path) -> None:
    assert plugins.load("sources", f"{elsewhere.name}.noise").Options


@pytest.mark.parametrize("which", [".", "__init__.py", "noise.py", ".."])
def test_a_plugin_that_others_could_have_written_is_not_run(elsewhere: Path, which: str) -> None:
    (elsewhere / which).resolve().chmod(0o777)
    with pytest.raises(ConfigError, match="everybody may write it"):
        plugins.load("sources", f"{elsewhere.name}.noise")
    assert f"{elsewhere.name}.noise" not in sys.modules


def test_a_plugin_that_is_loaded_already_is_looked_at_again(elsewhere: Path) -> None:
    """At a reload the file may be another one."""
    plugins.load("sources", f"{elsewhere.name}.noise")
    (elsewhere / "noise.py").chmod(0o666)
    with pytest.raises(ConfigError, match="everybody may write it"):
        plugins.load("sources", f"{elsewhere.name}.noise")


@pytest.mark.parametrize("missing", ["Options", "open"])
def test_a_module_that_is_half_a_plugin(elsewhere: Path, missing: str) -> None:
    text = (
        (elsewhere / "noise.py").read_text().replace(f"class {missing}", "class X").replace(f"def {missing}", "def x")
    )
    (elsewhere / "noise.py").write_text(text)
    with pytest.raises(ConfigError, match=r"noise is not a source; a plugin module has an Options struct and an open"):
        plugins.load("sources", f"{elsewhere.name}.noise")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_plugin_of_somebody_else_is_not_run(elsewhere: Path) -> None:
    os.chown(elsewhere / "__init__.py", 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        plugins.load("sources", f"{elsewhere.name}.noise")
    assert elsewhere.name not in sys.modules, "not even the package around it"


@pytest.mark.parametrize("name", ["os", "../x", "x/y", ".x", "x.", "os;x", "edgeinfer", ""])
def test_only_what_is_named_as_a_plugin_is_imported(name: str) -> None:
    with pytest.raises(ConfigError, match="no source called"):
        plugins.load("sources", name)


def test_a_plugin_library_that_others_could_have_written_is_not_loaded(tmp_path: Path) -> None:
    library = tmp_path / "libplugin.so"
    library.write_bytes(b"\x7fELF")
    library.chmod(0o666)

    class Registry:
        def load_library(self, path: str) -> object:
            raise AssertionError("it was loaded")

    class Trt:
        def init_libnvinfer_plugins(self, logger: object, namespace: str) -> None: ...

        def get_plugin_registry(self) -> Registry:
            return Registry()

    class Kit:
        trt = Trt()

    with pytest.raises(UnsafeError, match="others may write it"):
        toolkit.load_plugins(Kit(), None, (str(library),))  # type: ignore[arg-type]


# --- what swells ---


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(60_000, 60_000), (8193, 8192), (1 << 16, 1025)])
def test_a_picture_that_swells_is_refused_by_its_header(cli: Cli, tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "bomb.png").write_bytes(png(*size))
    process = cli("run", "--source", "bomb.png", *QUIET)
    assert process.returncode == 66
    assert "larger than 67 million pixels" in one_error_line(process)


def test_the_largest_picture_is_8192_by_8192() -> None:
    """OpenCV is told when edgeinfer is imported; what it does then is tested above, in a process of its own."""
    assert MAX_PIXELS == 8192 * 8192
    assert os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] == str(MAX_PIXELS)


def test_yaml_that_swells(tmp_path: Path) -> None:
    """Ten aliases on each of ten levels: ten thousand million items, were they written out."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    for text in ("\n".join(levels), "\n".join([*levels, "sources: *a9", "model: *a9"])):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / "c.yaml")
        assert len(str(caught.value)) < 2500


@pytest.mark.parametrize("times", [1, 2, 5])
def test_yaml_merges_that_swell(times: int) -> None:
    """Each mapping merges the one before it several times over: its size doubles with each level."""
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * times)}], k{n}: 1}}" for n in range(1, 40)]
    text = "\n".join(lines)
    if times == 1:
        assert len(parse_yaml(text, "c.yaml")["a39"]) == 41, "a few are what merges are for"
    else:
        with pytest.raises(ConfigError, match="more than 131072 values"):
            parse_yaml(text, "c.yaml")


def test_aliases_in_keys_and_sets_swell_no_less() -> None:
    levels = ["- &a0 [x, x, x, x, x, x, x, x]"]
    levels += [f"- &a{n} {{{', '.join(f'k{k}: *a{n - 1}' for k in range(8))}}}" for n in range(1, 7)]
    with pytest.raises(ConfigError, match="more than 131072 values"):
        parse_yaml("\n".join(levels), "c.yaml")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "!x [", "&a ["])
def test_yaml_that_is_too_deep(opening: str) -> None:
    for depth in (MAX_YAML_DEPTH + 1, 100_000):
        with pytest.raises(ConfigError, match="not valid YAML"):
            parse_yaml(opening * depth, "c.yaml")
    closing = {"[": "]", "{": "}"}.get(opening.strip()[0], "")
    if closing:
        assert parse_yaml(opening * (MAX_YAML_DEPTH - 1) + "x" + closing * (MAX_YAML_DEPTH - 1), "c.yaml")


@pytest.mark.parametrize("text", ["1" * 70, "0x" + "f" * 200_000, "1:" + ":".join(["59"] * 60_000), "1." + "0" * 70])
def test_yaml_with_endless_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match="more than 64 characters"):
        parse_yaml(f"a: {text}", "c.yaml")
    assert parse_yaml(f"a: '{text}'", "c.yaml") == {"a": text}


@pytest.mark.parametrize(
    "text", ["sources: &s\n  a: {uri: 'demo:', x: *s}\n", "&a [*a]", "&a {<<: *a}", "&a {? *a : 1}"]
)
def test_yaml_that_contains_itself(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match="contains itself"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!x {}"])
def test_yaml_makes_no_objects(tag: str) -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_yaml(f"a: {tag}", "c.yaml")


def test_yaml_with_half_a_character() -> None:
    assert parse_yaml('a: "\\ud83d\\ude00"', "c.yaml") == {"a": "\U0001f600"}
    with pytest.raises(ConfigError, match="half a character"):
        parse_yaml('a: "\\ud83d"', "c.yaml")


@pytest.mark.parametrize("kind", ["config", "card"])
def test_texts_that_are_too_large(tmp_path: Path, kind: str) -> None:
    (tmp_path / "big.yaml").write_text("# " + "x" * (300 << 10))
    (tmp_path / "m.onnx").write_bytes(b"")
    load: Callable[[], object] = {
        "config": lambda: load_config(tmp_path / "big.yaml"),
        "card": lambda: load_model(str(tmp_path / "m.onnx"), str(tmp_path / "big.yaml")),
    }[kind]
    with pytest.raises(ConfigError, match="larger than 256 KiB"):
        load()


def test_a_model_that_is_a_pipe(tmp_path: Path) -> None:
    write_constant_network(tmp_path / "good.onnx", batch=1)
    card = tmp_path / "pipe.yaml"
    vendored = Path(images.__file__).parents[1] / "models" / "nanodet-g.yaml"
    card.write_text(vendored.read_text())
    pipe = tmp_path / load_model("nanodet-g").path.name
    os.mkfifo(pipe)
    with pytest.raises(InputError):
        load_model(str(pipe), str(card))
