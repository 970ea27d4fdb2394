"""The door of the publisher: a thread that knows who comes and goes, lets in who may, and ends who must not stay.

It answers libzmq's questions (ZAP, ZeroMQ RFC 27) and listens to the socket's monitor. With or without CURVE every
connection is asked for: without a ZAP domain libzmq would take an HTTP request for a subscriber of ZeroMQ 2, from 2011,
and send it everything.
"""

from __future__ import annotations

import heapq
import logging
import math
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import zmq

from edgeinfer.guard.rate import RationedLog
from edgeinfer.transport.admission import Pace, places
from edgeinfer.transport.allowlist import AllowList
from edgeinfer.transport.listwatch import REFRESH_S, ListWatch
from edgeinfer.transport.peers import Peers
from edgeinfer.transport.subscription import user_id
from edgeinfer.transport.zap import Question, answer, read_question

log = logging.getLogger(__name__)

DOMAIN = "edgeinfer"
"""Without a ZAP domain libzmq lets in any client that knows the server's public key (zmq_setsockopt(3))."""
WATCH_S = 0.005
"""How long the publisher may be inside of ZeroMQ before those who keep it there are looked for."""
CALM_S, STIR_S = 0.05, 2.0
"""How long it waits where nothing has come for so long; otherwise twice `WATCH_S`."""
PAUSE_S = 0.001
BATCH = 100
"""So many events, then a pause: a flood must not keep the interpreter from the other threads."""
BACKLOG = 10_000
"""Events of the monitor that may wait. Beyond, ZeroMQ's own thread waits: no event is ever lost."""
MAX_REFUSED = 256
"""Refused keys that are remembered."""
END_S = 5.0
"""How long the end waits for the thread, which waits for nobody."""
_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_MONITOR_STOPPED


class Door:
    """Made before the socket is bound. `allowed` is the list of clients, None without CURVE.

    `peers` is the book. The publisher sets `inside_s` while it is in a call of its socket, and
    `stirred_s` when a subscription came.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], owner: zmq.Socket[bytes], allowed: AllowList | None = None
    ) -> None:
        self._owner, self._allowed = owner, allowed
        self._pace = Pace(time.monotonic)
        self._said = RationedLog(log)
        room = places()
        self.peers = Peers(room, self._pace, None if allowed is None else self._may_subscribe)
        self.inside_s = self.stirred_s = 0.0
        self.error: BaseException | None = None
        self._serial = 0
        self._late: list[tuple[float, int, Question, str]] = []
        self._asked: deque[tuple[int, Question]] = deque()
        self._room = room.peers + room.strangers
        self._next_refresh_s = 0.0
        self._told_error = ""
        self._refused: set[str] = set()
        self._questions = context.socket(zmq.ROUTER)
        self._questions.bind("inproc://zeromq.zap.01")
        owner.setsockopt_string(zmq.ZAP_DOMAIN, DOMAIN)
        owner.setsockopt(zmq.BACKLOG, room.strangers)  # the rest waits outside, and costs no descriptor
        owner.monitor(f"inproc://edgeinfer.monitor.{id(owner)}", _EVENTS)
        self._monitor = context.socket(zmq.PAIR)
        self._monitor.setsockopt(zmq.RCVHWM, BACKLOG)
        self._monitor.connect(f"inproc://edgeinfer.monitor.{id(owner)}")
        self._poller = zmq.Poller()
        for socket in (self._monitor, self._questions):
            self._poller.register(socket, zmq.POLLIN)
        self._ended = False
        self._watch = None if allowed is None else ListWatch(allowed)
        self._thread = threading.Thread(target=self._live, name="door", daemon=True)
        self._thread.start()

    def close(self) -> bool:
        """Ends the thread; false where it is still there after a while. Call it before the socket is closed."""
        self._owner.disable_monitor()
        self._thread.join(END_S)
        if self._watch is not None:
            self._watch.close()
        return not self._thread.is_alive()

    @property
    def waited_s(self) -> float:
        """How long it has kept the publisher waiting for the list, all in all."""
        return 0.0 if self._watch is None else self._watch.waited_s

    def refresh(self) -> None:
        """Cuts those who are not on the list any more."""
        if self._allowed is None:
            return
        if self._allowed.error and self._allowed.error != self._told_error:
            log.warning("publish.curve.allow: %s; nobody is let in", self._allowed.error)
        self._told_error = self._allowed.error
        self.peers.keep(self._allowed)

    def _live(self) -> None:
        try:
            while not self._ended:
                ready = self._wait()
                if self._monitor in ready:
                    self._listen()
                if self._questions in ready:
                    self._answer_questions()
                self._answer_asked()
                self._answer_late()
                self._tick()
        except BaseException as error:
            log.exception("the publisher's door: unexpected error")
            self.error = error
            self._drain()
        finally:
            self._monitor.close(linger=0)
            self._questions.close(linger=0)
            self._said.settle(final=True)
            self.peers.close()

    def _drain(self) -> None:
        """ZeroMQ's own thread waits for room among the events, and so would the end."""
        while struct.unpack_from("=H", self._monitor.recv_multipart()[0])[0] != zmq.EVENT_MONITOR_STOPPED:
            pass

    def _wait(self) -> set[zmq.Socket[bytes]]:
        """Who has something to say. While there are changes it looks at the publisher often."""
        now = time.monotonic()
        pause_s = REFRESH_S
        if self.peers.count:
            pause_s = 2 * WATCH_S if now - self.stirred_s < STIR_S else CALM_S
        if self._asked:
            pause_s = WATCH_S
        elif self._late:
            pause_s = min(pause_s, max(0.0, self._late[0][0] - now))
        ready = {socket for socket, _ in self._poller.poll(math.ceil(pause_s * 1000))}
        if ready:
            self.stirred_s = time.monotonic()
        return ready

    def _listen(self) -> None:
        with suppress(zmq.Again):
            for _ in range(BATCH):
                event, descriptor = struct.unpack("=HI", self._monitor.recv_multipart(zmq.NOBLOCK)[0])
                if event == zmq.EVENT_ACCEPTED:
                    self.peers.arrived(descriptor)
                elif event == zmq.EVENT_DISCONNECTED:
                    self.peers.left(descriptor)
                else:
                    self._ended = True
            time.sleep(PAUSE_S)

    def _answer_questions(self) -> None:
        with suppress(zmq.Again):
            for _ in range(BATCH):
                question = read_question(self._questions.recv_multipart(zmq.NOBLOCK))
                if question is not None:
                    self._consider(question)

    def _consider(self, question: Question) -> None:
        """With a list, it is looked at first: who was allowed a moment ago comes in, who was revoked does not."""
        if self._watch is None:
            self._decide(question)
        elif len(self._asked) < self._room:  # else the handshake's deadline ends it
            self._asked.append((self._watch.ask(), question))

    def _answer_asked(self) -> None:
        while self._watch is not None and self._asked and self._asked[0][0] <= self._watch.looked:
            self._decide(self._asked.popleft()[1])

    def _decide(self, question: Question) -> None:
        if not self._may_enter(question):
            self._send(answer(question, "400", ""))
            return
        wait_s = self._pace.wait_s(question.key or question.address)
        if wait_s is None:  # the handshake's deadline ends it
            self._said.warning("late", "publish: too many connections of %s at once", question.address)
            return
        self._serial += 1
        heapq.heappush(
            self._late, (time.monotonic() + wait_s, self._serial, question, user_id(self._serial, question.key))
        )

    def _answer_late(self) -> None:
        while self._late and self._late[0][0] <= time.monotonic():
            _, _, question, user = heapq.heappop(self._late)
            self._send(answer(question, "200", user))

    def _may_enter(self, question: Question) -> bool:
        """Whether the holder of this key may come in; without CURVE whoever uses none."""
        if question.domain != DOMAIN:
            return False
        if self._allowed is None:
            return question.mechanism == "NULL"
        if question.mechanism != "CURVE":
            return False
        if not self._allowed.is_current:  # which the log tells
            return False
        if not self._is_allowed(question.key):
            self._tell_refused(question.key)
            return False
        return True

    def _is_allowed(self, key: str) -> bool:
        return self._allowed is not None and key in self._allowed

    def _may_subscribe(self, key: str) -> bool:
        """For the publisher, who may wait a moment: a key revoked before its first subscription gets nothing."""
        if self._watch is not None:
            self._watch.look()
        return self._is_allowed(key)

    def _tell_refused(self, key: str) -> None:
        """Of each key once, as far as they are remembered: a client that is refused comes again every second."""
        if key in self._refused:
            return
        if len(self._refused) >= MAX_REFUSED:
            self._refused.clear()
        self._refused.add(key)
        self._said.warning("refused clients", "publish: a client was refused, its key %s is not on the list", key)

    def _tick(self) -> None:
        now = time.monotonic()
        inside_s = self.inside_s
        if inside_s and now - inside_s > WATCH_S:
            self.peers.stem()
        elif now >= self._next_refresh_s:
            self.peers.sweep()
        if self._watch is not None and self._watch.is_news:
            self._watch.is_news = False
            self._next_refresh_s = now
        if now >= self._next_refresh_s:
            self._next_refresh_s = now + REFRESH_S
            self._said.settle()
            self.refresh()

    def _send(self, frames: Sequence[bytes]) -> None:
        with suppress(zmq.ZMQError):  # who has gone needs no answer
            self._questions.send_multipart(frames, zmq.NOBLOCK)
