"""The attacks: each begins where its block is entered, and is over when that is left. `rng` chooses its strength;
what a block yields says which it was.

Two attacks of one `group` never go on at the same time: they change the same thing.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.siege import cameras, configurations, program
from tests.siege.stage import GREEDY, SMALL_DISK_BALLAST, Stage

Begin = Callable[[Stage, random.Random], AbstractContextManager[str]]


@dataclass(frozen=True, slots=True)
class Attack:
    """One kind of attack. An empty group is no group."""

    name: str
    group: str
    begin: Begin


ATTACKS: list[Attack] = []


def attack(name: str, group: str = "") -> Callable[[Callable[[Stage, random.Random], Iterator[str]]], Begin]:
    """Adds the function to the list."""

    def added(function: Callable[[Stage, random.Random], Iterator[str]]) -> Begin:
        begin = contextmanager(function)
        ATTACKS.append(Attack(name, group, begin))
        return begin

    return added


# --- who has no key ---


@attack("290 connections at a time")
def _crowd(stage: Stage, rng: random.Random) -> Iterator[str]:
    with program.running("ports", "crowd", port=stage.port, count=290, hold_s=rng.uniform(0.1, 3)):
        yield ""


@attack("connections at a rate")
def _knocking(stage: Stage, rng: random.Random) -> Iterator[str]:
    with program.running("ports", "knocking", port=stage.port, per_s=rng.uniform(20, 1000)):
        yield ""


@attack("damaged handshakes")
def _handshakes(stage: Stage, rng: random.Random) -> Iterator[str]:
    with program.running("ports", "handshakes", port=stage.port, seed=rng.randrange(1 << 30)):
        yield ""


@attack("HTTP to the ZeroMQ port")
def _web_requests(stage: Stage, rng: random.Random) -> Iterator[str]:
    with program.running("ports", "web_requests", port=stage.port, seed=rng.randrange(1 << 30)):
        yield ""


@attack("slow HTTP")
def _slow(stage: Stage, rng: random.Random) -> Iterator[str]:
    with program.running("ports", "slow", port=stage.web_port, count=rng.randint(9, 100)):
        yield ""


@attack("odd HTTP")
def _odd_requests(stage: Stage, rng: random.Random) -> Iterator[str]:
    with program.running("ports", "odd_requests", port=stage.web_port, seed=rng.randrange(1 << 30)):
        yield ""


# --- who has one ---


@attack("flood of subscriptions")
def _greedy(stage: Stage, rng: random.Random) -> Iterator[str]:
    size, hold_s = rng.choice((20, 200, rng.randint(1, 4000), 4000)), rng.uniform(0.5, 3)
    much = {"sockets": 8, "topics": 990, "size": size, "hold_s": hold_s}
    with program.running("peers", "greedy", **_access(stage), **much):
        yield f"of {size} bytes"


@attack("subscriptions made and given up")
def _toggling(stage: Stage, rng: random.Random) -> Iterator[str]:
    with ExitStack() as stack:
        for _ in range(rng.randint(1, 3)):
            stack.enter_context(program.running("peers", "toggling", **_access(stage)))
        yield ""


@attack("subscribers that stop reading")
def _stopping(stage: Stage, rng: random.Random) -> Iterator[str]:
    with ExitStack() as stack:
        for _ in range(rng.randint(1, 2)):
            stack.enter_context(program.running("peers", "stopping", **_access(stage)))
        yield ""


@attack("wrong keys")
def _unknown(stage: Stage, rng: random.Random) -> Iterator[str]:
    who = {"count": rng.randint(1, 40), "wrong_server": rng.random() < 0.5}
    with program.running("peers", "unknown", endpoint=stage.endpoint, server=stage.server_key, **who):
        yield ""


@attack("a key revoked and allowed", "list")
def _fickle(stage: Stage, rng: random.Random) -> Iterator[str]:
    whole = stage.allow.read_text()
    public = next(line.split()[0] for line in whole.splitlines() if line.endswith(f" {GREEDY}"))
    changes = {"allow": str(stage.allow), "name": GREEDY, "public": public, "every_s": rng.uniform(0.1, 1)}
    try:
        with ExitStack() as stack:
            stack.enter_context(program.running("peers", "listening", **_access(stage)))
            stack.enter_context(program.running("peers", "fickle", **changes))
            yield ""
    finally:
        stage.put_back(whole)


@attack("the allow list is no list", "list")
def _no_list(stage: Stage, rng: random.Random) -> Iterator[str]:
    with stage.without_list():
        yield configurations.spoil(stage.allow, stage.deal("lists", configurations.WAYS, rng)[0])


def _access(stage: Stage) -> dict[str, str]:
    return {"endpoint": stage.endpoint, "server": stage.server_key, "key": stage.key(GREEDY)}


# --- configurations ---


@attack("a storm of reloads", "configuration")
def _storm(stage: Stage, rng: random.Random) -> Iterator[str]:
    folder = configurations.prepared(stage)
    ways = {"pid": stage.process.pid, "path": str(stage.path), "folder": str(folder), "per_s": rng.uniform(2, 200)}
    try:
        with program.running("configurations", "storm", seed=rng.randrange(1 << 30), **ways):
            yield ""
    finally:
        stage.write()
        stage.reload()


@attack("a configuration that is none", "configuration")
def _no_configuration(stage: Stage, rng: random.Random) -> Iterator[str]:
    try:
        how = configurations.spoil(stage.path, stage.deal("files", configurations.WAYS, rng)[0])
        stage.reload()
        yield how
    finally:
        stage.write()
        stage.reload()


@attack("a hostile network", "configuration")
def _hostile_network(stage: Stage, rng: random.Random) -> Iterator[str]:
    (path,) = stage.deal("networks", stage.hostile_networks, rng)
    with stage.changed(stage.text(model={"path": path})):
        yield Path(path).stem


@attack("pictures of 8000 × 6000", "configuration")
def _big_pictures(stage: Stage, rng: random.Random) -> Iterator[str]:
    source = {"uri": stage.picture(), "loop": True, "fps": rng.choice((1, 5, 30))}
    with stage.with_sources(**{f"big{number}": source for number in range(rng.randint(1, 4))}):
        yield ""


@attack("hostile cameras", "configuration")
def _hostile_cameras(stage: Stage, rng: random.Random) -> Iterator[str]:
    with ExitStack() as stack:
        kinds = stage.deal("cameras", cameras.KINDS, rng, 3)
        urls = [stack.enter_context(cameras.hostile(kind, rng.randrange(99), str(stage.clip))) for kind in kinds]
        stack.enter_context(stage.with_sources(**{f"new{number}": {"uri": url} for number, url in enumerate(urls)}))
        yield ", ".join(kinds)


@attack("cameras that flood", "configuration")
def _flooding(stage: Stage, rng: random.Random) -> Iterator[str]:
    source = {"uri": "demo:", "width": 160, "height": 90, "fps": rng.choice((100, 1000))}
    with stage.with_sources(**{f"flood{number}": source for number in range(rng.randint(1, 3))}):
        yield ""


# --- the machine ---


@attack("processes killed", "children")
def _killed(stage: Stage, rng: random.Random) -> Iterator[str]:
    what = {"daemon": stage.process.pid, "seed": rng.randrange(1 << 30), "every_s": rng.uniform(0.2, 3)}
    with program.running("children", "kill", **what):
        yield ""


@attack("processes stopped", "children")
def _stopped(stage: Stage, rng: random.Random) -> Iterator[str]:
    what = {"daemon": stage.process.pid, "seed": rng.randrange(1 << 30), "every_s": rng.uniform(0.5, 3)}
    with program.running("children", "stop", **what):
        yield ""


@attack("a full disk", "disk")
def _full_disk(stage: Stage, rng: random.Random) -> Iterator[str]:
    if stage.disk is None:
        yield ""
        return
    ballast = stage.disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        for _ in range(SMALL_DISK_BALLAST >> 12):
            file.write(os.urandom(4096))  # full, in the end
    try:
        yield ""
    finally:
        with contextlib.suppress(FileNotFoundError):
            ballast.unlink()
