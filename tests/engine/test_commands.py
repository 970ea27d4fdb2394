"""The commands as a user calls them, on a cache with engines in it."""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import yaml

from edgeinfer import cli
from edgeinfer.commands import _engine_options, models
from edgeinfer.commands._engine_options import task_of
from edgeinfer.commands.build import command as build_command
from edgeinfer.config.card import InputCard, load_model
from edgeinfer.engine.build import card_samples
from edgeinfer.engine.build.builder import BuildLimits, BuildOutcome
from edgeinfer.engine.build.ensure import ensure_task
from edgeinfer.engine.build.samples import SampleSource
from edgeinfer.engine.build.task import Extras, make_task
from edgeinfer.engine.options import BuildOptions
from edgeinfer.engine.store import tuning
from edgeinfer.engine.store.cache import Cache
from edgeinfer.engine.store.key import Target
from edgeinfer.engine.store.manifest import DlaShare, OutputError, Tolerance, Verification
from edgeinfer.engine.toolkit import Toolkit
from edgeinfer.errors import InputError
from edgeinfer.types import TensorSpec
from tests.engine.fakes import fake_toolkit
from tests.engine.quick import quick, quickly
from tests.engine.samples import NANODET, ORIN
from tests.engine.test_ensure import scripted, task


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def on_orin(monkeypatch: pytest.MonkeyPatch) -> Toolkit:
    """As if this machine were the Orin of the samples."""
    monkeypatch.setattr(_engine_options, "this_machine", lambda _: ORIN)
    found = fake_toolkit("10.3.0")
    monkeypatch.setattr("edgeinfer.engine.toolkit.load", lambda _: found)
    return found


class Ended:
    """How a command ended."""

    def __init__(self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
        with pytest.raises(SystemExit) as exit_:
            cli.main(list(arguments))
        self.code, (self.out, self.err) = exit_.value.code, capsys.readouterr()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], cache: Cache) -> Any:
    return lambda *arguments: Ended(capsys, (*arguments, "--cache-dir", str(cache.root)))


def test_ls(run: Any, cache: Cache) -> None:
    assert run("engines", "ls").out == f"no engines in {cache.root}\n"
    assert json.loads(run("engines", "ls", "--json").out) == []
    engine = quickly(cache, task())
    broken = "e" * 64
    (cache.engines / broken).mkdir(mode=0o700)
    ended = run("engines", "ls")
    head, first, second = ended.out.splitlines()
    assert head.split()[:4] == ["KEY", "MODEL", "PRECISION", "TENSORRT"]
    assert first.split()[:5] == [engine.key[:12], "nanodet-g-416.onnx", "fp16", "10.3.0.30", "Orin"]
    assert second.split()[0] == broken[:12]
    assert f"{broken[:12]}: " in ended.err
    for heading, cell in (("MODEL", "nanodet"), ("TENSORRT", "10.3"), ("CHECK", "skipped")):
        assert head.index(heading) == first.index(cell), "columns are straight"
    assert second.index("broken") == head.index("CHECK")
    rows = json.loads(run("engines", "ls", "--json").out)
    assert [(row["key"], row["state"]) for row in rows] == [(engine.key, "ok"), (broken, "broken")]
    assert rows[0]["check"] == "skipped"


def test_an_engine_on_a_dla_is_marked_and_says_how_much_of_it_is_there(run: Any, cache: Cache) -> None:
    share = DlaShare(core=1, able=41, layers=53, parts=2)

    def on_dla(*args: Any) -> BuildOutcome:
        outcome = quick(*args)
        return dataclasses.replace(outcome, built=msgspec.structs.replace(outcome.built, dla=share))

    what = make_task(NANODET, BuildOptions(dla_core=1), ORIN)
    ensure_task(what, cache, lambda _: None, threading.Event(), build=on_dla)
    assert run("engines", "ls").out.splitlines()[1].split()[2] == "fp16@dla1"
    (row,) = json.loads(run("engines", "ls", "--json").out)
    assert (row["dla_core"], row["dla"]) == (1, "41 of 53 layers on DLA core 1, in 2 parts")
    assert "able: 41" in run("engines", "show", what.key).out


def test_show(run: Any, cache: Cache) -> None:
    engine = quickly(cache, task())
    shown = run("engines", "show", engine.key[:6])
    assert "  gpu: Orin\n" in shown.out
    assert "  tensorrt: 10.3.0.30\n" in shown.out
    assert "  log: INFO hello\n" in shown.out
    assert json.loads(run("engines", "show", engine.key, "--json").out)["key"] == engine.key
    missing = run("engines", "show", "abc")
    assert (missing.code, missing.err) == (
        64,
        f"edgeinfer: error: no engine 'abc' in {cache.root}; see `edgeinfer engines ls`\n",
    )


def test_show_draws_the_errors_that_are_known(run: Any, cache: Cache, tmp_path: Path) -> None:
    check = Verification(state="passed", samples=8, outputs={"y": OutputError(0.1, 0.01, 1.0)})

    def compared(*args: Any) -> BuildOutcome:
        outcome = quick(*args)
        return dataclasses.replace(outcome, built=msgspec.structs.replace(outcome.built, verification=check))

    ensure_task(task(), cache, lambda _: None, threading.Event(), build=compared)
    ended = run("engines", "show", task().key, "--plot", str(tmp_path / "errors.png"))
    assert ended.code == 0, ended.err
    assert "  gpu: Orin\n" in ended.out
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")
    nowhere = run("engines", "show", task().key, "--plot", str(tmp_path / "none" / "errors.png"))
    assert (nowhere.code, "no plot can be written there" in nowhere.err) == (64, True)


def test_show_says_why_there_are_no_errors_to_draw(run: Any, cache: Cache, tmp_path: Path) -> None:
    engine = quickly(cache, task())
    ended = run("engines", "show", engine.key, "--plot", str(tmp_path / "errors.png"))
    assert ended.code == 66
    assert f"engine {engine.key[:12]}: no errors are known: no GPU; " in ended.err
    assert not (tmp_path / "errors.png").exists()


def test_verify(run: Any, cache: Cache) -> None:
    engine = quickly(cache, task())
    good = run("engines", "verify")
    assert (good.code, good.out) == (0, f"{engine.key[:12]} ok\n")
    plan = engine.folder / "engine.plan"
    plan.write_bytes(plan.read_bytes()[:-1])
    bad = run("engines", "verify", engine.key[:8])
    assert bad.code == 66
    assert "its checksum is not the one in its manifest" in bad.out
    assert bad.err.startswith("edgeinfer: error: 1 of 1 engines can't be used")
    assert json.loads(run("engines", "verify", "--json").out)[0]["problem"]


def test_verify_a_file(run: Any, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeinfer.commands.engines.this_machine", lambda _: ORIN)
    plan = quickly(cache, task()).folder / "engine.plan"
    assert run("engines", "verify", str(plan)).out == f"{plan} ok\n"
    plan.write_bytes(b"MZ")
    assert "no TensorRT plan (it begins with 4d 5a)" in run("engines", "verify", str(plan)).out


def test_explain(run: Any, cache: Cache, on_orin: Toolkit) -> None:
    assert "the cache holds no engine of it" in run("engines", "explain", "nanodet-g", "--batch", "1").out
    engine = quickly(cache, task())
    assert f"engine {engine.key[:12]} would be reused" in run("engines", "explain", "nanodet-g", "--batch", "1").out
    assert (
        "differs in precision fp16 → fp32\n"
        in run("engines", "explain", str(NANODET), "--batch", "1", "--precision", "fp32").out
    )
    shown = json.loads(run("engines", "explain", "nanodet-g", "--batch", "1:2:4", "--profiles", "1", "--json").out)
    assert shown["action"] == "build"
    assert shown["reasons"] == [
        "shapes of images 1x3x416x416:1x3x416x416:1x3x416x416 → 1x3x416x416:2x3x416x416:4x3x416x416"
    ]


def test_prune(run: Any, cache: Cache) -> None:
    engine = quickly(cache, task())
    assert run("engines", "prune", "--max-size", "1G").out == f"removed 0 engines, 0.1 MiB left in {cache.root}\n"
    assert json.loads(run("engines", "prune", "--max-size", "0", "--json").out) == {
        "removed": [engine.key],
        "bytes_left": 0,
    }
    assert run("engines", "prune").code == 64  # how much to keep must be said


def test_build_uses_the_cache(run: Any, cache: Cache, on_orin: Toolkit) -> None:
    engine = quickly(cache, task())
    ended = run("build", "nanodet-g", "--batch", "1")
    assert ended.code == 0
    assert ended.out.startswith(f"engine {engine.key[:12]} in the cache already: fp16 (as it was), 0.1 MiB\n")
    assert "not checked against ONNX Runtime: no GPU\n" in ended.out
    shown = json.loads(run("build", "nanodet-g", "--batch", "1", "--json").out)
    assert (shown["reused"], shown["manifest"]["key"]) == (True, engine.key)


@pytest.mark.slow
def test_what_can_not_be_tuned_is_told_before_anything_is_built(
    run: Any, cache: Cache, on_orin: Toolkit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(NANODET.read_bytes())
    assert "no card says how pictures go in" in run("build", str(bare), "--tune", "1").err
    for batches in ("0", "17", "x", "1,,2", "²"):
        ended = run("build", "nanodet-g", "--tune", batches)
        assert (ended.code, "expected batches from 1 to 16" in ended.err) == (64, True)
    assert run("build", "nanodet-g", "--tune", "9" * 5000).code == 64
    shapes = "images=1x3x416x416:4x3x416x416:8x3x416x416"
    for options in (("--batch", "4"), ("--shapes", shapes), ("--dla", "0", "--batch", "4")):
        ended = run("build", "nanodet-g", "--tune", "4", *options)
        assert (ended.code, "nothing of this engine depends on the usual batch" in ended.err) == (64, True)
    nowhere = msgspec.structs.replace(ORIN, gpu=None)
    monkeypatch.setattr(_engine_options, "this_machine", lambda _: nowhere)
    ended = run("build", "nanodet-g", "--tune", "16")
    assert (ended.code, "there is no GPU that could run one" in ended.err) == (69, True)
    assert not list(cache.entries())


def test_what_was_tuned_is_what_is_built(run: Any, cache: Cache, on_orin: Toolkit) -> None:
    plain = _engine_options.task_of(arguments_of("nanodet-g"), cache)
    assert plain.options.batch == (1, 16, 16)
    tuning.remember(cache, plain.fields, tuning.Choice(8))
    assert "images: 1x3x416x416 : 8x3x416x416 : 16x3x416x416" in run("build", "nanodet-g", "--dry-run").out
    named = run("build", "nanodet-g", "--dry-run", "--batch", "1:16:16").out
    assert "images: 1x3x416x416 : 16x3x416x416 : 16x3x416x416" in named


def test_a_dry_run_of_tuning_names_what_would_be_measured(run: Any, cache: Cache, on_orin: Toolkit) -> None:
    ended = run("build", "nanodet-g", "--tune", "16", "--dry-run")
    assert "the fastest would be kept of those for usual batches of 16, 8, 4\n" in ended.out
    assert json.loads(run("build", "nanodet-g", "--tune", "16", "--dry-run", "--json").out)["tune"] == [16, 8, 4]
    assert not list(cache.entries())


def arguments_of(*arguments: str) -> dict[str, Any]:
    context = build_command.make_context("build", list(arguments))
    ignored = ("cache_dir", "as_json", "verbose", "rebuild", "dry_run", "tune")
    return {name: value for name, value in context.params.items() if name not in ignored}


def test_dry_run_builds_nothing(run: Any, cache: Cache, on_orin: Toolkit) -> None:
    ended = run("build", "nanodet-g", "--dry-run", "--batch", "1:2:4", "--workspace", "1G", "--sparsity")
    assert ended.code == 0
    assert ended.out.splitlines()[1:] == [
        f"with TensorRT 10.3.0.30 on Orin, key {ended.out.partition('key ')[2][:12]}",
        "fp16: builder flag FP16",
        "images: 1x3x416x416 : 2x3x416x416 : 4x3x416x416",
        "sparsity: True",
        "pools: {'WORKSPACE': 1073741824}",
    ]
    assert cache.entries() == []
    assert json.loads(run("build", "nanodet-g", "--dry-run", "--batch", "1", "--json").out)["key"] == task().key


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nope",), 78, "no model called 'nope'"),
        (("no/such.onnx",), 66, "no such file; give an ONNX file, or one of: nanodet-g"),
        (("nanodet-g", "--batch", "8:1"), 64, "batch '8:1' is neither a number nor MIN:OPT:MAX"),
        (("nanodet-g", "--shapes", "x=1x3"), 64, "no input called 'x'; its inputs: images"),
        (("nanodet-g", "--precision", "int8"), 64, "int8 needs inputs to calibrate with; give --calibration-data DIR"),
        (("nanodet-g", "--workspace", "much"), 64, "'much' is no size; write it like 512M or 4G"),
        (("nanodet-g", "--mean", "1,2", "--calibration-data", "/x"), 64, "'1,2' are not 3 numbers"),
        (("nanodet-g", "--std", "0,1,1"), 64, "the input's std"),
        (
            ("nanodet-g", "--io-format", "images"),
            64,
            "'images' makes no sense; for instance --io-format images=fp16:chw",
        ),
        (("nanodet-g", "--tolerance", "0.1"), 64, "'0.1' are not 2 numbers; for instance --tolerance 0.05,0.005"),
        (("nanodet-g", "--calibration-data", "/nowhere", "--precision", "int8"), 66, "/nowhere: no pictures"),
        (("nanodet-g", "--plugin", "/nowhere/p.so"), 66, "/nowhere/p.so: can't be read"),
        (("nanodet-g", "--runtime", "onnxruntime"), 64, "Invalid value for '--runtime'"),
    ],
)
def test_mistakes_are_one_line_with_a_way_out(
    run: Any, on_orin: Toolkit, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ended = run("build", *arguments)
    assert ended.code == code
    assert message in ended.err
    assert ended.err.count("\n") == 1


def module(version: str) -> ModuleType:
    made = ModuleType("tensorrt")
    made.__version__ = version  # type: ignore[attr-defined]
    return made


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Which modules can be imported, or why not; empty at first. The machine is otherwise the Orin of the samples."""
    there: dict[str, Any] = {}

    def importer(name: str) -> Any:
        found = there.get(name, ModuleNotFoundError(f"No module named {name!r}", name=name))
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr("edgeinfer.engine.toolkit.load.__defaults__", ("tensorrt", importer))
    monkeypatch.setattr("edgeinfer.engine.toolkit.find.__defaults__", (importer,))

    def detected(kit: Toolkit) -> Target:
        return msgspec.structs.replace(ORIN, flavour=kit.flavour, tensorrt=kit.version)

    monkeypatch.setattr("edgeinfer.engine.machine.detect", detected)
    return there


EXPLAIN = ("engines", "explain", "nanodet-g", "--json")


def test_without_tensorrt(run: Any, installed: dict[str, Any]) -> None:
    for arguments in (("build", "nanodet-g"), EXPLAIN):
        ended = run(*arguments)
        assert (ended.code, ended.err.count("\n")) == (69, 1)
        assert "the Python module tensorrt is not installed" in ended.err


def test_the_tensorrt_that_is_there_is_taken(run: Any, installed: dict[str, Any]) -> None:
    installed["tensorrt_rtx"] = module("1.7.1.116")
    rtx = run(*EXPLAIN)
    assert rtx.err == "edgeinfer: TensorRT-RTX 1.7.1.116 is used, as TensorRT itself can't be loaded here\n"
    installed["tensorrt"] = module("10.3.0.30")
    both = run(*EXPLAIN)
    assert both.err == ""
    assert json.loads(both.out)["key"] == json.loads(run(*EXPLAIN, "--runtime", "tensorrt").out)["key"]
    named = run(*EXPLAIN, "--runtime", "tensorrt_rtx")
    assert named.err == "", "it was asked for"
    assert json.loads(named.out)["key"] == json.loads(rtx.out)["key"] != json.loads(both.out)["key"]


def test_a_tensorrt_that_can_not_be_loaded_gives_way_or_is_told_of(run: Any, installed: dict[str, Any]) -> None:
    installed["tensorrt"] = OSError("libnvinfer.so.10: cannot open shared object file")
    broken = run(*EXPLAIN)
    assert broken.code == 69
    assert "is there, but can't be loaded: libnvinfer.so.10" in broken.err
    installed["tensorrt_rtx"] = module("1.7.1.116")
    assert run(*EXPLAIN).code == 0
    installed["tensorrt_rtx"] = OSError("libtensorrt_rtx.so.1: cannot open shared object file")
    assert "libnvinfer.so.10" in run(*EXPLAIN).err
    del installed["tensorrt"]
    assert "libtensorrt_rtx.so.1" in run(*EXPLAIN).err


def prepared_by(*arguments: str) -> InputCard | None:
    """How the pictures of a folder are prepared for a build with these options."""
    context = build_command.make_context("build", [*arguments, "--calibration-data", "/pictures"])
    ignored = ("cache_dir", "as_json", "verbose", "rebuild", "dry_run")
    made = task_of({name: value for name, value in context.params.items() if name not in ignored}, with_extras=True)
    assert made.extras.calibration is not None
    assert made.extras.calibration.path == "/pictures"
    return made.extras.calibration.input


def test_pictures_are_prepared_as_the_card_says_but_for_what_the_options_change(on_orin: Toolkit) -> None:
    card = load_model("nanodet-g").card.input
    assert prepared_by("nanodet-g") == card
    assert prepared_by("nanodet-g", "--mean", "1,2,3") == msgspec.structs.replace(card, mean=[1.0, 2.0, 3.0])
    changed = prepared_by("nanodet-g", "--std", "1,2,4", "--order", "rgb", "--stretch")
    assert changed == msgspec.structs.replace(card, std=[1.0, 2.0, 4.0], color="rgb", resize="stretch")


def test_without_a_card_pictures_are_rgb_from_0_to_1_of_the_networks_size(on_orin: Toolkit, tmp_path: Path) -> None:
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(NANODET.read_bytes())
    plain = InputCard(name="images", width=416, height=416, color="rgb", mean=[0.0] * 3, std=[255.0] * 3)
    assert prepared_by(str(bare)) == plain
    assert prepared_by(str(bare), "--order", "bgr") == msgspec.structs.replace(plain, color="bgr")


def test_what_has_a_card_is_compared_on_the_photographs_unless_other_inputs_are_given(
    on_orin: Toolkit, tmp_path: Path
) -> None:
    def verified_on(*arguments: str) -> SampleSource | None:
        context = build_command.make_context("build", list(arguments))
        ignored = ("cache_dir", "as_json", "verbose", "rebuild", "dry_run")
        left = {name: value for name, value in context.params.items() if name not in ignored}
        return task_of(left, with_extras=True).extras.verification

    card = load_model("nanodet-g").card.input
    assert verified_on("nanodet-g") == SampleSource(str(card_samples.PHOTOS), card)
    assert verified_on("nanodet-g", "--verify-data", "/mine") == SampleSource("/mine", card)
    assert verified_on("nanodet-g", "--calibration-data", "/mine") is None, "those are used for both"
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(NANODET.read_bytes())
    assert verified_on(str(bare)) is None


# --- what is printed of a build


def test_a_build_prints_what_came_out(
    run: Any, cache: Cache, on_orin: Toolkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeinfer.commands.build.ensure_task", partial(ensure_task, build=quick))
    made = run("build", "nanodet-g", "--batch", "1")
    (engine,) = cache.entries()
    assert made.out.splitlines() == [
        f"engine {engine.key[:12]} built in 1.5 s: fp16 (as it was), 0.1 MiB",
        "not checked against ONNX Runtime: no GPU",
        f"plan {engine.folder / 'engine.plan'}",
    ]
    assert made.err.strip() == "warning: this TensorRT has no such thing"  # older versions of rich leave a line free
    again = run("build", "nanodet-g", "--batch", "1")
    assert "in the cache already" in again.out
    assert "built in 1.5 s" in run("build", "nanodet-g", "--batch", "1", "--rebuild").out
    shown = json.loads(run("build", "nanodet-g", "--batch", "1", "--rebuild", "--json").out)
    assert not shown["reused"]
    assert shown["plan"] == str(engine.folder / "engine.plan")


def test_the_candidates_of_best_are_listed(run: Any, cache: Cache, on_orin: Toolkit) -> None:
    arguments = ("nanodet-g", "--batch", "1", "--precision", "best")
    context = build_command.make_context("build", list(arguments))
    ignored = ("cache_dir", "as_json", "verbose", "rebuild", "dry_run")
    asked = task_of({name: value for name, value in context.params.items() if name not in ignored}, with_extras=True)
    results: dict[str, tuple[float | None, str]] = {"fp16": (2.0, "passed"), "fp32": (3.0, "passed")}
    ensure_task(asked, cache, lambda _: None, threading.Event(), build=scripted(results, []))
    lines = run("build", *arguments).out.splitlines()
    assert lines[1:3] == ["  fp16: 2.0 ms", "  fp32: 3.0 ms"]


def test_a_build_that_is_interrupted_says_so(run: Any, on_orin: Toolkit, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeinfer.commands.build.ensure_task", interrupted)
    ended = run("build", "nanodet-g")
    assert (ended.code, ended.err.strip()) == (130, "edgeinfer: the build was interrupted; nothing is left of it")


def test_a_build_that_is_told_to_end_ends_as_if_interrupted(
    run: Any, on_orin: Toolkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeinfer.commands.build.ensure_task", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert run("build", "nanodet-g").code == 130
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_a_build_may_take_is_asked_for_in_the_users_units(on_orin: Toolkit) -> None:
    def extras(*arguments: str) -> Any:
        context = build_command.make_context("build", ["nanodet-g", *arguments])
        ignored = ("cache_dir", "as_json", "verbose", "rebuild", "dry_run")
        return task_of({n: v for n, v in context.params.items() if n not in ignored}, with_extras=True).extras

    photos = SampleSource(str(card_samples.PHOTOS), load_model("nanodet-g").card.input)
    assert extras() == Extras(verification=photos, limits=BuildLimits(timeout_s=None)), "a person may wait longer"
    found = extras(
        *("--memory", "2G", "--timeout", "60", "--tolerance", "0.1,0.01", "--no-verify", "--keep-anyway"),
        *("--timing-cache", "/t/cache"),
    )
    assert (found.limits, found.tolerance) == (BuildLimits(memory_bytes=2 << 30, timeout_s=60.0), Tolerance(0.1, 0.01))
    assert (found.verify, found.keep_beyond_tolerance, found.timing_cache) == (False, True, "/t/cache")


def test_every_option_becomes_what_it_says(on_orin: Toolkit, tmp_path: Path) -> None:
    plugin = tmp_path / "p.so"
    plugin.write_bytes(b"x")
    context = build_command.make_context(
        "build",
        [
            *("nanodet-g", "--precision", "fp32", "--batch", "1:2:4", "--workspace", "1G", "--pool", "TACTIC_DRAM=2M"),
            *("--opt-level", "2", "--dla", "1", "--no-gpu-fallback", "--sparsity", "--refit", "--version-compatible"),
            *("--exclude-lean-runtime", "--hardware-compatibility", "ampere_plus", "--profiling-verbosity", "none"),
            *("--precision-constraints", "obey", "--layer-precision", "a:b:fp16", "--io-format", "images=fp16:chw"),
            *("--tactic-source", "CUBLAS", "--max-aux-streams", "0", "--avg-runs", "3", "--calibrator", "minmax"),
            *("--plugin", str(plugin), "--profiles", "1"),
        ],
    )
    assert _engine_options.build_options(context.params, (9, 9, 9)) == BuildOptions(
        precision="fp32",
        batch=(1, 2, 4),
        single=False,
        pools={"TACTIC_DRAM": 2 << 20, "WORKSPACE": 1 << 30},
        optimization_level=2,
        dla_core=1,
        gpu_fallback=False,
        sparsity=True,
        refit=True,
        version_compatible=True,
        exclude_lean_runtime=True,
        hardware_compatibility="ampere_plus",
        profiling_verbosity="none",
        precision_constraints="obey",
        layer_precisions={"a:b": "fp16"},
        io_formats={"images": "fp16:chw"},
        tactic_sources=("CUBLAS",),
        max_aux_streams=0,
        avg_timing_runs=3,
        calibrator="minmax",
        plugins=(str(plugin),),
    )
    plain = build_command.make_context("build", ["nanodet-g"])
    assert _engine_options.build_options(plain.params, (1, 4, 8)) == BuildOptions(batch=(1, 4, 8))


# --- models


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ended:
    return Ended(capsys, arguments)


@pytest.mark.slow
def test_models_ls_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    model = load_model("nanodet-g")
    row = {"name": "nanodet-g", "id": model.id, "task": "detection", "input": "416 × 416", "classes": 80}
    (listed,) = json.loads(call(capsys, "models", "ls", "--json").out)
    assert listed == {**row, "license": model.card.license}
    table = call(capsys, "models", "ls").out
    assert all(str(value) in table for value in row.values())
    shown = json.loads(call(capsys, "models", "show", "nanodet-g", "--json").out)
    assert (shown["id"], shown["path"], shown["sha256"]) == (model.id, str(model.path), model.sha256)
    assert shown["input"]["width"] == 416
    assert f"id: {model.id}\n" in call(capsys, "models", "show", "nanodet-g").out


@pytest.mark.slow
def test_models_inspect_shows_what_goes_in_and_out(capsys: pytest.CaptureFixture[str]) -> None:
    lines = call(capsys, "models", "inspect", str(NANODET)).out.splitlines()
    assert lines == [
        "input  images  [-1, 3, 416, 416]  tensor(float)",
        "output  boxes  [-1, 3549, 4]  tensor(float)",
        "output  scores  [-1, 3549, 80]  tensor(float)",
    ]
    shown = json.loads(call(capsys, "models", "inspect", str(NANODET), "--json").out)
    assert shown["inputs"] == [{"name": "images", "shape": [-1, 3, 416, 416], "dtype": "tensor(float)"}]
    assert (shown["file"], shown["sha256"]) == (str(NANODET), load_model("nanodet-g").sha256)
    assert call(capsys, "models", "inspect", "/none.onnx").code == 66


def spec(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, shape, "tensor(float)")


@pytest.mark.slow
def test_a_drafted_card_is_a_card(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "my model!.onnx"
    file.write_bytes(NANODET.read_bytes())
    (tmp_path / "my model!.yaml").write_text(call(capsys, "models", "inspect", str(file), "--card").out)
    card = load_model(str(file)).card
    assert (card.name, card.max_batch, card.input.width, card.input.height) == ("my-model", 1, 416, 416)
    assert card.decoder.options == {"boxes": "boxes", "scores": "scores"}
    assert (len(card.labels), card.labels[79]) == (80, "class79")
    assert (card.input.mean, card.input.std, card.input.color) == ([0.0] * 3, [255.0] * 3, "rgb")


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ([spec("x", 2, 3, 48, 64)], [spec("s", 1, 9, 7), spec("b", 1, 9, 4)], (2, 64, 48, "b", "s", 7)),
        ([spec("x", -1, 3, -1, -1)], [spec("y", 1, 9, 5)], (1, 640, 640, "y", "y", 5)),
        ([spec("x", -1)], [spec("b", 1, 4), spec("s")], (1, 640, 640, "b", "s", 1)),
        ([spec("x", 1, 3, 8, 8)], [spec("p", 1, 9, 6), spec("q", 1, 9, -1)], (1, 8, 8, "p", "q", 1)),
    ],
)
def test_a_draft_holds_what_the_file_tells(inputs: Any, outputs: Any, expected: tuple[Any, ...]) -> None:
    made = yaml.safe_load(models._draft(Path("/m/a.onnx"), "0" * 64, inputs, outputs))
    options, size = made["decoder"]["options"], made["input"]
    found = (made["max_batch"], size["width"], size["height"], options["boxes"], options["scores"], len(made["labels"]))
    assert found == expected
    assert (made["file"], made["name"], size["name"]) == ("a.onnx", "a", "x")
    with pytest.raises(InputError, match="without inputs or outputs"):
        models._draft(Path("a.onnx"), "", inputs, [])
