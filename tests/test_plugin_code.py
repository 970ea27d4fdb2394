"""What runs when a plugin is loaded: the source that was checked, and nothing that lies beside it."""

from __future__ import annotations

import importlib
import os
import py_compile
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeinfer.config import plugins
from edgeinfer.errors import ConfigError, UnavailableError

PLUGIN = "from msgspec import Struct\n\nfrom . import helper\n\nRAN = {ran!r}\n\n\n"
PLUGIN += (
    "class Options(Struct):\n    pass\n\n\ndef open(uri, options):\n    from . import late\n\n    return late.RAN\n"
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a plugin, a module that it imports, and one that it imports later."""
    folder = tmp_path / "away" / f"bytes{os.getpid()}"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("RAN = 'source'\n")
    (folder / "noise.py").write_text(PLUGIN.format(ran="source"))
    for name in ("helper", "late"):
        (folder / f"{name}.py").write_text("RAN = 'source'\n")
    for path in (folder.parent, folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    monkeypatch.syspath_prepend(str(folder.parent))
    importlib.invalidate_caches()
    yield folder
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        del sys.modules[name]


def poison(module: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bytecode of something else, that Python would take for that of this module."""
    kept, status = module.read_text(), module.stat()
    module.write_text(kept.replace("'source'", "'caches'"))
    os.utime(module, ns=(status.st_atime_ns, status.st_mtime_ns))
    cached = Path(py_compile.compile(str(module), doraise=True) or "")
    module.write_text(kept)
    os.utime(module, ns=(status.st_atime_ns, status.st_mtime_ns))
    return cached


def test_bytecode_beside_a_plugin_is_not_run(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("__init__", "noise", "helper", "late"):
        assert poison(package / f"{name}.py", monkeypatch).exists()
    code = f"import {package.name}.noise as n; print(n.RAN)"
    environment = {**os.environ, "PYTHONPATH": f"{package.parent}"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "caches", "Python alone would run it"
    module = plugins.load("sources", f"{package.name}.noise")
    assert (module.RAN, module.helper.RAN, module.open("", None)) == ("source",) * 3
    assert sys.modules[package.name].RAN == "source"


def test_bytecode_elsewhere_is_not_run(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "prefix"))
    cached = poison(package / "noise.py", monkeypatch)
    assert tmp_path / "prefix" in cached.parents
    assert plugins.load("sources", f"{package.name}.noise").RAN == "source"


def test_no_bytecode_is_written(package: Path) -> None:
    plugins.load("sources", f"{package.name}.noise").open("", None)
    assert not list(package.rglob("*.pyc"))


@pytest.mark.parametrize("name", ["helper", "late"])
def test_what_a_plugin_imports_from_its_package_is_looked_at_too(package: Path, name: str) -> None:
    (package / f"{name}.py").chmod(0o666)
    with pytest.raises(ConfigError, match=rf"sources\.a: plugin .*{name}: .*everybody may write it"):
        plugins.load("sources", f"{package.name}.noise", "sources.a").open("", None)


def test_a_module_without_source_is_looked_at_like_any_other(package: Path) -> None:
    (package / "noise.py").rename(package / "kept")
    (package / "noise.py").write_text((package / "kept").read_text())
    py_compile.compile(str(package / "noise.py"), cfile=str(package / "noise.pyc"), doraise=True)
    (package / "noise.py").unlink()
    (package / "noise.pyc").chmod(0o666)
    with pytest.raises(ConfigError, match=r"noise\.pyc: everybody may write it"):
        plugins.load("sources", f"{package.name}.noise")
    (package / "noise.pyc").chmod(0o644)
    importlib.invalidate_caches()
    assert plugins.load("sources", f"{package.name}.noise").RAN == "source"


def test_an_extension_module_is_looked_at_like_any_other(package: Path) -> None:
    library = package / f"noise{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    library.write_bytes(b"\x7fELF")
    library.chmod(0o666)
    with pytest.raises(ConfigError, match="everybody may write it"):
        plugins.load("sources", f"{package.name}.noise")


def test_a_package_of_several_folders_is_looked_at_everywhere(package: Path, tmp_path: Path) -> None:
    (package / "__init__.py").unlink()
    other = tmp_path / "other" / package.name
    other.mkdir(parents=True)
    other.chmod(0o777)
    sys.path.append(str(other.parent))
    importlib.invalidate_caches()
    try:
        with pytest.raises(ConfigError, match=f"{other}: everybody may write it"):
            plugins.load("sources", f"{package.name}.noise")
    finally:
        sys.path.remove(str(other.parent))


def test_an_archive_is_looked_at(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "away" / "plugins.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped/__init__.py", "")
        file.writestr("zipped/noise.py", PLUGIN.replace("from . import helper\n\n", "").format(ran="zip"))
    archive.chmod(0o666)
    monkeypatch.syspath_prepend(str(archive))
    with pytest.raises(ConfigError, match=r"plugins\.zip: everybody may write it"):
        plugins.load("sources", "zipped.noise")


def test_a_plugin_that_is_no_file_is_not_waited_for(package: Path) -> None:
    (package / "helper.py").unlink()
    (package / "helper.py").symlink_to("/dev/zero")
    with pytest.raises((ConfigError, UnavailableError), match="helper"):
        plugins.load("sources", f"{package.name}.noise")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_bytecode_of_somebody_else_does_no_harm(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = poison(package / "noise.py", monkeypatch)
    os.chown(cached, 12345, 12345)
    os.chown(cached.parent, 12345, 12345)
    assert plugins.load("sources", f"{package.name}.noise").RAN == "source"
