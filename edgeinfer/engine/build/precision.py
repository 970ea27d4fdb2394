"""The same word, fp16 or int8, by whichever means this TensorRT offers.

Up to 10.x precision is a builder flag, and INT8 ranges come from a calibrator. TensorRT 11 and TensorRT-RTX build what
the ONNX file says, type for type; there the file is converted first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from edgeinfer.engine.options import Precision
from edgeinfer.engine.toolkit import member
from edgeinfer.models.onnxfile import OnnxModel

CALIBRATORS = {"entropy": "IInt8EntropyCalibrator2", "minmax": "IInt8MinMaxCalibrator"}


@dataclass(frozen=True, slots=True)
class PrecisionPlan:
    """How a precision comes about.

    convert: what to do to the ONNX file first. flags: builder flags to set. calibrate: with TensorRT's calibrator.
    how: the same, in words for the manifest.
    """

    how: str
    convert: Literal["", "fp16", "qdq"] = ""
    flags: tuple[str, ...] = ()
    strongly_typed: bool = False
    calibrate: bool = False


def plan_precision(
    trt: Any, model: OnnxModel, precision: Precision, calibrator: str = "entropy", dla: bool = False
) -> PrecisionPlan:
    """The way to `precision` (not "best") for this model with this TensorRT.

    `dla`: where there are precision flags, they are what a DLA takes its precision from.
    """
    by_flag = member(trt.BuilderFlag, "FP16") is not None
    can_type = member(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") is not None
    if can_type and not (dla and by_flag) and (model.half or (model.quantized and not by_flag)):
        return PrecisionPlan("types of the ONNX file, strongly typed", strongly_typed=True)
    if precision == "fp16":
        return _half(by_flag)
    if precision == "int8":
        return _int8(trt, model, by_flag, calibrator)
    return PrecisionPlan("FP32 with TF32" if precision == "tf32" else "FP32", strongly_typed=not by_flag)


def _half(by_flag: bool) -> PrecisionPlan:
    if by_flag:
        return PrecisionPlan("builder flag FP16", flags=("FP16",))
    return PrecisionPlan("ONNX converted to FP16, strongly typed", convert="fp16", strongly_typed=True)


def _int8(trt: Any, model: OnnxModel, by_flag: bool, calibrator: str) -> PrecisionPlan:
    if not by_flag:
        return PrecisionPlan("ONNX quantized to INT8 (Q/DQ), strongly typed", convert="qdq", strongly_typed=True)
    flags = ("INT8", "FP16")
    if model.quantized:
        return PrecisionPlan("Q/DQ of the ONNX file, builder flags INT8 and FP16", flags=flags)
    name = CALIBRATORS[calibrator]
    if not hasattr(trt, name):
        return PrecisionPlan("ONNX quantized to INT8 (Q/DQ), builder flags INT8 and FP16", convert="qdq", flags=flags)
    return PrecisionPlan(f"builder flags INT8 and FP16, {name}", flags=flags, calibrate=True)
