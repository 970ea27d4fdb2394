"""The budget page: the bounds on what others can make this process hold, wait for, open or say.

A bound is declared here, beside its neighbours, and imported by the module that keeps it; one within the work of a
single module stands there. docs/limits.md is generated from this list. `test` names the test that goes beyond it.
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

MAX_IMAGE_FILE_BYTES = _bound(
    256 << 20,
    "bytes",
    "the file of a picture",
    "the picture is unreadable",
    "test_a_picture_of_just_the_size_that_is_allowed_is_read",
    "sources.NAME.max_bytes",
)

# Memory and children

MAX_DECODING_BYTES = _bound(
    640 << 20,
    "bytes",
    "pictures from files that are being read and decoded at a time: their files, and 9 bytes for each pixel",
    "the next one waits; it is never lost",
    "test_pictures_are_decoded_while_there_is_room",
)

MAX_FRAME_BYTES = _bound(
    4 << 30,
    "bytes",
    "all frames together; a quarter of the memory where that is less (the machine's, or what a control group allows)",
    "a source waits for room; after two seconds it is `stalled`",
    "test_beyond_its_limit_a_frame_waits_for_another_to_go",
)

MAX_IDLE_FRAME_BYTES = _bound(
    512 << 20,
    "bytes",
    "memory for frames that is kept while it serves none",
    "it is given back to the system",
    "test_beyond_a_bound_memory_that_serves_no_frame_is_given_back",
)
MAX_CHILD_BYTES = _bound(
    512 << 20,
    "bytes",
    "private memory of a process that decodes a source, beyond what it starts with; less where half of the memory does "
    "not suffice for all of them",
    "it gets no more, and the source is opened again: `memory`, or `crashed`",
    "test_a_process_that_swells_gets_no_more",
    "sources.NAME.memory_mb",
)
MIN_CHILD_BYTES = _bound(
    256 << 20,
    "bytes",
    "the least that such a process may have, however many there are",
    "the kernel ends these processes first where the machine's memory is used up",
    "test_the_share_of_a_process",
)
MAX_PIPELINE_BYTES = _bound(
    1 << 30,
    "bytes",
    "private memory of a GStreamer process, beyond what it starts with; a CSI camera's driver is not held to it",
    "it gets no more, and the source is opened again",
    "test_a_pipeline_that_swells_gets_no_more",
)
MAX_LENT = _bound(
    8,
    "blocks",
    "memory lent to such a process for pictures that it has not given yet; a sixteenth of all frames' in bytes, or one "
    "picture",
    "it gets no more for now: the source is `stalled`",
    "test_a_process_gets_so_much_memory_and_no_more",
)
MAX_SOURCE_BLOCKS = _bound(
    128,
    "blocks",
    "memory lent to such a process altogether, with the frames of it that somebody still uses",
    "it gets no more for now: the source is `stalled`",
    "test_a_process_gets_so_much_memory_and_no_more",
)

MAX_DEVICE_BYTES = _bound(
    4 << 30,
    "bytes",
    "the GPU's memory for pictures that NVDEC decodes; a quarter of it where that is less",
    "pictures of further sources come through host memory",
    "test_beyond_its_limit_there_is_no_further_arena",
)
MAX_SOURCE_DEVICE_BYTES = _bound(
    512 << 20,
    "bytes",
    "the GPU's memory for one source's pictures",
    "fewer of them may be in use at a time; fewer than three, and they come through host memory",
    "test_a_source_gets_fewer_slots_for_larger_pictures",
)
MAX_SLOTS = _bound(
    16,
    "pictures",
    "one camera's in the GPU's memory, in use at a time",
    "its oldest frame that waits is dropped (`overload`)",
    "test_without_room_the_frame_that_waits_gives_way",
)
MAX_FILE_SLOTS = _bound(
    64,
    "pictures",
    "one file's, which fills batches alone",
    "it waits",
    "test_a_file_without_room_waits_and_loses_nothing",
)
MAX_PACKET_BYTES = _bound(
    16 << 20,
    "bytes",
    "one packet of a camera that is decoded by NVDEC",
    "its process is ended, and the camera opened again: `memory`",
    "test_a_packet_that_is_too_large_ends_its_process",
)

# Descriptors and threads

MAX_CHILD_DESCRIPTORS = _bound(
    256,
    "descriptors",
    "one process that decodes a source",
    "it can open no more, and the source is opened again",
    "test_a_process_has_few_descriptors_and_writes_no_file",
)

MAX_HUNG = _bound(
    3,
    "threads",
    "one source's, whose calls into its driver never came back",
    "it is not opened again until one does: `failed`, `stuck`. When nothing but such sources is left, the process ends "
    "with exit code 70",
    "test_a_source_whose_threads_hang_is_not_opened_again",
)

MAX_HANGING_READS = _bound(
    4,
    "threads",
    "reads of small files that a disk does not answer; as many more of an allow list",
    "files are not read until one of them comes back; the error says so",
    "test_a_file_that_never_answers_holds_up_nobody",
)

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
MAX_ZMTP_FRAME_BYTES = _bound(
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
MAX_OWNERS = _bound(
    1024,
    "owners",
    "keys and addresses whose handshakes are counted",
    "the one that was silent longest is forgotten",
    "test_who_floods_is_let_in_slowly_and_others_at_once",
)
MAX_EARLY = _bound(
    1000,
    "subscriptions",
    "subscriptions that came in before the news of their connection, for a second each",
    "the oldest is forgotten",
    "test_subscriptions_of_connections_that_nobody_knows_are_forgotten",
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

# The page

WEB_EVENTS = _bound(
    1000,
    "events",
    "kept of what has happened",
    "the oldest is forgotten",
    "test_the_oldest_event_is_forgotten",
)
WEB_SAMPLES = _bound(
    600,
    "samples",
    "kept for the plots, one a second",
    "the oldest is forgotten",
    "test_the_oldest_sample_is_forgotten",
)
MAX_VIEWERS = _bound(
    16,
    "viewers",
    "those who look at the live page at a time",
    "the connection is closed with 4429, and a sentence",
    "test_one_viewer_too_many_is_told_so",
)
MAX_MJPEG_STREAMS = _bound(
    8,
    "streams",
    "MJPEG at a time",
    "503, with a sentence",
    "test_one_stream_too_many_is_told_so",
)
MAX_SNAPSHOTS = _bound(
    16,
    "requests",
    "for single pictures that wait for one at a time",
    "503, with a sentence",
    "test_one_snapshot_too_many_is_told_so",
)
MAX_WS_MESSAGE_BYTES = _bound(
    4 << 10,
    "bytes",
    "one message from a viewer",
    "the connection is closed with 1009",
    "test_garbage_and_messages_that_are_too_long",
)
MAX_KEPT_JPEGS = _bound(
    32,
    "pictures",
    "JPEGs that are kept for those who ask for them a little later than others",
    "the oldest is forgotten, and made again where somebody asks for it",
    "test_made_pictures_are_bounded_in_number",
)
MAX_WEB_BODY_BYTES = _bound(
    256 << 10,
    "bytes",
    "the body of a request to the page's API",
    "413",
    "test_a_body_that_is_too_large_is_refused",
)
MAX_EVENT_STREAMS = _bound(
    16,
    "streams",
    "those who listen to events at a time",
    "503, with a sentence",
    "test_one_listener_too_many_is_refused",
)

# Tokens of the page

MAX_TOKEN_FILE_BYTES = _bound(
    64 << 10,
    "bytes",
    "a file of tokens",
    "it is refused, and lets nobody in",
    "test_what_is_no_file_of_tokens",
)
MAX_TOKENS = _bound(
    256,
    "tokens",
    "in such a file",
    "`edgeinfer web token new` makes no more",
    "test_a_file_holds_so_many_tokens",
)
MAX_SESSIONS = _bound(
    256,
    "sessions",
    "of people who have logged in, for twelve hours each",
    "of the token that has most the oldest ends",
    "test_a_flood_of_logins_ends_no_session_of_another_token",
)
LOGIN_TRIES = _bound(
    5,
    "tries",
    "to log in with a wrong token, from one address within a minute",
    "429 for whatever comes from there, until a minute has gone since the first of them",
    "test_five_wrong_tries_a_minute",
)
ALL_LOGIN_TRIES = _bound(
    60,
    "tries",
    "the same, from everywhere",
    "429 for whoever wants to log in; sessions and programs with a token go on",
    "test_sixty_wrong_tries_a_minute_from_everywhere",
)
MAX_LOGIN_BYTES = _bound(
    4 << 10,
    "bytes",
    "the body of a request to log in",
    "413",
    "test_a_login_that_is_too_long",
)
MAX_COOKIE_BYTES = _bound(
    4 << 10,
    "bytes",
    "the cookies of one request, those of other servers on this machine among them",
    "it counts as one without a cookie",
    "test_cookies_that_are_too_many",
)

# Configuration

MAX_CONFIG_BYTES = _bound(
    256 << 10,
    "bytes",
    "a configuration or a model card",
    "it is refused",
    "test_texts_that_are_too_large",
)
MAX_DROPINS = _bound(
    64,
    "files",
    "drop-ins beside a configuration",
    "the configuration is refused",
    "test_too_many_dropins",
)
MAX_DROPIN_BYTES = _bound(
    256 << 10,
    "bytes",
    "all drop-ins of a configuration together",
    "the configuration is refused",
    "test_dropins_that_are_too_large",
)
MAX_YAML_NODES = _bound(
    1 << 17,
    "values",
    "a configuration or card with its aliases and merges written out",
    "it is refused before any of it is written out",
    "test_yaml_that_swells",
)
MAX_YAML_DEPTH = _bound(
    50,
    "levels",
    "lists and mappings within each other in a configuration or card",
    "it is refused",
    "test_yaml_that_is_too_deep",
)
MAX_YAML_NUMBER = _bound(
    64,
    "characters",
    "a number, date or truth value in a configuration or card",
    "it is refused",
    "test_yaml_with_endless_numbers",
)
MAX_PASSWORD_BYTES = _bound(
    4096,
    "bytes",
    "a password file",
    "the camera is `failed` with `unauthorized`",
    "test_a_password_file_that_is_none",
)
FILE_SECONDS = _bound(
    5,
    "seconds",
    "reading a configuration, a card, a password or a key file, or looking at the allow list",
    "it counts as unreadable; a running daemon goes on as before, and lets nobody new in without its list",
    "test_a_file_that_never_answers_holds_up_nobody",
)

# Models

MAX_MODEL_BYTES = _bound(
    2 << 30,
    "bytes",
    "an ONNX file or a plan; protobuf's own limit. Larger networks keep their weights beside the file",
    "the model is refused (exit 66)",
    "test_a_model_that_is_too_large_or_no_file",
)
MAX_EXTERNAL_BYTES = _bound(
    16 << 30,
    "bytes",
    "all weights that a network keeps beside its file",
    "the model is refused (exit 66)",
    "test_weights_that_never_end",
)
MAX_EXTERNAL_FILES = _bound(
    4096,
    "files",
    "with a network's weights",
    "the model is refused (exit 66)",
    "test_weights_that_never_end",
)
MAX_ONNX_FIELDS = _bound(
    2_000_000,
    "fields",
    "an ONNX file, on the way to all of its tensors; a network of 20 000 nodes has 600 000",
    "the model is refused (exit 66)",
    "test_a_network_of_endless_fields",
)
TRIAL_MEMORY_BYTES = _bound(
    3 << 30,
    "bytes",
    "memory of a network when it is tried, beside four times its weights; at most half of what there is for us",
    "the model is refused (exit 66, or a reload that fails); what serves goes on",
    "test_a_network_that_swells_is_refused_before_it_is_loaded",
    "backend.memory_mb",
)
TRIAL_WEIGHTS = _bound(
    4,
    "times",
    "a network's files, in its budget of memory: as read, as loaded, as rearranged, and one to spare",
    "the model is refused (exit 66, or a reload that fails); what serves goes on",
    "test_a_network_that_swells_is_refused_before_it_is_loaded",
    "backend.memory_mb",
)
TRIAL_S = _bound(
    60,
    "seconds",
    "loading a network and running it once, when it is tried",
    "the model is refused (exit 66, or a reload that fails); what serves goes on",
    "test_a_network_without_an_end_is_given_up",
    "backend.trial_s",
)
MAX_VERDICTS = _bound(
    64,
    "files",
    "networks that have been tried well, remembered in the cache",
    "the oldest is forgotten, and that network tried again",
    "test_verdicts_are_bounded_in_number",
)
MAX_GRAPH_DEPTH = _bound(
    32,
    "graphs",
    "graphs within graphs",
    "the model is refused (exit 66)",
    "test_graphs_nested_without_end_are_refused",
)

# Engines

MAX_MANIFEST_BYTES = _bound(
    4 << 20,
    "bytes",
    "what is written beside an engine in the cache",
    "the engine is damaged, and built again",
    "test_a_manifest_that_is_too_large_is_damage",
)
MIN_FREE_BYTES = _bound(
    128 << 20,
    "bytes",
    "memory that a build leaves on the machine",
    "the build is stopped, and tried again at the next start",
    "test_limits_of_memory_are_looked_at",
)
MAX_CACHE_BYTES = _bound(
    8 << 30,
    "bytes",
    "engines in the cache after a build of the daemon's",
    "those that were used last longest ago are removed",
    "test_the_cache_is_pruned_after_a_build",
)
MAX_LOG_TEXT = _bound(
    2000,
    "characters",
    "a line of TensorRT's log: nodes are called as the network says",
    "the rest of the line is left out",
    "test_a_networks_names_do_not_swell_what_is_said",
)
MAX_NODES_TOLD = _bound(
    16,
    "nodes",
    "in the account of a network that TensorRT does not take",
    "the others are counted",
    "test_a_networks_names_do_not_swell_what_is_said",
)
MAX_BUILD_S = _bound(
    4 * 3600,
    "seconds",
    "building an engine for the daemon; `edgeinfer build` has its own --timeout",
    "the build is given up, and another backend serves if one may",
    "test_limits_of_memory_are_looked_at",
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
OUTBOX_PICTURES = _bound(
    32,
    "messages",
    "the same for a sink that looks at pictures, which wait with them",
    "a live source's message is lost for this sink and counted; a file's waits",
    "test_few_pictures_wait_for_a_sink_that_looks_at_them",
)
SINK_PATIENCE_S = _bound(
    30,
    "seconds",
    "how long a file's result, or the end of a run, waits for a sink that takes nothing",
    "the message is lost for this sink and counted, and nothing waits for it until it moves again",
    "test_a_sink_that_takes_nothing_for_ever_holds_nothing_for_ever",
)

# What is said

MAX_LINE_LENGTH = _bound(
    2000,
    "characters",
    "an error, a reason, a line of the log",
    "it is cut",
    "test_printable",
)
MAX_STACKS = _bound(
    64 << 10,
    "characters",
    "the stacks in the report of a crash",
    "the rest is left out",
    "test_a_later_crash_takes_the_place_of_the_one_before_and_stacks_have_their_limit",
)
MAX_SECRETS = _bound(
    4096,
    "secrets",
    "passwords and tokens of the configuration, the command line, the environment and password files, which are looked "
    "for in all that is said",
    "those known before are kept; further ones are hidden only where they look like it, which is said once",
    "test_no_secret_displaces_another",
)

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
