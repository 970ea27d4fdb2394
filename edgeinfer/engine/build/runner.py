"""Runs an engine on single samples, simply and synchronously: for the check after a build, not for frames."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeinfer.engine import diagnose
from edgeinfer.engine.build.samples import Sample
from edgeinfer.engine.toolkit import DTYPES, Toolkit, make_runtime, member
from edgeinfer.errors import UnavailableError
from edgeinfer.gpu.device import Device


class Runner:
    """One execution context on a plan. Raises PlanError, UnavailableError or BuildError where it can't be used."""

    def __init__(
        self,
        toolkit: Toolkit,
        logger: Any,
        log: Iterable[str],
        plan: Any,
        device: Device,
        dla_core: int | None = None,
    ) -> None:
        self._trt, self._device = toolkit.trt, device
        self._runtime = make_runtime(toolkit, logger, dla_core)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        self._context = self._engine and self._engine.create_execution_context()
        if self._context is None:
            raise diagnose.explain(log, "loading the engine")
        self._dtypes = {member(toolkit.trt.DataType, name): dtype for name, dtype in DTYPES.items()}
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = {name for name in names if self._engine.get_tensor_mode(name) == toolkit.trt.TensorIOMode.INPUT}
        self.inputs, self.outputs = [n for n in names if n in inputs], [n for n in names if n not in inputs]
        if any(self._engine.get_tensor_location(name) != toolkit.trt.TensorLocation.DEVICE for name in names):
            raise UnavailableError("the network takes shapes as data, which the check can't give it", "")

    def use_profile(self, number: int) -> None:
        """Runs on another optimization profile from now on."""
        self._context.set_optimization_profile_async(number, self._device.stream)
        self._device.synchronize()

    def __call__(self, sample: Sample) -> Sample:
        """Output name → array, in the engine's types. Raises UnavailableError with CUDA's or TensorRT's reason."""
        for name in self.inputs:
            array = np.ascontiguousarray(sample[name], self._dtype(name))
            self._context.set_input_shape(name, array.shape)
            self._context.set_tensor_address(name, self._device.upload(name, array))
        shapes = {name: self._output(name) for name in self.outputs}
        if not self._context.execute_async_v3(self._device.stream):
            raise UnavailableError("TensorRT did not start the inference", "see the log with --verbose")
        self._device.synchronize()
        return {name: self._device.download(name, shape, self._dtype(name)) for name, shape in shapes.items()}

    def _output(self, name: str) -> tuple[int, ...]:
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=1) < 0:
            raise UnavailableError(
                f"the shape of output {name!r} depends on the data, which the check can't follow", ""
            )
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(self._dtype(name)).itemsize
        self._context.set_tensor_address(name, self._device.buffer(name, size))
        return shape

    def _dtype(self, name: str) -> Any:
        kind = self._engine.get_tensor_dtype(name)
        if kind not in self._dtypes:
            raise UnavailableError(f"NumPy has no type for {kind} of {name!r}", "")
        return self._dtypes[kind]
