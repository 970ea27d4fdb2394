"""Model cards: which file and card a name leads to, and what is wrong with them."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeinfer.config import card
from edgeinfer.config.card import file_sha256, load_card, load_model, to_yaml, vendored
from edgeinfer.errors import ConfigError, InputError
from edgeinfer.guard.redaction import redact, remember
from tests.engine.test_onnxfile import write_external

NAME = "nanodet-g"
VENDORED = card.MODELS / f"{NAME}.yaml"
DATA: dict[str, Any] = {key: value for key, value in yaml.safe_load(VENDORED.read_text()).items() if key != "sha256"}


def write_card(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**DATA, **changes}))
    return path


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A model whose content nobody looks at here."""
    path = tmp_path / "own.plan"
    path.write_bytes(b"plan")
    return path


def test_a_vendored_model_by_name() -> None:
    assert NAME in vendored() == sorted(vendored())
    model = load_model(NAME)
    assert model.sha256 == hashlib.sha256(model.path.read_bytes()).hexdigest() == model.card.sha256
    assert model.id == f"{NAME}@{model.sha256[:8]}"
    assert not model.is_plan
    assert load_model(str(model.path), str(VENDORED)) == model


def test_a_vendored_model_with_another_card(tmp_path: Path) -> None:
    path = write_card(tmp_path / "c.yaml", file=str(load_model(NAME).path.name), labels=["a"])
    with pytest.raises(InputError):  # its file lies beside the card
        load_model(NAME, str(path))


@pytest.mark.parametrize("suffix", [".plan", ".engine"])
def test_a_plan_with_the_card_beside_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"own{suffix}"
    path.write_bytes(b"plan")
    write_card(tmp_path / "own.yaml", file=path.name, name="own")
    model = load_model(str(path))
    assert model.is_plan
    assert model.id == f"own@{hashlib.sha256(b'plan').hexdigest()[:8]}"


@pytest.mark.parametrize(
    ("name", "kind", "says", "hint"),
    [
        ("nanodet", ConfigError, "no model called 'nanodet'", "did you mean nanodet-g?; or give the path"),
        ("none.onnx", InputError, "model none.onnx: no such file", "nanodet-g"),
        ("folder.onnx", InputError, "model folder.onnx: is a directory", "give an ONNX file"),
        ("a/b", InputError, "model a/b: no such file", "give an ONNX file"),
        ("bare.onnx", InputError, "bare.onnx: no model card at bare.yaml", "edgeinfer models inspect bare.onnx --card"),
        ("bare.plan", InputError, "bare.plan: no model card at bare.yaml", "copy the card of the ONNX model"),
        ("bare.engine", InputError, "bare.engine: no model card at bare.yaml", "copy the card of the ONNX model"),
    ],
)
def test_what_is_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: type[Exception], says: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    for bare in ("bare.onnx", "bare.plan", "bare.engine"):
        (tmp_path / bare).touch()
    with pytest.raises(kind) as caught:
        load_model(name)
    assert caught.value.message == says  # type: ignore[attr-defined]
    assert hint in caught.value.hint  # type: ignore[attr-defined]


def test_a_card_of_another_file(plan: Path) -> None:
    path = write_card(plan.with_suffix(".yaml"), file="other.plan")
    with pytest.raises(ConfigError, match=r"it describes 'other\.plan', and the model is 'own\.plan'"):
        load_model(str(plan), str(path))


def test_digests(plan: Path) -> None:
    digest = hashlib.sha256(b"plan").hexdigest()
    write_card(plan.with_suffix(".yaml"), file="own.plan", sha256=digest)
    assert load_model(str(plan), sha256=digest).sha256 == digest
    with pytest.raises(ConfigError, match=rf"model\.sha256: .*{digest}.*says 000000000000…"):
        load_model(str(plan), sha256="0" * 64)
    write_card(plan.with_suffix(".yaml"), file="own.plan", sha256="1" * 64)
    with pytest.raises(ConfigError, match=r"own\.yaml says 111111111111…"):
        load_model(str(plan))


def test_the_digest_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"ab" * (1 << 20))
    assert file_sha256(path) == hashlib.sha256(b"ab" * (1 << 20)).hexdigest()
    monkeypatch.setattr(card, "MAX_MODEL_BYTES", 2 << 20)
    assert file_sha256(path)
    monkeypatch.setattr(card, "MAX_MODEL_BYTES", (2 << 20) - 1)
    with pytest.raises(InputError, match="larger than 2 GiB"):
        file_sha256(path)
    with pytest.raises(InputError, match="none: No such file"):
        file_sha256(tmp_path / "none")


def test_a_card_says_the_same_after_the_way_there_and_back(tmp_path: Path) -> None:
    found = load_card(VENDORED)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(to_yaml(found)))
    assert load_card(tmp_path / "c.yaml") == found
    assert (found.thresholds.score, found.thresholds.iou, found.task) == (0.4, 0.6, "detection")


def test_what_a_card_may_leave_out(tmp_path: Path) -> None:
    whole = {key: value for key, value in DATA["input"].items() if key not in ("resize", "fill")}
    needed = {key: DATA[key] for key in ("name", "file", "labels")}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({**needed, "input": whole, "decoder": {"name": "boxes_scores"}}))
    found = load_card(path)
    assert (found.input.resize, found.input.fill, found.max_batch, found.tolerance) == ("letterbox", 114, 1, None)
    assert (found.thresholds.score, found.thresholds.iou, found.decoder.options) == (0.4, 0.6, {})


def test_a_network_that_reads_elsewhere_is_no_model(tmp_path: Path) -> None:
    write_external(tmp_path / "own.onnx", "../../etc/passwd")
    write_card(tmp_path / "own.yaml", file="own.onnx")
    with pytest.raises(InputError, match="outside the model's folder"):
        load_model(str(tmp_path / "own.onnx"))


INPUT = DATA["input"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "a/b"}, "name: 'a/b' is not allowed"),
        ({"name": "x" * 65}, "name: "),
        ({"labels": []}, "labels: [] is not allowed"),
        ({"max_batch": 0}, "max_batch: 0 is not allowed"),
        ({"max_batch": 257}, "max_batch: 257 is not allowed"),
        ({"sha256": "A" * 64}, "sha256: "),
        ({"task": "pose"}, "task: 'pose' is not allowed"),
        ({"thresholds": {"score": 1.01}}, "thresholds.score: 1.01 is not allowed"),
        ({"thresholds": {"iou": -0.1}}, "thresholds.iou: -0.1 is not allowed"),
        ({"input": {**INPUT, "width": 0}}, "input.width: 0 is not allowed"),
        ({"input": {**INPUT, "height": 16385}}, "input.height: 16385 is not allowed"),
        ({"input": {**INPUT, "std": [1.0, 0.0, 1.0]}}, "input.std: [1.0, 0.0, 1.0] is not allowed"),
        ({"input": {**INPUT, "mean": [1.0, 0.0]}}, "input.mean: [1.0, 0.0] is not allowed"),
        ({"input": {**INPUT, "color": "grey"}}, "input.color: 'grey' is not allowed"),
        ({"input": {**INPUT, "fill": 256}}, "input.fill: 256 is not allowed"),
        ({"input": {**INPUT, "resize": "crop"}}, "input.resize: 'crop' is not allowed"),
        ({"tolerance": {"max": 0.1}}, "tolerance.mean: missing"),
    ],
)
def test_a_card_with_a_mistake_names_file_and_key(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = write_card(tmp_path / "c.yaml", **changes)
    with pytest.raises(ConfigError) as caught:
        load_card(path)
    place = rf"{re.escape(str(path))}(:\d+:\d+)?: "
    assert re.match(place + re.escape(says), caught.value.message)


@pytest.mark.slow
def test_a_card_has_no_say_in_what_the_log_may_hold(tmp_path: Path) -> None:
    remember("rtsp://u:camera_pw7@h")
    path = write_card(tmp_path / "c.yaml", labels=["password: refused", *(f"token: zzzz{n:05}" for n in range(5000))])
    load_card(path)
    assert redact("connection refused by zzzz00001") == "connection refused by zzzz00001"
    assert redact("it is camera_pw7") == "it is ***", "nothing displaces the configuration's"


def test_an_error_about_a_card_shows_no_password_of_it(tmp_path: Path) -> None:
    path = write_card(tmp_path / "c.yaml", labels=["token: geheim93"], name="geheim93 x")
    with pytest.raises(ConfigError) as caught:
        load_card(path)
    assert "geheim93" not in str(caught.value)
    assert "***" in str(caught.value)
    assert redact("geheim93") == "geheim93"


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_no_card(tmp_path: Path, plan: Path, kind: str) -> None:
    card_file = Path("/dev/null") if kind == "device" else tmp_path / "c.yaml"
    if kind == "pipe":
        os.mkfifo(card_file)
    elif kind == "folder":
        card_file.mkdir()
    with pytest.raises(ConfigError, match=r": not a regular file") as caught:
        load_model(str(plan), str(card_file))
    assert "write one" not in str(caught.value)
