"""The cache keeps whole engines and nothing else, and trusts nobody."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeinfer.engine.errors import BuildCancelledError, CacheError, CrashLoopError, PlanError, UnsafeError
from edgeinfer.engine.store import manifest as manifests
from edgeinfer.engine.store import trust
from edgeinfer.engine.store.cache import BrokenEngine, Cache, CachedEngine, default_root
from edgeinfer.engine.store.disk import folder_bytes
from edgeinfer.engine.store.key import engine_key
from edgeinfer.engine.store.probation import Probation
from edgeinfer.errors import UsageError
from tests.engine.plans import make_plan
from tests.engine.samples import fields, manifest

PLAN = make_plan(body=b"k" * 1000)


def no_wait(_seconds: float) -> None:
    raise BuildCancelledError("somebody else builds")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def put(cache: Cache, plan: bytes = PLAN, used_at: float | None = None, **changes: object) -> CachedEngine:
    with cache.lock(no_wait), cache.workspace() as work:
        (work / "engine.plan").write_bytes(plan)
        engine = cache.store(work, manifest(plan, fields(**changes)))
    if used_at is not None:
        os.utime(engine.folder / "manifest.json", (used_at, used_at))
    return engine


def test_what_is_stored_comes_back(cache: Cache) -> None:
    stored = put(cache)
    found = Cache(cache.root).usable(stored.key)
    assert found == stored
    assert found is not None
    assert found.read() == PLAN
    assert list(cache.tmp.iterdir()) == []
    assert stored.key == engine_key(fields())
    assert cache.usable("0" * 64) is None


def test_an_engine_is_on_the_disk_before_it_is_in_the_cache(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a power cut leaves a name without contents."""
    steps: list[str] = []
    sync, rename = os.fsync, Path.rename

    def told_sync(descriptor: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        sync(descriptor)

    def told_rename(self: Path, target: Path) -> Path:
        steps.append(f"rename to {target.name}")
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", told_sync)
        patched.setattr(Path, "rename", told_rename)
        key = put(cache).key
    before = [step for step in steps[: steps.index(f"rename to {key}")] if step.startswith("sync")]
    assert before == ["sync engine.plan", "sync manifest.json", "sync entry"]
    assert steps[-1] == "sync engines"


def test_a_strike_is_on_the_disk_before_the_engine_runs(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, synced = put(cache), list[int]()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    cache.strike(engine.key)
    cache.strike(engine.key)
    assert synced == [1, 2]


def test_there_may_be_nothing_to_absolve(cache: Cache) -> None:
    engine = put(cache)
    cache.absolve(engine.key)
    cache.absolve("0" * 64)
    assert engine.strikes == 0


def test_what_is_kept_is_for_its_owner_alone(cache: Cache) -> None:
    before = os.umask(0)
    try:
        engine = put(Cache(cache.root.with_name("other")))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (engine.folder, *engine.folder.iterdir())}
    assert modes == {engine.key: 0o700, "engine.plan": 0o600, "manifest.json": 0o600}
    root = engine.folder.parents[1]
    assert {path.stat().st_mode & 0o777 for path in (root, *root.iterdir()) if path.is_dir()} == {0o700}
    assert (root / "build.lock").stat().st_mode & 0o777 == 0o600


def test_storing_again_replaces(cache: Cache) -> None:
    put(cache)
    other = make_plan(body=b"other")
    engine = cache.get(put(cache, other).key)
    assert engine is not None
    assert engine.read() == other


def damage_plan(folder: Path, data: bytes) -> None:
    (folder / "engine.plan").write_bytes(data)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("engine.plan", lambda data: data[:-1]),
        ("engine.plan", lambda _: b""),
        ("engine.plan", lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:]),
        ("manifest.json", lambda data: data[:100]),
        ("manifest.json", lambda data: data.replace(b'"8.7"', b'"8.6"')),
        ("manifest.json", lambda _: b"{}"),
    ],
)
def test_damage_is_refused_and_taken_out_for_a_new_build(cache: Cache, file: str, change: object) -> None:
    engine = put(cache)
    path = engine.folder / file
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(PlanError, match="build the engine again"):
        (cache.get(engine.key) or engine).read()
    assert cache.usable(engine.key) is None
    assert not engine.folder.exists()


def test_a_manifest_that_is_too_large_is_damage(cache: Cache) -> None:
    engine = put(cache)
    with (engine.folder / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)  # it takes no room, and would take memory
    with pytest.raises(PlanError, match="damaged"):
        cache.get(engine.key)


def test_a_missing_plan_or_manifest_is_damage(cache: Cache) -> None:
    for name in ("engine.plan", "manifest.json"):
        engine = put(cache)
        (engine.folder / name).unlink()
        assert cache.usable(engine.key) is None


def test_a_plan_of_another_tensorrt_than_its_manifest_says_is_refused(cache: Cache) -> None:
    engine = put(cache, make_plan((8, 6, 0, 12)))
    with pytest.raises(PlanError, match="another TensorRT"):
        engine.read()


def test_an_engine_moved_to_another_key_is_refused(cache: Cache) -> None:
    engine = put(cache)
    key = "f" * 64
    engine.folder.rename(cache.engines / key)
    with pytest.raises(PlanError, match="describes engine"):
        cache.get(key)


@pytest.mark.parametrize(
    "place", ["", "engines", "engines/KEY", "engines/KEY/engine.plan", "engines/KEY/manifest.json"]
)
@pytest.mark.parametrize("bits", [0o020, 0o002])
def test_what_others_may_write_is_refused_and_not_removed(cache: Cache, place: str, bits: int) -> None:
    engine = put(cache)
    path = cache.root / place.replace("KEY", engine.key)
    path.chmod(path.stat().st_mode | bits)
    with pytest.raises(UnsafeError, match="others may write it"):
        Cache(cache.root).usable(engine.key)
    assert engine.folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(
    "place", ["", "engines", "engines/KEY", "engines/KEY/engine.plan", "engines/KEY/manifest.json"]
)
def test_what_belongs_to_somebody_else_is_refused(cache: Cache, place: str) -> None:
    engine = put(cache)
    os.chown(cache.root / place.replace("KEY", engine.key), 12345, -1)
    with pytest.raises(UnsafeError, match="belongs to user 12345"):
        Cache(cache.root).usable(engine.key)


def test_symbolic_links_are_refused(cache: Cache, tmp_path: Path) -> None:
    engine = put(cache)
    (engine.folder / "engine.plan").rename(tmp_path / "elsewhere")
    (engine.folder / "engine.plan").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeError, match="symbolic link"):
        cache.usable(engine.key)
    (cache.engines / ("a" * 64)).symlink_to(engine.folder)
    with pytest.raises(UnsafeError, match="no folder"):
        cache.get("a" * 64)


def test_a_pipe_in_place_of_a_plan_does_not_hang(cache: Cache) -> None:
    engine = put(cache)
    (engine.folder / "engine.plan").unlink()
    os.mkfifo(engine.folder / "engine.plan")
    with pytest.raises(UnsafeError, match="no regular file"):
        cache.usable(engine.key)


def test_prune_removes_the_least_recently_used(cache: Cache) -> None:
    old, middle, new = (put(cache, used_at=t, gpu=f"GPU {t}") for t in (100, 200, 300))
    size = sum(path.stat().st_size for path in old.folder.iterdir())
    assert cache.prune(2 * size) == [old.key]
    assert cache.prune(0, keep=middle.key) == [new.key]
    assert [item.key for item in cache.entries()] == [middle.key]
    assert cache.prune(size) == []


def test_reading_an_engine_is_a_use(cache: Cache) -> None:
    old, new = (put(cache, used_at=t, gpu=f"GPU {t}") for t in (100, 200))
    old.read()
    assert [item.key for item in cache.entries()] == [old.key, new.key]


def test_prune_takes_broken_and_quarantined_engines_first(cache: Cache) -> None:
    good, crashing = put(cache), put(cache, gpu="other")
    broken = cache.engines / ("b" * 64)
    broken.mkdir(mode=0o700)
    (broken / "engine.plan").write_bytes(b"x")
    cache.quarantine(crashing.key, "it crashed")
    size = sum(path.stat().st_size for path in good.folder.iterdir())
    assert cache.prune(size) == [crashing.key, broken.name]


def test_three_strikes_put_an_engine_into_quarantine(cache: Cache) -> None:
    engine = put(cache)
    for _ in range(2):
        cache.strike(engine.key)
    assert cache.usable(engine.key) == engine
    cache.absolve(engine.key)
    for _ in range(3):
        assert cache.usable(engine.key) == engine
        cache.strike(engine.key)
    assert cache.usable(engine.key) is None
    assert (cache.quarantined / engine.key / "engine.plan").read_bytes() == PLAN
    assert put(cache).strikes == 0


def test_what_was_built_in_place_of_a_crashing_engine_and_crashes_too_is_not_used(cache: Cache) -> None:
    for _ in range(2):
        engine = put(cache)
        for _ in range(3):
            assert cache.usable(engine.key) == engine
            cache.strike(engine.key)
        if not cache.quarantined.joinpath(engine.key).exists():
            assert cache.usable(engine.key) is None
    with pytest.raises(CrashLoopError, match="was built again, and did so again"):
        cache.usable(engine.key)
    cache.absolve(engine.key)
    assert cache.usable(engine.key) == engine, "one that has proven itself starts with a clean record"
    for _ in range(3):
        cache.strike(engine.key)
    assert cache.usable(engine.key) is None


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def serve(cache: Cache, seconds: float, end: str) -> None:
    """A process that loads the engine, serves for a while and ends: well, killed, or for the engine's sake."""
    engine = cache.usable(key := cache.entries()[0].key)
    assert engine is not None, key
    clock = Clock()
    probation = Probation(cache, engine, clock)
    clock.now += seconds
    probation.tick()
    if end == "well":
        probation.pass_()
    if end == "fatal":
        probation.blame()


@pytest.mark.parametrize(
    ("lives", "strikes"),
    [
        ([(5, "well")], 0),
        ([(5, "killed")], 1),
        ([(61, "killed")], 0),
        ([(5, "killed"), (61, "killed")], 2),
        ([(5, "killed"), (601, "killed")], 0),
        ([(5, "killed"), (5, "killed"), (5, "well")], 0),
        ([(5, "fatal")] * 3, 3),
        ([(120, "fatal")] * 3, 3),
        ([(3600, "fatal")] * 3, 1),
    ],
)
def test_an_engine_is_on_probation_until_it_has_served_or_ended_well(
    cache: Cache, lives: list[tuple[float, str]], strikes: int
) -> None:
    engine = put(cache)
    for seconds, end in lives:
        serve(cache, seconds, end)
    assert engine.strikes == strikes


def test_find_wants_one_engine(cache: Cache) -> None:
    one, other = put(cache), put(cache, gpu="other")
    assert cache.find(one.key[:10].upper()) == one
    for prefix, message in (("", "no engine"), ("zz", "no engine")):
        with pytest.raises(UsageError, match=message):
            cache.find(prefix)
    last = "0" if one.key[63] != "0" else "1"
    os.rename(other.folder, cache.engines / (one.key[:63] + last))  # noqa: PTH104
    with pytest.raises(UsageError, match="names 2 engines"):
        cache.find(one.key[:8])


def test_the_list_shows_what_is_broken(cache: Cache) -> None:
    good, bad = put(cache), put(cache, gpu="other")
    (bad.folder / "manifest.json").write_text("{")
    (cache.engines / "note.txt").write_text("hello")
    items = cache.entries()
    assert items[0] == good
    assert sorted(item.key for item in items if isinstance(item, BrokenEngine)) == [bad.key]
    assert set(cache.prune(0)) == {good.key, bad.key}
    assert [path.name for path in cache.engines.iterdir()] == ["note.txt"], "it is no engine, so it is somebody's"


def test_a_workspace_sweeps_up_after_killed_builds(cache: Cache) -> None:
    left = [cache.tmp / name for name in ("build-abcd1234.dead", "tmpabcd1234", f"{'a' * 64}.01234567")]
    for folder in left:
        folder.mkdir()
        (folder / "engine.plan").write_bytes(b"half")
    with cache.lock(no_wait):
        Cache(cache.root).tidy()  # somebody builds: hands off
        assert len(list(cache.tmp.iterdir())) == 3
        with cache.workspace() as work:
            assert list(cache.tmp.iterdir()) == [work]
    left[0].mkdir()
    cache.tidy()
    assert list(cache.tmp.iterdir()) == []


def test_sweeping_touches_only_names_of_our_own_and_follows_no_link(cache: Cache, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "letter").write_text("dear")
    (cache.tmp / "notes").write_text("mine")
    (cache.tmp / "build-abcd1234").symlink_to(theirs)
    (cache.tmp / "build-efgh5678").mkdir()
    (cache.tmp / "build-efgh5678/link").symlink_to(theirs)
    cache.tidy()
    assert sorted(path.name for path in cache.tmp.iterdir()) == ["build-abcd1234", "notes"]
    assert (theirs / "letter").read_text() == "dear"


def test_an_engine_with_somebodys_file_beside_it_is_not_removed(cache: Cache) -> None:
    engine = put(cache)
    (engine.folder / "letter").write_text("dear")
    assert cache.prune(0) == []
    cache.remove(engine.key)
    with pytest.raises(CacheError, match="Directory not empty"):
        put(cache)
    assert (engine.folder / "letter").read_text() == "dear"


def test_a_manifest_of_a_later_schema_is_not_read() -> None:
    import msgspec  # noqa: PLC0415

    later = msgspec.structs.replace(manifest(PLAN), schema=2)
    with pytest.raises(PlanError, match="written in schema 2, known is 1"):
        manifests.decode(manifests.encode(later), "m")


def test_a_library_that_others_may_write_is_not_loaded(tmp_path: Path) -> None:
    library = tmp_path / "p.so"
    with pytest.raises(UnsafeError, match="can't be read"):
        trust.check_file(library)
    library.write_bytes(b"x")
    tmp_path.chmod(0o700)
    trust.check_file(library)
    link = tmp_path / "link.so"
    link.symlink_to(library)
    trust.check_file(link)
    library.chmod(0o666)
    for path in (library, link):
        with pytest.raises(UnsafeError, match="others may write it"):
            trust.check_file(path)
    library.chmod(0o600)
    tmp_path.chmod(0o770)
    with pytest.raises(UnsafeError, match="others may write it"):
        trust.check_file(library)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_root_wrote_is_trusted(cache: Cache) -> None:
    engine = put(cache)
    ends = [path for path in (engine.folder, *engine.folder.parents) if path.stat().st_mode & 0o005 != 0o005]
    modes = [path.stat().st_mode for path in ends]
    for path in ends:
        path.chmod(0o755)
    for name in ("engine.plan", "manifest.json"):
        (engine.folder / name).chmod(0o644)
    os.seteuid(65534)
    try:
        assert engine.read(mark=False) == PLAN
    finally:
        os.seteuid(0)
        for path, mode in zip(ends, modes, strict=True):
            path.chmod(mode)


def test_the_size_of_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "b").write_bytes(b"4567")
    assert (folder_bytes(tmp_path), folder_bytes(tmp_path / "a"), folder_bytes(tmp_path / "none")) == (7, 3, 0)


def test_the_last_used_comes_first_and_what_is_broken_last(cache: Cache) -> None:
    old, new = (put(cache, used_at=time, gpu=f"GPU {time}") for time in (100, 200))
    broken = ["0" * 64, "f" * 64]
    for key in broken:
        (cache.engines / key).mkdir(mode=0o700)
    assert [item.key for item in cache.entries()] == [new.key, old.key, *broken]


def test_looking_is_no_use(cache: Cache) -> None:
    engine = put(cache, used_at=100)
    engine.read(mark=False)
    assert engine.used_at == 100


def test_a_lock_that_is_taken_tells_how_long_it_has_waited(cache: Cache) -> None:
    waited: list[float] = []

    def waiting(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            raise BuildCancelledError("enough")

    with cache.lock(no_wait), pytest.raises(BuildCancelledError), cache.lock(waiting):
        pass
    assert 0 <= waited[0] < waited[1]


def test_helper_files_have_a_private_folder(cache: Cache) -> None:
    path = cache.file("timing", "x")
    assert path == cache.root / "timing/x"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.parent.chmod(0o777)
    with pytest.raises(UnsafeError, match="others may write it"):
        cache.file("timing", "x")


def test_the_lock_is_for_one(cache: Cache) -> None:
    with cache.lock(no_wait), pytest.raises(BuildCancelledError), Cache(cache.root).lock(no_wait):
        pass
    with cache.lock(no_wait):
        pass


def test_where_it_lives() -> None:
    assert default_root({"CACHE_DIRECTORY": "/var/cache/edgeinfer:/x", "XDG_CACHE_HOME": "/c"}) == Path(
        "/var/cache/edgeinfer"
    )
    assert default_root({"XDG_CACHE_HOME": "/c"}) == Path("/c/edgeinfer")
    assert default_root({"XDG_CACHE_HOME": "relative"}) == Path.home() / ".cache/edgeinfer"


def test_a_file_in_place_of_the_cache(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(CacheError, match="can't be written"):
        Cache(tmp_path / "cache/edgeinfer")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_elses_cache_is_told() -> None:
    with tempfile.TemporaryDirectory() as place:  # the folder of the tests can't be entered by others
        root = Path(place) / "cache"
        Cache(root).tidy()
        for path in (root, root.parent):
            path.chmod(0o755)
        os.seteuid(65534)
        try:
            with pytest.raises(
                CacheError, match=r"build\.lock: can't be opened \(Permission denied\); run as the user"
            ):
                Cache(root).tidy()
        finally:
            os.seteuid(0)


@given(st.binary(max_size=300) | st.text(max_size=99).map(str.encode))
def test_any_bytes_give_a_manifest_or_a_plan_error(data: bytes) -> None:
    with pytest.raises(PlanError):
        manifests.decode(data, "m")


@given(st.text(max_size=20), st.floats(0, 1e9), st.lists(st.text(max_size=9), max_size=3), st.binary(max_size=9))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_manifests_come_back_as_written(name: str, seconds: float, log: list[str], plan: bytes) -> None:
    import msgspec  # noqa: PLC0415

    made = manifest(plan, fields(gpu=name))
    build = msgspec.structs.replace(made.build, seconds=seconds, log=tuple(log))
    made = msgspec.structs.replace(made, model_name=name, build=build)
    assert manifests.decode(manifests.encode(made), "m") == made


@given(st.integers(0, 5000), st.integers(1, 255))
def test_a_flipped_byte_in_a_manifest_never_passes_as_another_key(position: int, flip: int) -> None:
    data = bytearray(manifests.encode(manifest(PLAN)))
    data[position % len(data)] ^= flip
    try:
        made = manifests.decode(bytes(data), "m")
    except PlanError:
        return
    assert made.key == engine_key(made.fields)


def older(cache: Cache, cuda: str = "12.6", used_at: float | None = None) -> CachedEngine:
    """An engine of the time when the CUDA runtime's version was part of the key."""
    return put(cache, used_at=used_at, schema=1, cuda=cuda)


def test_an_engine_that_an_older_edgeinfer_built_is_used_on(cache: Cache) -> None:
    engine = older(cache)
    key = engine_key(fields(cuda="12.9"))
    assert engine.key != key
    found = cache.usable(key)
    assert found is not None
    assert (found.key, found.read()) == (engine.key, PLAN)
    assert Cache(cache.root, writing=False).get(key) == engine
    assert cache.usable(engine_key(fields(l4t="36.4.4"))) is None


def test_of_several_older_engines_the_one_used_last_serves_and_a_new_one_before_them(cache: Cache) -> None:
    older(cache, "12.5", used_at=1e9)
    last = older(cache, "12.6", used_at=2e9)
    key = engine_key(fields())
    assert cache.usable(key) == last
    new = put(cache)
    assert (new.key, cache.usable(key)) == (key, new)


def test_an_older_engine_that_is_damaged_or_crashes_is_taken_out_like_any_other(cache: Cache) -> None:
    key, engine = engine_key(fields()), older(cache)
    (engine.folder / "engine.plan").write_bytes(b"x")
    assert cache.usable(key) is None
    assert "its checksum is not the one" in cache.taken_out[key]
    assert not engine.folder.exists()
    engine = older(cache)
    for _ in range(3):
        cache.strike(engine.key)
    assert cache.usable(key) is None
    assert "ended its process 3 times" in cache.taken_out[key]
    assert (cache.quarantined / engine.key).is_dir()


@pytest.mark.parametrize("kind", ["file", "link to nowhere"])
def test_what_is_no_folder_of_an_engine_is_broken_and_nothing_else(cache: Cache, kind: str) -> None:
    """Whatever its name is; the engines beside it are found."""
    put(cache)
    stray = cache.engines / ("a" * 64)
    stray.touch() if kind == "file" else stray.symlink_to("nowhere")
    assert cache.get("a" * 64) is None
    assert cache.usable("b" * 64) is None
    assert [type(item).__name__ for item in cache.entries()] == ["CachedEngine", "BrokenEngine"]
