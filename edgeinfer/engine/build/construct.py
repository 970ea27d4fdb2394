"""The build itself, with TensorRT in this process. Runs in the child; nothing here knows of processes or the cache."""

from __future__ import annotations

import hashlib
import resource
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import msgspec

from edgeinfer.engine import diagnose
from edgeinfer.engine.build import calibrate, convert, dla, network, samples, settings, verify
from edgeinfer.engine.build.calibrate import replace
from edgeinfer.engine.build.precision import plan_precision
from edgeinfer.engine.build.progress import PhaseTree, make_monitor
from edgeinfer.engine.build.protocol import BuildRequest, Built, Event, Logged, Step, Warned
from edgeinfer.engine.build.runner import Runner
from edgeinfer.engine.errors import BuildError
from edgeinfer.engine.options import Shape, profiles, single_profiles
from edgeinfer.engine.store.manifest import DlaShare, Verification
from edgeinfer.engine.toolkit import Toolkit, load_plugins, make_logger
from edgeinfer.errors import InputError, OutOfMemoryError, TemporaryError, UnavailableError, UsageError
from edgeinfer.gpu.device import Device, open_device
from edgeinfer.models.onnxfile import read_model, unchanged

Emit = Callable[[Event], None]
OpenDevice = Callable[[], AbstractContextManager[Device]]

LOG_LINES = 200
VERIFIED_NOISE = 4


class Construction:
    """One build from request to written plan. `emit` gets every event but the last; TensorRT's threads call it too."""

    def __init__(
        self, request: BuildRequest, toolkit: Toolkit, emit: Emit, stack: ExitStack, device: OpenDevice = open_device
    ) -> None:
        """`stack` closes the devices that `device` opens for calibration and verification."""
        self.request, self.toolkit, self.emit = request, toolkit, emit
        self._stack, self._open_device = stack, device
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self._parts = dla.PartCounter()
        self._dla: DlaShare | None = None
        self.logger = make_logger(toolkit.trt, self.log, lambda line: emit(Logged(line)), self._parts.hear)
        self.model = read_model(Path(request.model))
        if request.model_sha256 not in ("", self.model.sha256):
            raise _changed(self.model.path)
        self.precision = plan_precision(
            toolkit.trt,
            self.model,
            request.precision,
            request.options.calibrator,
            dla=request.options.dla_core is not None,
        )

    def run(self) -> Built:
        """Builds, writes the plan and checks it."""
        start = time.monotonic()
        plan = self._build()
        seconds = time.monotonic() - start
        self._count_parts(plan)
        path = Path(self.request.work) / "engine.plan"
        with path.open("wb") as file:
            file.write(plan)
        return Built(
            seconds=round(seconds, 3),
            how=self.precision.how,
            plan_bytes=plan.nbytes,
            plan_sha256=hashlib.sha256(plan).hexdigest(),
            verification=self._verify(plan),
            dla=self._dla,
            peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )

    def _build(self) -> memoryview:
        request, trt = self.request, self.toolkit.trt
        load_plugins(self.toolkit, self.logger, request.options.plugins)
        builder = make_builder(self.toolkit, self.logger, self.log)
        definition, parser = self._parse(builder)
        config = builder.create_builder_config()
        free = profiles(self.model, request.options)
        if request.options.dla_core is not None:
            network.fix_shapes(definition, free)
            free = {}
        target = settings.BuilderSetup(self.toolkit, builder, definition, config, lambda text: self.emit(Warned(text)))
        single = single_profiles(request.options, free)
        settings.configure(target, request.options, self.precision, [profile for profile in (free, single) if profile])
        if request.options.dla_core is not None:
            self._dla = dla.expected(request.options.dla_core, config, definition)
        if self.precision.calibrate:
            self._calibrate(builder, config, free.keys())
        monitor = make_monitor(trt, PhaseTree(lambda phase, fraction: self.emit(Step(phase, fraction))))
        if monitor is not None:
            config.progress_monitor = monitor
        timing = self._load_timing_cache(config)
        self.emit(Step("Building the engine"))
        plan = builder.build_serialized_network(definition, config)
        del parser  # the network refers to its weights until here
        if plan is None:
            raise diagnose.explain(self.log, f"{self.model.path}: building with {self.toolkit}")
        self._save_timing_cache(timing)
        return memoryview(plan)

    def _count_parts(self, plan: memoryview) -> None:
        """What became of the DLA's share."""
        if self._dla is None:
            return
        parts = self._parts.parts
        if parts is None:
            parts = dla.parts_of(self.toolkit, self.logger, plan, self._dla.core)
        self._dla = msgspec.structs.replace(self._dla, parts=parts)
        if not self._dla.used:
            self.emit(Warned(str(self._dla)))

    def _parse(self, builder: Any) -> tuple[Any, Any]:
        """The network, and the parser that it hangs on."""
        self.emit(Step("Parsing the network"))
        strong = self.precision.strongly_typed
        definition = network.create_network(self.toolkit, builder, strong)
        parser = network.parse(self.toolkit, self.logger, definition, self.model, self.model.path)
        if not unchanged(self.model.marks):
            raise _changed(self.model.path)
        if (
            self.precision.convert
        ):  # only what TensorRT takes is converted, so that it complains of the caller's own nodes
            definition = network.create_network(self.toolkit, builder, strong)
            converted = self._converted()
            if not unchanged(self.model.marks):  # it was read once more
                raise _changed(self.model.path)
            parser = network.parse(self.toolkit, self.logger, definition, self.model, converted)
        return definition, parser

    def _converted(self) -> Path:
        """The model in the wanted precision, as a file beside the plan to come."""
        target = Path(self.request.work) / "converted.onnx"
        self.emit(Step(self.precision.how))
        if self.precision.convert == "fp16":
            convert.to_half(self.model.path, target)
        else:
            convert.to_qdq(self.model.path, target, self._calibration_samples(), self.request.options.calibrator)
            if not read_model(target).quantized:
                raise BuildError(f"{self.model.path}: holds nothing that can be quantized to INT8", "use fp16")
        return target

    def _calibration_samples(self) -> Any:
        if self.request.calibration is None:
            raise UsageError(
                f"{self.model.path}: int8 needs inputs to calibrate with",
                "give --calibration-data DIR, or an ONNX file with Q/DQ",
            )
        return samples.load(
            self.request.calibration, self.model, samples.usual_shapes(self.model, self.request.options)
        )

    def _calibrate(self, builder: Any, config: Any, free: Collection[str]) -> None:
        shapes = samples.usual_shapes(self.model, self.request.options)
        cache = self.request.calibration_cache
        config.int8_calibrator = calibrate.make_calibrator(
            self.toolkit.trt,
            self.request.options.calibrator,
            self._calibration_samples(),
            shapes[self.model.inputs[0].name][0],
            self._device(),
            Path(cache) if cache else None,
        )
        if free:
            usual = {name: (shapes[name],) * 3 for name in free}
            config.set_calibration_profile(settings.make_profile(builder, usual))

    def _device(self) -> Device:
        return self._stack.enter_context(self._open_device())

    def _load_timing_cache(self, config: Any) -> Any:
        """A function that gives the timing cache after the build; None where there is none."""
        path = self.request.timing_cache
        if path is None or self.toolkit.flavour == "tensorrt_rtx":  # RTX has the calls, and no timing cache
            return None
        blob = Path(path).read_bytes() if Path(path).exists() else b""
        cache = config.create_timing_cache(blob) or config.create_timing_cache(b"")
        if not config.set_timing_cache(cache, False):
            self.emit(Warned(f"timing cache {path} is of another machine or TensorRT: it is written anew"))
            config.set_timing_cache(config.create_timing_cache(b""), False)
        return config.get_timing_cache

    def _save_timing_cache(self, get: Any) -> None:
        if get is not None and self.request.timing_cache is not None:
            replace(Path(self.request.timing_cache), bytes(get().serialize()))

    def _verify(self, plan: memoryview) -> Verification:
        if not self.request.verify:
            return Verification(state="skipped", reason="not asked for")
        self.emit(Step("Comparing with ONNX Runtime"))
        try:
            return self._compare(plan)
        except (UnavailableError, OutOfMemoryError) as error:
            return verify.skipped(error)

    def _compare(self, plan: memoryview) -> Verification:
        """On each of its profiles: they have kernels of their own."""
        options, shapes = self.request.options, samples.usual_shapes(self.model, self.request.options)
        runner = Runner(self.toolkit, self.logger, self.log, plan, self._device(), options.dla_core)
        result = self._compare_on(runner, shapes)
        single = single_profiles(options, profiles(self.model, options))
        if single and result.state == "passed":
            runner.use_profile(1)
            alone = {**shapes, **{name: profile[1] for name, profile in single.items()}}
            result = verify.both(result, self._compare_on(runner, alone))
        return result

    def _compare_on(self, runner: Runner, shapes: dict[str, Shape]) -> Verification:
        request, reference = self.request, verify.reference_runner(self.model)
        given = request.verification or request.calibration
        chosen = samples.load(given, self.model, shapes) if given else samples.noise(self.model, shapes, VERIFIED_NOISE)
        tolerance = request.tolerance or verify.TOLERANCES[request.precision]
        return verify.verify(reference, runner, chosen, tolerance, given.path if given else "noise")


def _changed(path: Path) -> InputError:
    """What the engine is kept for is the network that was read first."""
    return InputError(f"{path}: the network's files changed since the build was asked for", "build again")


def make_builder(toolkit: Toolkit, logger: Any, log: deque[str]) -> Any:
    """TensorRT's builder. Raises UnavailableError where it can't be made, which means that there is no usable GPU, and
    BuildKilledError where there is no memory for it.
    """
    try:
        return toolkit.trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # "factory function returned nullptr"
        reason = diagnose.explain(log, f"making a builder of {toolkit}")
        kind = type(reason) if isinstance(reason, UnavailableError | TemporaryError) else UnavailableError
        raise kind(reason.message, "see `edgeinfer doctor`") from error
