"""A backend that loses a real GPU: after a second, a kernel writes where it may not, and the context is gone."""

from __future__ import annotations

import ctypes

from msgspec import Struct

from edgeinfer.backends import onnxruntime
from edgeinfer.config.card import Model
from edgeinfer.gpu.cuda import Cuda
from edgeinfer.interfaces import Slot

KERNEL = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry bad() {
  .reg .b64 %rd<2>;
  .reg .b32 %r<2>;
  mov.u64 %rd1, 64;
  mov.u32 %r1, 1;
  st.global.u32 [%rd1], %r1;
  ret;
}
"""


class Options(Struct, frozen=True, kw_only=True):
    after: int = 30


def open(model: Model, max_batch: int | None, options: Options) -> Lost:  # noqa: A001 (the plugin interface)
    return Lost(model, max_batch, options)


class Lost(onnxruntime.OnnxRuntime):
    """Infers on the CPU and asks a CUDA event after every batch, as the TensorRT backend does."""

    def __init__(self, model: Model, max_batch: int | None, options: Options) -> None:
        super().__init__(model, max_batch, onnxruntime.Options())
        self._cuda, self._left = Cuda(), options.after
        self._stream, self._event = self._cuda.stream(), self._cuda.event()
        self._driver = ctypes.CDLL("libcuda.so.1")

    def submit(self, slot: Slot) -> None:
        self._left -= 1
        if self._left == 0:
            self._launch()
        self._cuda("cudaEventRecord", self._event, self._stream)
        super().submit(slot)

    def collect(self, timeout_s: float) -> Slot | None:
        self._cuda.done(self._event)
        return super().collect(timeout_s)

    def _launch(self) -> None:
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        for status in (
            self._driver.cuModuleLoadData(ctypes.byref(module), KERNEL),
            self._driver.cuModuleGetFunction(ctypes.byref(function), module, b"bad"),
            self._driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, ctypes.c_void_p(int(self._stream)), None, None),
        ):
            assert status == 0, status
