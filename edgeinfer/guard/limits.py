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

DESCRIPTORS_WANTED = _bound(
    4096,
    "descriptors",
    "file descriptors that the process asks the system for at its start",
    "where fewer are allowed, fewer subscribers are: as many as there is room for",
    "test_the_limit_is_raised_as_far_as_it_goes",
)

# Subscribers

MAX_PEERS = _bound(
    256,
    "connections",
    "subscribers, all together: connections that have subscribed to something",
    "the newest of the key or address that has most is disconnected",
    "test_too_many_peers",
)
MAX_STRANGERS = _bound(
    128,
    "connections",
    "connections that have not subscribed to anything yet; they take no subscriber's place",
    "of the address that has most, one that has said nothing is disconnected, the oldest first",
    "test_strangers_do_not_displace_who_is_allowed",
)
MAX_PEERS_OF_A_KEY = _bound(
    16,
    "connections",
    "subscribers with one CURVE key",
    "the newest is disconnected",
    "test_one_key_has_so_many_connections",
)
MAX_TOPIC_BYTES = _bound(
    256,
    "bytes",
    "one subscription; our topics are under 100",
    "the peer is disconnected",
    "test_a_subscription_that_is_too_long_ends_the_connection",
)
MAX_FRAME_BYTES = _bound(
    512,
    "bytes",
    "one frame from a peer: a subscription, or a part of the handshake",
    "ZeroMQ closes the connection",
    "test_a_subscription_that_is_too_long_ends_the_connection",
)
MAX_SUBSCRIPTIONS = _bound(
    1000,
    "subscriptions",
    "of one peer at a time",
    "the peer is disconnected",
    "test_a_peer_with_too_many_subscriptions_is_cut_and_others_are_not",
)
MAX_PEER_BYTES = _bound(
    64 << 10,
    "bytes",
    "the subscriptions of one peer",
    "the peer is disconnected",
    "test_a_peer_whose_subscriptions_are_too_many_bytes_is_cut",
)
MAX_BOOK_BYTES = _bound(
    128 << 10,
    "bytes",
    "the different subscriptions of all peers; ZeroMQ makes up to 64 bytes of each",
    "the peer with most bytes is disconnected; none that has at most 512",
    "test_the_subscriptions_of_all_have_a_budget",
)
MAX_UNBOOKED_BYTES = _bound(
    128 << 10,
    "bytes",
    "sent by peers while the publisher's thread is busy with them, beyond what it has booked",
    "the peer that has sent most is disconnected",
    "test_a_flood_does_not_hold_up_the_publisher",
)
SUBSCRIPTION_BURST = _bound(
    3000,
    "changes",
    "subscriptions made and given up by one peer at a time; 100 more each second",
    "the peer is disconnected",
    "test_a_peer_that_changes_its_mind_too_often_is_cut",
)
INBOUND = _bound(
    4,
    "messages",
    "under way from one peer; what is more waits in the kernel, at the peer's expense",
    "the peer waits",
    "test_subscriptions_wait_at_the_expense_of_who_sends_them",
)
RECEIVE_BUFFER_BYTES = _bound(
    64 << 10,
    "bytes",
    "what the kernel keeps of one peer (Linux doubles it)",
    "the peer waits",
    "test_subscriptions_wait_at_the_expense_of_who_sends_them",
)
HANDSHAKE_MS = _bound(
    5000,
    "ms",
    "from a connection to the end of its handshake",
    "the connection is closed",
    "test_a_peer_that_says_nothing_is_given_up",
)
SILENCE_S = _bound(
    10,
    "s",
    "from a connection to its first subscription",
    "the connection is closed",
    "test_a_peer_that_says_nothing_is_given_up",
)
UNREAD_MS = _bound(
    8000,
    "ms",
    "for which a subscriber over TCP may leave unacknowledged what it was sent",
    "the kernel ends the connection",
    "test_a_peer_that_takes_nothing_is_given_up",
)
ADMISSIONS = _bound(
    256,
    "handshakes",
    "of one key or address at once; 50 more each second. Four a second for ten seconds after a flood of it",
    "they wait, and are dropped where they would wait for more than four seconds",
    "test_who_floods_is_let_in_slowly_and_others_at_once",
)
REPLAYS = _bound(
    5,
    "replays",
    "of latched messages at once, to whoever has just subscribed; one more each second. They go to everybody",
    "the new subscriber waits for the next one, a second at most",
    "test_a_peer_that_toggles_does_not_multiply_what_others_get",
)
EVENTS_AT_ONCE = _bound(
    200,
    "events",
    "of peers that are looked at between two messages, and for two milliseconds at most",
    "the rest is looked at next time",
    "test_a_flood_does_not_hold_up_the_publisher",
)
MAX_KEY_FILE_BYTES = _bound(
    1 << 20,
    "bytes",
    "a key file or an allow list: some 15,000 clients",
    "it is refused",
    "test_what_is_no_file_of_keys",
)

# HTTP

# Configuration

# Models

# Engines

# Sinks

# What is said

LOG_LINES = _bound(
    10,
    "lines",
    "of one kind in a period, where others can bring them about",
    "they are counted, and the sum is said once a period",
    "test_a_flood_gives_a_bounded_number_of_lines",
)
LOG_PERIOD_S = _bound(
    60,
    "s",
    "that period",
    "the next one begins",
    "test_a_flood_gives_a_bounded_number_of_lines",
)

# The subscriber's side
