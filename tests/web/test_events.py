"""Events as they happen, over a real connection."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import quote

import pytest

from edgeinfer.guard.limits import MAX_EVENT_STREAMS, MAX_HTTP_PEERS
from edgeinfer.web.site import events
from edgeinfer.web.site.server import Site
from edgeinfer.web.viewing.chronicle import Chronicle
from tests.test_zmq import wait_for
from tests.web.serving import ask, serving, views
from tests.web.test_chronicle import status

PATH = "/api/v1/events/stream"


@pytest.fixture
def chronicle() -> Chronicle:
    return Chronicle()


@pytest.fixture
def site(chronicle: Chronicle) -> Iterator[Site]:
    with serving(views(chronicle=chronicle)) as made:
        yield made


def stream(site: Site, stack: ExitStack, path: str = PATH, **headers: str) -> http.client.HTTPResponse:
    connection = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)))
    connection.request("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})
    return connection.getresponse()


def block(answer: http.client.HTTPResponse) -> dict[str, Any]:
    """The next event or comment."""
    fields: dict[str, Any] = {}
    while line := answer.readline().decode().rstrip("\n"):
        name, _, text = line.partition(": ")
        fields[name] = json.loads(text) if name == "data" else text
    return fields


def test_what_has_happened_comes_first_and_then_what_happens(site: Site, chronicle: Chronicle) -> None:
    chronicle.write(status(), None)
    with ExitStack() as stack:
        answer = stream(site, stack)
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        assert block(answer) == {"retry": "2000"}
        first = block(answer)
        assert (first["id"], first["event"], first["data"]["source"]) == ("1", "state", "front")
        for state in ("stalled", "running"):
            chronicle.write(status(state=state), None)
            event = block(answer)
            assert (event["event"], event["data"]["code"]) == ("state", state)


def test_who_was_cut_off_gets_what_he_missed(site: Site, chronicle: Chronicle) -> None:
    for state in ("running", "stalled", "failed"):
        chronicle.write(status(state=state), None)
    with ExitStack() as stack:
        for answer in (stream(site, stack, Last_Event_ID="2"), stream(site, stack, f"{PATH}?since=2")):
            block(answer)
            assert block(answer)["id"] == "3"


def test_silence_is_filled_with_comments(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SILENCE_S", 0.05)
    with ExitStack() as stack:
        answer = stream(site, stack)
        assert [block(answer) for _ in range(3)][1:] == [{"": "still here"}] * 2


@pytest.mark.parametrize("wrong", ["x", "-1", "1" * 40, "٣"])
def test_an_id_that_is_none(site: Site, wrong: str) -> None:
    assert ask(site, f"/api/v1/events?since={quote(wrong)}").error == "bad-request"
    with ExitStack() as stack:
        assert stream(site, stack, Last_Event_ID=wrong.encode().decode("latin-1")).status == 400


def test_one_listener_too_many_is_refused(site: Site, chronicle: Chronicle) -> None:
    with ExitStack() as stack:
        for _ in range(MAX_EVENT_STREAMS):
            block(stream(site, stack))
        refused = ask(site, PATH)
        assert (refused.status, refused.error) == (503, "too-many")
    wait_for(lambda: not chronicle._listeners, "the end of all")
    with ExitStack() as stack:
        assert stream(site, stack).status == 200


def test_listeners_take_nobody_elses_place(site: Site, chronicle: Chronicle) -> None:
    with ExitStack() as stack:
        answer = stream(site, stack)
        block(answer)
        for _ in range(MAX_HTTP_PEERS + 10):
            stream(site, stack, "/healthz").read()
        chronicle.write(status(), None)
        assert block(answer)["id"] == "1"


def test_listeners_are_gone_when_the_site_ends(chronicle: Chronicle) -> None:
    with ExitStack() as stack:
        with serving(views(chronicle=chronicle)) as site:
            answer = stream(site, stack)
            block(answer)
        assert not chronicle._listeners
        chronicle.write(status(), None)
