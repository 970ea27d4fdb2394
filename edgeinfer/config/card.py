"""Model cards: what a network expects and gives, in YAML beside its ONNX file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from edgeinfer.config import strict
from edgeinfer.config.paths import exists, is_dir, is_file
from edgeinfer.config.places import located
from edgeinfer.config.yamlfile import Document, foreign_yaml
from edgeinfer.errors import ConfigError, InputError, unreadable
from edgeinfer.guard.limits import MAX_MODEL_BYTES
from edgeinfer.models import onnxfile

MODELS = Path(__file__).parents[1] / "models"
PLAN_SUFFIXES = (".engine", ".plan")

Share = Annotated[float, Meta(ge=0, le=1)]
Length = Annotated[int, Meta(ge=1, le=16384)]
Level = Annotated[float, Meta(ge=-1e6, le=1e6)]
Channels = Annotated[list[Level], Meta(min_length=3, max_length=3)]


class InputCard(Struct, frozen=True, kw_only=True):
    """The input: (N, 3, height, width) float32, `(pixel - mean) / std` per channel, in `color` order.

    `resize: letterbox` keeps the aspect ratio and pads evenly with the grey value `fill`; `stretch` doesn't keep it.
    """

    name: str
    width: Length
    height: Length
    color: Literal["bgr", "rgb"]
    mean: Channels
    std: Annotated[list[Annotated[float, Meta(gt=0, le=1e6)]], Meta(min_length=3, max_length=3)]
    resize: Literal["letterbox", "stretch"] = "letterbox"
    fill: Annotated[int, Meta(ge=0, le=255)] = 114


class DecoderCard(Struct, frozen=True, kw_only=True):
    """Which decoder reads the outputs, and its options."""

    name: str
    options: dict[str, Any] = {}


class Thresholds(Struct, frozen=True, kw_only=True):
    """Detections below `score` are left out; of two of one class that overlap by more than `iou`, the better stays."""

    score: Share = 0.4
    iou: Share = 0.6


class ToleranceCard(Struct, frozen=True, kw_only=True):
    """How far an engine's outputs may lie from ONNX Runtime's, as shares of the largest value of the output."""

    max: Share
    mean: Share


class ModelCard(Struct, frozen=True, kw_only=True):
    """One model. `file` lies beside the card; `sha256`, where given, must be the network's (`onnxfile.Identity`)."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$(?!\n)")]
    file: str
    input: InputCard
    decoder: DecoderCard
    labels: Annotated[list[str], Meta(min_length=1)]
    thresholds: Thresholds = Thresholds()
    tolerance: ToleranceCard | None = None
    task: Literal["detection"] = "detection"
    max_batch: Annotated[int, Meta(ge=1, le=256)] = 1
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")] | None = None
    description: str = ""
    license: str = ""
    origin: str = ""


class Model(Struct, frozen=True, kw_only=True):
    """A card together with the network that it describes.

    `sha256` is the network's, weights beside its file included (see `onnxfile.Identity`); `identity` tells whether the
    files are still those, and is nothing that two models could differ in.
    """

    card: ModelCard
    path: Path
    sha256: str
    identity: onnxfile.Identity | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Model):
            return NotImplemented
        return (self.card, self.path, self.sha256) == (other.card, other.path, other.sha256)

    __hash__ = None  # type: ignore[assignment] # (cards hold lists)

    @property
    def vendored(self) -> bool:
        """Whether it came with edgeinfer, and is trusted as its code is."""
        return self.path.parent == MODELS and self.sha256 == self.card.sha256

    @property
    def is_plan(self) -> bool:
        """Whether the file is a TensorRT plan instead of an ONNX model."""
        return self.path.suffix in PLAN_SUFFIXES

    @property
    def id(self) -> str:
        """What messages carry: the name and the first eight digits of the network's SHA-256."""
        return f"{self.card.name}@{self.sha256[:8]}"


def vendored() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(path.stem for path in MODELS.glob("*.yaml"))


def load_model(name_or_path: str, card_path: str | None = None, sha256: str | None = None) -> Model:
    """A vendored model by name, or an ONNX file with its card (`FILE.yaml` beside it unless given).

    `sha256`, where given, must be the network's. What it would read beside its file is checked too.
    Raises InputError where a file is missing, unreadable or no network, ConfigError for a wrong card or digest.
    """
    card_file = _card_file(name_or_path, card_path)
    card = load_card(card_file)
    path = card_file.parent / card.file if name_or_path in vendored() else Path(name_or_path)
    if path.name != card.file:
        raise ConfigError(
            f"{card_file}: file: it describes {card.file!r}, and the model is {path.name!r}", "correct it"
        )
    identity = None if path.suffix in PLAN_SUFFIXES else onnxfile.identify(path)
    digest = identity.sha256 if identity else file_sha256(path)
    what = "the network, with its weights beside it," if identity and len(identity.marks) > 1 else "it"
    if card.sha256 is not None and card.sha256 != digest:
        raise ConfigError(
            f"{path}: {what} has the SHA-256 {digest}, and the card {card_file} says {card.sha256[:12]}…",
            "take the card's sha256 out, or the file that belongs to it",
        )
    if sha256 is not None and sha256 != digest:
        raise ConfigError.at(
            "model.sha256",
            f"{path}: {what} has the SHA-256 {digest}, and the configuration says {sha256[:12]}…",
            "it is not the file that was meant; if it is, correct model.sha256",
        )
    return Model(card=card, path=path, sha256=digest, identity=identity)


def load_card(path: Path) -> ModelCard:
    """The card in a YAML file. Raises InputError or ConfigError, with the file and the key."""
    try:
        with foreign_yaml(path) as document:
            return _card(document)
    except ConfigError as error:
        raise error if str(path) in error.message else error.placed(path, None) from None


def _card(document: Document) -> ModelCard:
    try:
        return strict.convert(document.data, ModelCard)
    except ConfigError as error:
        raise located(error, document.places) from None


def file_sha256(path: Path) -> str:
    """Hex digest of a file of at most 2 GiB. Raises InputError."""
    try:
        digest = hashlib.sha256()
        with onnxfile.open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MAX_MODEL_BYTES:
                raise InputError(f"{path}: larger than 2 GiB", "keep the weights in an external data file beside it")
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise unreadable(path, error) from None
    return digest.hexdigest()


def to_yaml(card: ModelCard) -> dict[str, Any]:
    """The card as plain data."""
    data: dict[str, Any] = msgspec.to_builtins(card)
    return data


def _card_file(name_or_path: str, card_path: str | None) -> Path:
    if name_or_path in vendored():
        return Path(card_path) if card_path else MODELS / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if not is_file(path):
        raise _no_such_model(name_or_path)
    card = Path(card_path) if card_path else path.with_suffix(".yaml")
    if exists(card) and not is_file(card):
        raise ConfigError(f"{card}: not a regular file", "give a model card with its path")
    if not is_file(card):
        hint = f"write one: edgeinfer models inspect {path} --card > {card}, then fill in its labels"
        if path.suffix in PLAN_SUFFIXES:
            hint = "copy the card of the ONNX model that it was built from, and correct its file"
        raise InputError(f"{path}: no model card at {card}", hint)
    return card


def _no_such_model(name: str) -> InputError | ConfigError:
    if "/" in name or "." in name:
        kind = "is a directory" if is_dir(name) else "no such file"
        return InputError(f"model {name}: {kind}", f"give an ONNX file, or one of: {', '.join(vendored())}")
    return ConfigError(
        f"no model called {name!r}", f"{strict.nearest(name, vendored())}; or give the path of an ONNX file"
    )
