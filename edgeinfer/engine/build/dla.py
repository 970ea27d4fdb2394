"""How much of a network goes to a DLA. TensorRT puts the rest on the GPU without a word, so it is counted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from edgeinfer.engine.store.manifest import DlaShare
from edgeinfer.engine.toolkit import Toolkit, make_runtime, member

ON_DLA, ON_GPU = "[DlaLayer]", "[GpuLayer]"
"""How TensorRT's builder logs a part of the finished engine, severity left out."""


def expected(core: int, config: Any, network: Any) -> DlaShare:
    """What the DLA says it takes, layer by layer, before the build."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return DlaShare(core=core, able=sum(map(bool, map(config.can_run_on_DLA, layers))), layers=len(layers))


class PartCounter:
    """Counts the parts of an engine while its builder logs them."""

    def __init__(self) -> None:
        self._on_dla = self._on_gpu = 0

    def hear(self, text: str) -> None:
        """Takes a line of TensorRT's log, of any severity."""
        self._on_dla += ON_DLA in text
        self._on_gpu += ON_GPU in text

    @property
    def parts(self) -> int | None:
        """Parts on the DLA; None where this TensorRT logged none of either kind."""
        return self._on_dla if self._on_dla or self._on_gpu else None


def parts_of(toolkit: Toolkit, logger: Any, plan: Any, core: int) -> int | None:
    """Parts on the DLA by TensorRT's engine inspector; None where it doesn't say, or the plan can't be loaded here."""
    with suppress(Exception):  # a built engine must not be lost for want of a figure
        engine = make_runtime(toolkit, logger, core).deserialize_cuda_engine(plan)
        if engine is not None and hasattr(engine, "create_engine_inspector"):
            return _count(_layers(toolkit, engine))
    return None


def _layers(toolkit: Toolkit, engine: Any) -> Iterable[Any]:
    """What the inspector tells of every layer: an object where the engine was built with details, else its name."""
    inspector, kind = engine.create_engine_inspector(), member(toolkit.trt.LayerInformationFormat, "JSON")
    for index in range(engine.num_layers):
        try:
            yield json.loads(inspector.get_layer_information(index, kind))
        except (ValueError, RecursionError):
            yield ""


def _count(layers: Iterable[Any]) -> int | None:
    kinds = [str(layer["LayerType"]) for layer in layers if isinstance(layer, dict) and "LayerType" in layer]
    return sum("dla" in kind.lower() for kind in kinds) if kinds else None
