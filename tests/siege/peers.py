"""Attacks by who has a key, or another one: subscribers that want too much, change their minds, or stop. Programs."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import zmq

from edgeinfer.client import Subscriber
from edgeinfer.transport import keys


def _socket(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, server: str, pair: keys.KeyPair
) -> zmq.Socket[bytes]:
    peer = context.socket(zmq.SUB)
    peer.setsockopt(zmq.LINGER, 0)
    peer.setsockopt(zmq.CURVE_SERVERKEY, server.encode())
    peer.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode())
    peer.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
    peer.connect(endpoint)
    return peer


def greedy(endpoint: str, server: str, key: str, sockets: int, topics: int, size: int, hold_s: float) -> None:
    """An allowed key that subscribes to so many random topics on so many sockets, leaves, and comes back."""
    pair = keys.read_pair(Path(key))
    while True:
        with zmq.Context() as context, ExitStack() as stack:
            for _ in range(sockets):
                peer = stack.enter_context(_socket(context, endpoint, server, pair))
                for _ in range(topics):
                    peer.setsockopt(zmq.SUBSCRIBE, os.urandom(size))
            time.sleep(hold_s)


def toggling(endpoint: str, server: str, key: str) -> None:
    """An allowed key that subscribes to everything, and gives it up, and does so again."""
    with zmq.Context() as context, _socket(context, endpoint, server, keys.read_pair(Path(key))) as peer:
        for number in itertools.count():
            peer.setsockopt(zmq.UNSUBSCRIBE if number % 2 else zmq.SUBSCRIBE, b"edgeinfer/")
            time.sleep(0.001)


def stopping(endpoint: str, server: str, key: str) -> None:
    """An allowed subscriber that stops reading once it has heard something."""
    with Subscriber(endpoint, server_key=server, key=key, kinds=("detections", "status", "info")) as subscriber:
        subscriber.receive()
        os.kill(os.getpid(), signal.SIGSTOP)


def listening(endpoint: str, server: str, key: str) -> None:
    """A subscriber like any other, for whom the list is changed."""
    with Subscriber(endpoint, server_key=server, key=key, kinds=("detections", "status", "info")) as subscriber:
        for _ in subscriber:
            pass


def unknown(endpoint: str, server: str, count: int, wrong_server: bool) -> None:
    """So many clients at a time with keys of their own making, or that take the daemon for another one."""
    while True:
        with zmq.Context() as context, ExitStack() as stack:
            for _ in range(count):
                key = keys.generate().public if wrong_server else server
                peer = stack.enter_context(_socket(context, endpoint, key, keys.generate()))
                peer.setsockopt(zmq.SUBSCRIBE, b"")
            time.sleep(0.5)


def fickle(allow: str, name: str, public: str, every_s: float) -> None:
    """Takes a key off the list, and puts it back, without an end. Ends with the key wherever it is."""
    while True:
        for change in (
            lambda: keys.revoke(Path(allow), name),
            lambda: keys.allow(Path(allow), keys.Client(public, name)),
        ):
            change()
            time.sleep(every_s * random.uniform(0.5, 1.5))
