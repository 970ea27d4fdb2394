"""Configuration and card → decoder: whose word counts."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from edgeinfer.config.card import DecoderCard, Thresholds, load_model
from edgeinfer.config.settings import ModelConfig
from edgeinfer.daemon.assembly import close_sinks, open_decoder
from edgeinfer.messages import Message
from edgeinfer.types import Result


def options_of(decoder: Any) -> Any:
    return decoder._options


@pytest.mark.parametrize("key", ["score", "iou"])
@pytest.mark.parametrize(
    ("configured", "option", "expected"), [(0.9, 0.3, 0.9), (0.0, 0.3, 0.0), (None, 0.3, 0.3), (None, None, 0.1)]
)
def test_configuration_goes_before_options_before_thresholds(
    key: str, configured: float | None, option: float | None, expected: float
) -> None:
    model = load_model("nanodet-g")
    card = structs.replace(
        model.card,
        thresholds=Thresholds(**{"score": 0.2, "iou": 0.2, key: 0.1}),
        decoder=DecoderCard(name="boxes_scores", options={} if option is None else {key: option, "max_candidates": 7}),
    )
    decoder = open_decoder(structs.replace(model, card=card), structs.replace(ModelConfig(), **{key: configured}))
    assert getattr(options_of(decoder), key) == expected
    assert getattr(options_of(decoder), "iou" if key == "score" else "score") == 0.2
    assert options_of(decoder).max_candidates == (1000 if option is None else 7)


def test_a_sink_that_can_not_be_closed_keeps_no_other_open(caplog: pytest.LogCaptureFixture) -> None:
    closed: list[str] = []

    class Sink:
        blocks = False

        def __init__(self, name: str) -> None:
            self._name = name

        def write(self, message: Message, result: Result | None) -> None: ...

        def service(self) -> None: ...

        def close(self) -> None:
            closed.append(self._name)
            if self._name == "bad":
                raise OSError(28, "No space left on device")

    close_sinks({"bad": Sink("bad"), "good": Sink("good")})
    assert closed == ["bad", "good"]
    assert "bad: can't be closed" in caplog.text
