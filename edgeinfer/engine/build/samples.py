"""Inputs for calibration and verification: pictures, or arrays recorded elsewhere, from a file or folder."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from edgeinfer.engine.options import BuildOptions, Profile, Shape, profiles
from edgeinfer.errors import InputError, UnavailableError
from edgeinfer.models.onnxfile import OnnxModel, file_digest
from edgeinfer.types import AnyArray

Sample = dict[str, AnyArray]
"""Input name → array of one inference."""

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
ARRAYS = {".npy", ".npz"}


class Normalize(msgspec.Struct, frozen=True):
    """How a picture becomes input: letterboxed with `pad` or stretched, then (pixel - mean) / std per channel.

    `mean`, `std` and `pad` are in the picture's 0 to 255, in the channel order `order`.
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    order: Literal["rgb", "bgr"] = "rgb"
    pad: int = 114
    stretch: bool = False


class SampleSource(msgspec.Struct, frozen=True):
    """Where samples come from: a file or folder, and how pictures in it are prepared. At most `limit` files."""

    path: str
    normalize: Normalize = Normalize()
    limit: int = 512


def usual_shapes(model: OnnxModel, options: BuildOptions) -> dict[str, Shape]:
    """Input → shape of one usual inference."""
    free: dict[str, Profile] = profiles(model, options)
    return {tensor.name: free[tensor.name][1] if tensor.name in free else tensor.shape for tensor in model.inputs}


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
    """sha256 over the files used, how they are prepared and the calibration method."""
    total = hashlib.sha256(msgspec.json.encode((method, source.normalize), order="sorted"))
    for path in files(source):
        total.update(f"{path.name} {file_digest(path)}\n".encode())
    return total.hexdigest()


def load(source: SampleSource, model: OnnxModel, shapes: dict[str, Shape]) -> Iterator[Sample]:
    """One sample per file, in the given shapes. Raises InputError for what does not fit."""
    for path in files(source):
        sample = (
            _arrays(path, model) if path.suffix.lower() in ARRAYS else _picture(path, model, shapes, source.normalize)
        )
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


def _picture(path: Path, model: OnnxModel, shapes: dict[str, Shape], how: Normalize) -> Sample:
    name = model.inputs[0].name
    if len(model.inputs) != 1 or len(shapes[name]) != 4 or shapes[name][1] != 3:
        raise InputError(f"{path}: a picture can't be the input of {model.path}", "give .npz files with all its inputs")
    cv2 = _cv2()
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{path}: can't be read as a picture", "remove it, or write it again")
    fitted = _letterbox(cv2, image, shapes[name][2:], how)
    pixels = fitted[..., ::-1] if how.order == "rgb" else fitted
    values = (pixels.astype(np.float32) - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
    return {name: values.transpose(2, 0, 1)}


def _letterbox(cv2: Any, image: AnyArray, size: Shape, how: Normalize) -> AnyArray:
    height, width = size
    if how.stretch:
        return np.asarray(cv2.resize(image, (width, height)))
    scale = min(height / image.shape[0], width / image.shape[1])
    inner_width, inner_height = round(image.shape[1] * scale), round(image.shape[0] * scale)
    canvas = np.full((height, width, 3), how.pad, np.uint8)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    canvas[top : top + inner_height, left : left + inner_width] = cv2.resize(image, (inner_width, inner_height))
    return canvas


def _cv2() -> Any:
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise UnavailableError(
            f"pictures need OpenCV: {error}", "pip install opencv-python-headless, or give .npy files"
        ) from error
