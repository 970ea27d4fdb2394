"""Inputs for calibration and verification: pictures, or arrays recorded elsewhere, from a file or folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from edgeinfer.config.card import InputCard
from edgeinfer.engine.options import BuildOptions, Profile, Shape, profiles
from edgeinfer.errors import InputError
from edgeinfer.models.onnxfile import OnnxModel, file_digest
from edgeinfer.types import AnyArray

Sample = dict[str, AnyArray]
"""Input name → array of one inference."""

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
ARRAYS = {".npy", ".npz"}


class SampleSource(msgspec.Struct, frozen=True):
    """Where samples come from: a file or folder. At most `limit` files.

    `input` says how pictures there are prepared; None: as `plain_input` does. Its size gives way to the network's.
    """

    path: str
    input: InputCard | None = None
    limit: int = 512


USUAL_BATCH = 4
"""As many at once as samples are run on, at most: ONNX Runtime takes them on the CPU, and a sample fills a batch."""


def usual_shapes(model: OnnxModel, options: BuildOptions) -> dict[str, Shape]:
    """Input → shape of one inference on samples: the usual one, of no more than USUAL_BATCH where that can be."""
    free = {name: _few(profile) for name, profile in profiles(model, options).items()}
    return {tensor.name: free.get(tensor.name, tensor.shape) for tensor in model.inputs}


def _few(profile: Profile) -> Shape:
    low, usual, _ = profile
    return (max(low[0], min(usual[0], USUAL_BATCH)), *usual[1:])


def files(source: SampleSource) -> list[Path]:
    """The usable files, by name, evenly picked where there are more than `limit`. Raises InputError for none."""
    root = Path(source.path)
    found = sorted(p for p in ([root] if root.is_file() else root.rglob("*")) if p.suffix.lower() in PICTURES | ARRAYS)
    if not found:
        raise InputError(
            f"{root}: no pictures (jpg, png, bmp, webp) and no arrays (npy, npz) there", "give a folder that holds some"
        )
    step = max(1, -(-len(found) // source.limit))
    return found[::step]


def digest(source: SampleSource, method: str) -> str:
    """sha256 over the files used, everything about how they are prepared, and the calibration method."""
    total = hashlib.sha256(msgspec.json.encode((method, source.input), order="sorted"))
    for path in files(source):
        total.update(f"{path.name} {file_digest(path)}\n".encode())
    return total.hexdigest()


def load(source: SampleSource, model: OnnxModel, shapes: dict[str, Shape]) -> Iterator[Sample]:
    """One sample per file, in the given shapes. Raises InputError for what does not fit."""
    for path in files(source):
        sample = _arrays(path, model) if path.suffix.lower() in ARRAYS else _picture(path, model, shapes, source.input)
        yield {
            tensor.name: _fit(path, sample, tensor.name, tensor.dtype, shapes[tensor.name]) for tensor in model.inputs
        }


def noise(model: OnnxModel, shapes: dict[str, Shape], count: int) -> Iterator[Sample]:
    """`count` samples of smooth noise around the range 0 to 1, the same every time."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield {tensor.name: _smooth(rng, shapes[tensor.name]).astype(tensor.dtype) for tensor in model.inputs}


def _smooth(rng: np.random.Generator, shape: Shape) -> AnyArray:
    values = rng.random(shape)
    for axis in range(2, len(shape)):
        values = (values + np.roll(values, 1, axis) + np.roll(values, 2, axis)) / 3
    return values


def _arrays(path: Path, model: OnnxModel) -> Sample:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: can't be read as an array ({error})", "write it with numpy.save or numpy.savez"
        ) from error
    return (
        {model.inputs[0].name: loaded}
        if isinstance(loaded, np.ndarray)
        else {name: loaded[name] for name in loaded.files}
    )


def _fit(path: Path, sample: Sample, name: str, dtype: str, shape: Shape) -> AnyArray:
    array = sample.get(name)
    if array is not None and array.shape == shape[1:]:
        array = array[None]
    if array is not None and array.shape[1:] == shape[1:] and len(array):
        return np.ascontiguousarray(np.resize(array, shape) if len(array) < shape[0] else array[: shape[0]], dtype)
    found = "nothing" if array is None else f"shape {array.shape}"
    raise InputError(f"{path}: holds {found} for input {name!r} of shape {shape}", "record it as the network takes it")


def _picture(path: Path, model: OnnxModel, shapes: dict[str, Shape], card: InputCard | None) -> Sample:
    from edgeinfer.preprocess.picture import picture_input  # noqa: PLC0415 (OpenCV, only where pictures are given)

    name, shape = model.inputs[0].name, shapes[model.inputs[0].name]
    plain = plain_input(model, shapes)
    if plain is None:
        raise InputError(f"{path}: a picture can't be the input of {model.path}", "give .npz files with all its inputs")
    size = {"height": shape[2], "width": shape[3]}
    return {name: picture_input(path, msgspec.structs.replace(card or plain, **size))}


def plain_input(model: OnnxModel, shapes: dict[str, Shape]) -> InputCard | None:
    """How a picture is prepared where no card says it: letterboxed, RGB, 0 to 1. None where the network takes none."""
    name = model.inputs[0].name
    if len(model.inputs) != 1 or len(shapes[name]) != 4 or shapes[name][1] != 3:
        return None
    _, _, height, width = shapes[name]
    return InputCard(name=name, width=width, height=height, color="rgb", mean=[0.0] * 3, std=[255.0] * 3)
