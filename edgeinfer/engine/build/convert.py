"""Rewrites an ONNX file into a lower precision, with the libraries made for it (extra `build`)."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeinfer.engine.build.samples import Sample
from edgeinfer.errors import UnavailableError
from edgeinfer.models.conversion import REMEDY

QUANTIZED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def to_half(source: Path, target: Path) -> None:
    """Writes `source` with FP16 weights and arithmetic and its inputs and outputs as they were."""
    onnx, converter = _library("onnx"), _library("onnxconverter_common.float16")
    model = onnx.load(source)
    for index, node in enumerate(model.graph.node):  # the converter names what it inserts after these
        node.name = f"{index}_{node.name or node.op_type}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one per weight that FP16 can't hold exactly
        onnx.save(converter.convert_float_to_float16(model, keep_io_types=True), target)


def to_qdq(source: Path, target: Path, samples: Iterable[Sample], calibrator: str) -> None:
    """Writes `source` with symmetric INT8 Q/DQ nodes whose scales come from `samples`."""
    quantization, _ = _library("onnxruntime.quantization"), _library("onnx")
    method = {"entropy": "Entropy", "minmax": "MinMax"}[calibrator]
    with _quiet():
        quantization.quantize_static(
            source,
            target,
            _reader(quantization, iter(samples)),
            op_types_to_quantize=list(QUANTIZED),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            calibrate_method=getattr(quantization.CalibrationMethod, method),
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer recommends its own preprocessing at every call, through the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _reader(quantization: Any, samples: Iterator[Sample]) -> Any:
    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # a base class known only at run time
        def get_next(self) -> Sample | None:
            return next(samples, None)

    return Reader()


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnavailableError(
            f"this TensorRT takes its precision from the ONNX file, and to convert that "
            f"{name.split('.', maxsplit=1)[0]} is needed: {error}",
            REMEDY,
        ) from error
