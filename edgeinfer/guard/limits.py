"""The budget page: every bound on what others can make this process hold, wait for, open or say.

A bound is declared here, beside its neighbours, and imported by the module that keeps it. docs/limits.md is generated
from this list. `test` names the test that goes beyond it.
"""

from __future__ import annotations

from typing import NamedTuple


class Bound(NamedTuple):
    """A line of the page. `beyond` says what happens to whoever asks for more; `setting` is its key, if it has one."""

    what: str
    value: int
    unit: str
    beyond: str
    test: str
    setting: str = ""


BOUNDS: list[Bound] = []


def _bound(value: int, unit: str, what: str, beyond: str, test: str, setting: str = "") -> int:
    BOUNDS.append(Bound(what, value, unit, beyond, test, setting))
    return value


# Pictures

MAX_PIXELS = _bound(
    1 << 26,
    "pixels",
    "one picture, by its header: 8192 × 8192",
    "the picture is unreadable; a camera that sends such is `failed` with `codec`",
    "test_a_picture_that_swells_is_refused_by_its_header",
)

# Memory and children

# Descriptors and threads

# Subscribers

# HTTP

MAX_HTTP_PEERS = _bound(
    64,
    "connections",
    "open at a time at the HTTP port",
    "the one that has been there longest is cut, and the newest is served",
    "test_a_hundred_slow_peers_keep_nobody_from_an_answer",
)
MAX_REQUEST_BYTES = _bound(
    16 << 10,
    "bytes",
    "one HTTP request with its headers",
    "431",
    "test_requests_that_are_too_much_or_none",
)
HTTP_DEADLINE_S = _bound(
    5,
    "seconds",
    "from the connection to the end of the answer, however busy the peer keeps it",
    "the connection is cut",
    "test_slow_peers_are_cut_and_hold_up_nobody",
)

# Configuration

# Models

# Engines

MAX_MANIFEST_BYTES = _bound(
    4 << 20,
    "bytes",
    "what is written beside an engine in the cache",
    "the engine is damaged, and built again",
    "test_a_manifest_that_is_too_large_is_damage",
)

# Sinks

MAX_SET_ASIDE = _bound(
    9999,
    "files",
    "videos that are there already and keep their contents under other names, for each video",
    "nothing is recorded, and the sink says why",
    "test_a_video_that_is_there_already_is_kept_under_another_name",
)
PUBLISHER_RESULTS = _bound(
    64,
    "results",
    "what waits for the publisher",
    "a live source's result is dropped with the reason `publish`; a file's waits",
    "test_what_was_handed_over_is_published_before_the_end",
)
OUTBOX_MESSAGES = _bound(
    256,
    "messages",
    "what waits for a sink that writes to a file or a pipe, for each sink",
    "a live source's message is lost for this sink and counted; a file's waits",
    "test_a_live_result_does_not_wait_for_room_and_is_counted_as_lost",
)
SINK_PATIENCE_S = _bound(
    30,
    "seconds",
    "how long a file's result, or the end of a run, waits for a sink that takes nothing",
    "the message is lost for this sink and counted, and nothing waits for it until it moves again",
    "test_a_sink_that_takes_nothing_for_ever_holds_nothing_for_ever",
)

# What is said

# The subscriber's side

MAX_MESSAGE_BYTES = _bound(
    1 << 20,
    "bytes",
    "one part of a message that a subscriber takes, of which `high_water_mark` may wait; a line of a sink's file",
    "ZeroMQ drops the connection to that publisher and tries again",
    "test_a_message_that_is_too_large_to_be_ours_is_not_taken",
)
MAX_PARTS = _bound(
    2,
    "parts",
    "one message: its topic and its payload",
    "the message is counted as malformed; the rest of it is thrown away part by part",
    "test_a_message_of_a_million_parts_takes_no_longer_than_asked",
)
MAX_EVENTS = _bound(
    100,
    "events",
    "of its connection that a subscriber looks at in one go",
    "the next call goes on",
    "test_a_storm_of_events_is_looked_at_in_bounded_steps",
)
MAX_TEXT = _bound(
    4096,
    "characters",
    "one text in a message",
    "the message is counted as malformed",
    "test_what_can_not_be_true_is_not_handed_over",
)
MAX_DETECTIONS = _bound(
    10_000,
    "objects",
    "one frame",
    "the message is counted as malformed",
    "test_a_scene_with_too_many_objects_is_not_handed_over",
)
MAX_SUBSCRIBED_SOURCES = _bound(
    1024,
    "sources",
    "what a subscriber remembers of each source: gaps, counts, the newest message",
    "the one heard of longest ago is forgotten; what is counted for more of them is counted together, as `_others`",
    "test_invented_sources_do_not_grow_memory",
)
MAX_DRAINED = _bound(
    10_000,
    "messages",
    "looked through in one call for the newest with `latest`",
    "the newest of those counts; the next call goes on",
    "test_a_flood_is_looked_through_in_bounded_steps",
)
