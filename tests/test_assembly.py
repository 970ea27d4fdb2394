"""Configuration and card → decoder: whose word counts."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from edgeinfer.config.card import DecoderCard, Thresholds, load_model
from edgeinfer.config.settings import ModelConfig, load_config
from edgeinfer.daemon import assembly
from edgeinfer.daemon.assembly import (
    PROCESS_GRACE_S,
    capture_job,
    close_sinks,
    deadlines,
    open_decoder,
    scales,
    wanted_size,
)
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.capture import Deadlines
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.messages import Message
from edgeinfer.sources import rtsp
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


@pytest.mark.parametrize(
    ("uri", "opening", "grace"),
    [
        ("csi://0", 100, PROCESS_GRACE_S),
        ("gst:videotestsrc", 100, PROCESS_GRACE_S),
        ("rtsp://127.0.0.1/x", None, PROCESS_GRACE_S),
        ({"uri": "rtsp://127.0.0.1/x", "decoder": "gstreamer"}, 100, PROCESS_GRACE_S),
        ({"uri": "rtsp://127.0.0.1/x", "isolated": False}, None, Deadlines().grace),
        ("v4l2:///dev/video0", None, Deadlines().grace),
    ],
)
def test_a_process_is_ended_before_its_thread_is_given_up_and_gstreamer_may_take_its_time_to_start(
    monkeypatch: pytest.MonkeyPatch, uri: Any, opening: float | None, grace: float
) -> None:
    monkeypatch.setattr(rtsp, "has_hardware_decoder", lambda: False)
    config = load_config(None, [("sources.c", uri)]).sources["c"]
    limits = deadlines(config)
    assert (limits.opening, limits.grace) == (opening, grace)
    job = capture_job("c", config, Ledger(lambda: 0), Mailbox())
    assert job.limits == limits
    assert bool(job.opening_why) is (opening is not None)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({}, False),
        ({"realtime": True}, False),
        ({"loop": True}, False),
        ({"realtime": True, "loop": True}, True),
        ({"realtime": True, "loop": True, "reconnect": False}, False),
        ({"reconnect": True}, True),
    ],
)
def test_of_videos_those_without_an_end_are_opened_again(source: dict[str, Any], expected: bool) -> None:
    config = load_config(None, [("sources.c", {"uri": "clip.mp4", **source})]).sources["c"]
    assert capture_job("c", config, Ledger(lambda: 0), Mailbox()).reconnect is expected


class Blind:
    """A sink that looks at no picture."""

    blocks, pictures = False, False

    def write(self, message: Message, result: Result | None) -> None: ...

    def service(self) -> None: ...

    def close(self) -> None: ...


class Looking(Blind):
    """One that does."""

    pictures = True


def test_pictures_need_not_exceed_an_input_that_keeps_their_shape_and_that_nobody_else_looks_at() -> None:
    model = load_model("nanodet-g")
    stretching = structs.replace(model.card, input=structs.replace(model.card.input, resize="stretch"))
    assert wanted_size(model, [Blind()]) == (416, 416)
    assert wanted_size(model, [Blind(), Looking()]) is None
    assert wanted_size(structs.replace(model, card=stretching), [Blind()]) is None


@pytest.mark.parametrize("hardware", [True, False])
@pytest.mark.parametrize(
    ("uri", "scaled"),
    [
        ("csi://0", (True, True)),
        ("rtsp://127.0.0.1/x", (True, False)),
        ({"uri": "rtsp://127.0.0.1/x", "decoder": "gstreamer"}, (True, False)),
        ({"uri": "rtsp://127.0.0.1/x", "decoder": "av"}, (False, False)),
        ("http://127.0.0.1/x", (False, False)),
        ("demo:", (False, False)),
        ("tests.fitting_source:", (True, True)),
        ({"uri": "tests.fitting_source:", "isolated": True}, (False, False)),
    ],
    ids=str,
)
def test_a_source_scales_where_hardware_does_that_for_it(
    monkeypatch: pytest.MonkeyPatch, uri: Any, scaled: tuple[bool, bool], hardware: bool
) -> None:
    monkeypatch.setattr(rtsp, "has_hardware_decoder", lambda: hardware)
    monkeypatch.setattr(rtsp, "_can_use_it", lambda _: True)
    config = load_config(None, [("sources.c", uri)]).sources["c"]
    assert scales(config) is scaled[0 if hardware else 1]


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


@pytest.mark.parametrize(
    ("source", "opened"),
    [
        ({"decoder": "auto"}, "relaying"),
        ({"decoder": "nvdec"}, "relaying"),
        ({"decoder": "av"}, "isolated"),
        ({"isolated": True}, "isolated"),
        ({"memory_mb": 300}, "isolated"),
        ({"isolated": False}, "here"),
    ],
)
def test_what_nvdec_may_decode_is_opened_where_it_does_and_a_wish_for_a_process_counts_for_more(
    monkeypatch: pytest.MonkeyPatch, source: dict[str, Any], opened: str
) -> None:
    def opens(what: str) -> Any:
        return lambda *_: what

    monkeypatch.setattr(rtsp, "has_hardware_decoder", lambda: False)
    monkeypatch.setattr(rtsp, "wants_nvdec", lambda wanted: wanted != "av")
    monkeypatch.setattr(assembly, "open_relaying", opens("relaying"))
    monkeypatch.setattr(assembly, "open_isolated", opens("isolated"))
    monkeypatch.setattr(rtsp, "open", opens("here"))
    config = load_config(None, [("sources.c", {"uri": "rtsp://127.0.0.1/x", **source})]).sources["c"]
    found: Any = assembly.open_source(config, "c")
    assert found == opened
    assert deadlines(config).grace == (Deadlines().grace if opened == "here" else PROCESS_GRACE_S)
