"""Whatever folder the cache is said to be in: nobody's files are touched, and a cache is known as one."""

from __future__ import annotations

import contextlib
import io
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeinfer import cli
from edgeinfer.commands import _engine_options
from edgeinfer.engine.build import scratch
from edgeinfer.engine.errors import CacheError, UnsafeError
from edgeinfer.engine.store import marker
from edgeinfer.engine.store.cache import Cache
from tests.engine.fakes import fake_toolkit
from tests.engine.samples import ORIN
from tests.engine.test_cache import no_wait, put

KEY = "a" * 64
READING = (
    ("engines", "ls"),
    ("engines", "show", "a"),
    ("engines", "verify"),
    ("engines", "explain", "nanodet-g", "--batch", "1"),
    ("build", "nanodet-g", "--batch", "1", "--dry-run"),
)
WRITING = (("engines", "prune", "--max-size", "0"), ("build", "nanodet-g", "--batch", "1", "--no-verify"))
ELSEWHERE = (
    ("doctor",), ("doctor", "--json"), ("models", "ls"), ("models", "show", "nanodet-g"), ("check", "c.yaml"),
    ("service", "status"), ("status", "ipc://none"),
)  # fmt: skip
"""Commands that read and don't know a cache: they see the tree as their home, cache and state folder."""

Tree = dict[str, tuple[object, ...]]


def look(root: Path) -> Tree:
    """All that is in a folder: kind, mode, time of change, and contents or target."""
    found: Tree = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        content: object = path.readlink() if path.is_symlink() else None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        found[str(path.relative_to(root))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def run(*arguments: str) -> str:
    said = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        cli.main(list(arguments))
    return said.getvalue()


PLACES = ["", "engines/", f"engines/{KEY}/", "tmp/", "tmp/tmpabcd1234/", "quarantine/", "timing/"]
NAMES = [
    "notes", "engine.plan", "manifest.json", "strikes", "build.lock", "CACHEDIR.TAG", "tmpabcd1234", "build-abcd1234",
    KEY, f"{KEY}.01234567", "last_crash.json", "edgeinfer",
]  # fmt: skip
FILES = st.dictionaries(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(NAMES)),
    st.sampled_from([b"", b"mine", marker.CONTENT[:43], "link", "folder"]),
    min_size=1,
    max_size=8,
)


def plant(root: Path, files: dict[tuple[str, str], bytes | str], target: Path) -> None:
    root.mkdir(mode=0o700, parents=True)
    for (place, name), content in files.items():
        with contextlib.suppress(OSError):  # a name that is a file here and a folder there
            (root / place).mkdir(parents=True, exist_ok=True)
            path = root / place / name
            if content == "link":
                path.symlink_to(target)
            elif content == "folder":
                path.mkdir()
            else:
                assert isinstance(content, bytes)
                path.write_bytes(content)
    with contextlib.suppress(OSError):
        (root / "tmp").mkdir(exist_ok=True)
    (root / "letter.txt").write_text("there is always one that is nobody else's")


@pytest.mark.slow
@given(FILES, st.booleans())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_command_touches_the_files_of_a_user(
    tmp_path_factory: pytest.TempPathFactory, files: dict[tuple[str, str], bytes | str], linked: bool
) -> None:
    """Named as the cache, by a link too, or as the folder of all caches, by commands that read and that write."""
    place = tmp_path_factory.mktemp("place")
    target, root = place / "target", place / "home/edgeinfer"
    target.mkdir()
    (target / "precious").write_text("x")
    plant(root, files, target)
    (place / "link").symlink_to(root)
    before = look(place)
    named = str(place / "link" if linked else root)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_engine_options, "this_machine", lambda _: ORIN)
        patched.setattr("edgeinfer.engine.toolkit.load", lambda _: fake_toolkit("10.3.0"))
        for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
            patched.setenv(name, str(place / "home"))
        patched.chdir(root)
        for command in (*READING, *WRITING):
            run(*command, "--cache-dir", named)
            run(*command)
        scratch.open_cache(Path(named))
    assert look(place) == before


@pytest.mark.slow
def test_commands_that_know_no_cache_write_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, root = tmp_path / "target", tmp_path / "home/edgeinfer"
    target.mkdir()
    plant(root, {("", "running"): "folder", ("", "last_crash.json"): b"mine", ("tmp/", "x"): "link"}, target)
    (root / "c.yaml").write_text("sources: {a: 'demo:'}\n")
    before = look(tmp_path)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(root)
    for command in ELSEWHERE:
        run(*command)
    assert look(tmp_path) == before


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_command_that_reads_makes_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(_engine_options, "this_machine", lambda _: ORIN)
    run(*command, "--cache-dir", str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    run(*command, "--cache-dir", str(tmp_path / "empty"))
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


@pytest.mark.parametrize("command", [("engines", "ls"), ("engines", "verify"), ("engines", "show", "a")], ids=" ".join)
def test_a_command_that_reads_says_of_somebodys_folder_that_it_is_no_cache(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines" / ("a" * 64)).write_text("mine")
    said = run(*command, "--cache-dir", str(tmp_path))
    assert "no engine cache of edgeinfer" in said
    assert "remove" not in said
    assert "broken" not in said


def test_a_file_of_somebodys_within_the_cache_is_not_spoken_of(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    (cache.engines / "notes.txt").write_text("mine")
    assert "no engines in" in run("engines", "ls", "--cache-dir", str(cache.root))
    assert cache.entries() == []


def test_a_command_that_reads_does_not_sweep_or_mark_or_use_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_engine_options, "this_machine", lambda _: ORIN)
    cache = Cache(tmp_path / "cache")
    put(cache)
    (cache.tmp / "build-abcd1234").mkdir()
    (cache.root / marker.MARKER).unlink()
    before = look(tmp_path)
    for command in READING:
        run(*command, "--cache-dir", str(cache.root))
    assert look(tmp_path) == before


# Which folder is a cache


def test_a_cache_says_what_it_is(tmp_path: Path) -> None:
    root = Cache(tmp_path / "cache").root
    assert (root / "CACHEDIR.TAG").read_bytes() == marker.CONTENT
    assert marker.CONTENT.startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    Cache(root)


def old_cache(root: Path) -> Cache:
    """As a version without markers left it after a killed build."""
    cache = Cache(root)
    put(cache)
    crashed = put(cache, gpu="other")
    cache.quarantine(crashed.key, "it crashed")
    (cache.tmp / "tmpabcd_123").mkdir()
    cache.file("timing", "ab" * 16).write_bytes(b"x")
    with cache.lock(no_wait):
        pass
    (root / marker.MARKER).unlink()
    return cache


def test_a_cache_of_an_older_version_goes_on(tmp_path: Path) -> None:
    cache = old_cache(tmp_path / "cache")
    again = Cache(cache.root)
    assert marker.is_marked(again.root)
    assert len(again.entries()) == 1
    again.tidy()
    assert not list(again.tmp.iterdir())


@pytest.mark.parametrize(
    "stranger",
    ["notes", "engines/notes", f"engines/{'b' * 64}/letter", "tmp/notes", "tmp/tmpabcdefgh", "timing/a.doc", "x/y"],
)
def test_a_folder_with_one_thing_that_is_not_ours_is_no_cache(tmp_path: Path, stranger: str) -> None:
    cache = old_cache(tmp_path / "cache")
    path = cache.root / stranger
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    before = look(cache.root)
    with pytest.raises(CacheError, match="no engine cache of edgeinfer: it holds") as caught:
        Cache(cache.root)
    assert caught.value.exit_code == 64
    assert look(cache.root) == before


@pytest.mark.parametrize("lacking", ["engines", "tmp", "quarantine"])
def test_the_cache_of_another_program_is_none_of_ours(tmp_path: Path, lacking: str) -> None:
    for name in {"engines", "tmp", "quarantine"} - {lacking}:
        (tmp_path / name).mkdir()
    (tmp_path / "tmp").mkdir(exist_ok=True)
    if lacking == "tmp":
        (tmp_path / "tmp").rmdir()
    with pytest.raises(CacheError, match=f"no folder '{lacking}'"):
        Cache(tmp_path)


def test_another_programs_tag_is_not_overwritten(tmp_path: Path) -> None:
    tag = tmp_path / "CACHEDIR.TAG"
    tag.write_text("Signature: 8a477f597d28d172789f06886806bc55\n# cache of a browser\n")
    before = look(tmp_path)
    with pytest.raises(CacheError, match=r"CACHEDIR\.TAG is of another program"):
        Cache(tmp_path)
    assert look(tmp_path) == before


def test_a_tag_that_a_full_disk_cut_short_is_written_again(tmp_path: Path) -> None:
    for length in (0, 10, 60):
        (tmp_path / "CACHEDIR.TAG").write_bytes(marker.CONTENT[:length])
        Cache(tmp_path)
        assert (tmp_path / "CACHEDIR.TAG").read_bytes() == marker.CONTENT


def test_a_tag_through_a_link_or_of_somebody_else_counts_for_nothing(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    (root / "letter").write_text("dear")
    (tmp_path / "tag").write_bytes(marker.CONTENT)
    (root / "CACHEDIR.TAG").symlink_to(tmp_path / "tag")
    with pytest.raises(UnsafeError, match="symbolic link"):
        Cache(root)
    (root / "CACHEDIR.TAG").unlink()
    (root / "CACHEDIR.TAG").write_bytes(marker.CONTENT)
    (root / "CACHEDIR.TAG").chmod(0o666)
    with pytest.raises(UnsafeError, match="others may write it"):
        Cache(root)
    assert (root / "letter").read_text() == "dear"


def test_an_engine_is_known_by_its_files(tmp_path: Path) -> None:
    folder = put(Cache(tmp_path / "cache")).folder
    assert marker.is_engine(folder)
    (tmp_path / "link").symlink_to(folder)
    assert not marker.is_engine(tmp_path / "link")
    assert not marker.is_engine(folder / "engine.plan")
    (folder / "strikes").mkdir()
    assert not marker.is_engine(folder)
