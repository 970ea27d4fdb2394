"""What is asked of a build, and plans and engines that are compared with it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeinfer.engine.build.samples import SampleSource
from edgeinfer.engine.build.task import Extras, make_task
from edgeinfer.engine.errors import PlanError
from edgeinfer.engine.options import BuildOptions, Precision
from edgeinfer.engine.store import foreign
from edgeinfer.engine.store.cache import Cache
from edgeinfer.engine.store.manifest import Tolerance
from edgeinfer.errors import UsageError
from tests.engine.quick import quickly
from tests.engine.samples import NANODET, ORIN, model
from tests.engine.test_ensure import task
from tests.engine.test_onnxfile import _network
from tests.engine.test_parts import write_plan


def test_the_request_names_its_caches_by_what_they_depend_on(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c")

    def names(**changes: Any) -> tuple[str | None, str | None]:
        machine = msgspec.structs.replace(ORIN, **{k: v for k, v in changes.items() if k in ("gpu", "tensorrt")})
        options = BuildOptions(batch=changes.get("batch", (1, 1, 1)))
        asked = make_task(NANODET, options, machine).request("fp16", tmp_path / "w", cache)
        return asked.timing_cache, asked.calibration_cache

    plain = names()
    assert plain == names()
    assert Path(plain[0] or "").parent == cache.root / "timing"
    assert Path(plain[1] or "").parent == cache.root / "calibration"
    gpu, version, batch = names(gpu="Orin NX"), names(tensorrt=(10, 3, 0, 31)), names(batch=(1, 2, 2))
    assert len({plain[0], gpu[0], version[0]}) == 3
    assert batch[0] == plain[0]
    assert len({plain[1], version[1], batch[1]}) == 3
    own = make_task(
        NANODET, BuildOptions(), ORIN, Extras(timing_cache="/mine", verify=False, tolerance=Tolerance(1, 1))
    )
    asked = own.request("fp32", tmp_path / "w", cache)
    assert (asked.timing_cache, asked.verify, asked.tolerance) == ("/mine", False, Tolerance(1, 1))
    assert (asked.precision, asked.work, asked.workspace) == ("fp32", str(tmp_path / "w"), str(tmp_path))
    assert (asked.flavour, asked.tensorrt, asked.model) == ("tensorrt", (10, 3, 0, 30), str(NANODET))


def test_a_network_with_its_own_scales_needs_no_data(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "m.onnx"
    onnx.save(_network(onnx), path)
    (tmp_path / "a.npy").write_bytes(b"")
    given = Extras(calibration=SampleSource(str(tmp_path / "a.npy")))
    precisions: tuple[Precision, ...] = ("int8", "best")
    for precision in precisions:
        wanted = BuildOptions(precision=precision)
        plain, with_data = make_task(path, wanted, ORIN), make_task(path, wanted, ORIN, given)
        assert plain.key == with_data.key
        assert with_data.fields.calibration is None
    assert plain.precisions() == ("int8", "fp16", "fp32")


def test_best_tries_what_can_be_fastest_first(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"")
    given = SampleSource(str(tmp_path))
    assert task("best").precisions() == ("fp16", "fp32")
    assert task("best", calibration=given).precisions() == ("int8", "fp16", "fp32")
    assert task("tf32").precisions() == ("tf32",)
    assert task("best", calibration=given).key != task("best").key


def test_the_latest_build_of_the_same_precision_tells_how_long(tmp_path: Path) -> None:
    from edgeinfer.engine.build.ensure import last_build_seconds  # noqa: PLC0415

    cache = Cache(tmp_path / "c")
    engine = quickly(cache, task("fp32"))
    assert last_build_seconds(cache, task("fp16")) == 1.5
    other = engine.manifest
    later = msgspec.structs.replace(other.build, finished_at="2999-01-01T00:00:00Z", seconds=9.0)
    from edgeinfer.engine.store.manifest import encode  # noqa: PLC0415

    (engine.folder / "manifest.json").write_bytes(encode(msgspec.structs.replace(other, build=later)))
    quickly(cache, task("fp16"))
    assert last_build_seconds(cache, task("fp16")) == 1.5
    assert last_build_seconds(cache, task("fp32")) == 9.0
    renamed = dataclasses.replace(task("fp32"), model=dataclasses.replace(task().model, path=Path("other.onnx")))
    assert last_build_seconds(cache, renamed) is None


# --- plans from elsewhere


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("compute_capability", "7.2"),
        ("gpu", "Xavier"),
        ("sm_count", 16),
        ("integrated", False),
        ("os", "qnx"),
        ("arch", "x86_64"),
        ("l4t", "35.1"),
    ],
)
def test_a_plan_for_another_machine_is_refused_by_its_side_car(tmp_path: Path, name: str, theirs: Any) -> None:
    with pytest.raises(PlanError, match=f"built for {name.replace('_', ' ')} {theirs}, and here is"):
        foreign.accept(write_plan(tmp_path, **{name: theirs}), ORIN)


def test_what_a_side_car_does_not_say_is_not_held_against_the_plan(tmp_path: Path) -> None:
    assert foreign.accept(write_plan(tmp_path, l4t=None, gpu=None), ORIN).warnings == ()


def test_a_manifest_beside_the_plan_is_its_side_car_too(tmp_path: Path) -> None:
    path = write_plan(tmp_path, gpu="Xavier")
    (tmp_path / "m.engine.json").rename(tmp_path / "manifest.json")
    with pytest.raises(PlanError, match="built for gpu Xavier"):
        foreign.accept(path, ORIN)


def test_a_plan_without_a_version_is_of_unknown_version_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "old.engine"
    path.write_bytes(b"ptrt" + bytes(60))
    assert foreign.accept(path, ORIN).header.version is None
    with pytest.raises(PlanError, match="built by tensorrt of unknown version, and here is tensorrt_rtx"):
        foreign.accept(path, msgspec.structs.replace(ORIN, flavour="tensorrt_rtx"))


def test_an_engine_of_a_file_that_was_renamed_is_the_nearest(tmp_path: Path) -> None:
    from edgeinfer.engine.build.advice import advise  # noqa: PLC0415

    cache = Cache(tmp_path / "c")
    engine = quickly(cache, task())
    renamed = tmp_path / "renamed.onnx"
    renamed.write_bytes(NANODET.read_bytes())
    os.utime(engine.folder / "manifest.json", (100, 100))
    said = advise(make_task(renamed, BuildOptions(precision="fp32"), ORIN), cache).sentence
    assert f"engine {engine.key[:12]} differs in precision fp16 → fp32" in said
    assert advise(task(), cache).action == "reuse"
    assert engine.used_at == 100, "advice changes nothing"
    two = msgspec.structs.replace(ORIN, gpu="Orin NX", sm_count=4)
    near = quickly(cache, make_task(NANODET, BuildOptions(), two))
    three = make_task(NANODET, BuildOptions(), msgspec.structs.replace(two, l4t="36.4.4"))
    assert f"engine {near.key[:12]} differs in L4T" in advise(three, cache).sentence, "the one that differs least"
    foreign_one = dataclasses.replace(
        task(), model=model(path=Path("m.onnx")), fields=msgspec.structs.replace(task().fields, model="99" * 32)
    )
    assert "holds no engine of it" in advise(foreign_one, cache).sentence


@pytest.mark.parametrize("level", ["ampere_plus", "same_compute_capability"])
def test_a_jetson_has_no_hardware_compatibility(level: Any) -> None:
    options = BuildOptions(hardware_compatibility=level)
    with pytest.raises(UsageError, match=r"no hardware compatibility on a Jetson; leave --hardware-compatibility out"):
        make_task(NANODET, options, ORIN)
    assert make_task(NANODET, options, msgspec.structs.replace(ORIN, l4t=None)).key
