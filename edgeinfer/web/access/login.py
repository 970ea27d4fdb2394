"""Sessions of people who have logged in, and how often somebody may try. All of it in memory, and bounded."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from edgeinfer.guard.limits import ALL_LOGIN_TRIES, LOGIN_TRIES, MAX_COOKIE_BYTES, MAX_SESSIONS
from edgeinfer.web.access.tokens import Token

LIFE_S = 12 * 3600
WINDOW_S = 60.0
PREFIX = "eis_"
_ID = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
MAX_IDS = 4
"""Cookies of our name that one request may bring: another server on this machine may have set some."""


@dataclass(frozen=True, slots=True)
class Session:
    """One browser's. `key` is the hash of what its cookie holds."""

    key: str
    token: Token
    until_s: float


class Sessions:
    """Who has logged in. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, Session] = {}  # the oldest first

    def begin(self, token: Token) -> tuple[Session, str]:
        """A new session, and what its cookie holds: never anything that came from the browser.

        Where there are too many the oldest of the token that has most gives way.
        """
        identity = PREFIX + secrets.token_urlsafe(32)
        session = Session(_hash(identity), token, self._clock() + LIFE_S)
        with self._lock:
            self._expire()
            self._open[session.key] = session
            if len(self._open) > MAX_SESSIONS:
                self._open.pop(self._superfluous())
        return session, identity

    def find(self, identities: Iterable[str]) -> Session | None:
        """The first of these that is a session."""
        for identity in identities:
            session = self._open.get(_hash(identity))
            if session is not None and self.is_open(session):
                return session
        return None

    def is_open(self, session: Session) -> bool:
        """Whether it has not ended."""
        found = self._open.get(session.key)
        return found is not None and hmac.compare_digest(found.key, session.key) and self._clock() < found.until_s

    def end(self, session: Session) -> None:
        """Logs it out."""
        with self._lock:
            self._open.pop(session.key, None)

    def _expire(self) -> None:
        now = self._clock()
        for key in [key for key, session in self._open.items() if session.until_s <= now]:
            del self._open[key]

    def _superfluous(self) -> str:
        most = Counter(session.token.name for session in self._open.values()).most_common(1)[0][0]
        return next(key for key, session in self._open.items() if session.token.name == most)


class Tries:
    """Wrong tries of the last minute: so many from one address, and so many in all. Thread-safe.

    An IPv6 address counts as its /64, which is one customer's.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._wrong: deque[tuple[float, str]] = deque(maxlen=ALL_LOGIN_TRIES)  # the oldest first

    def take(self, address: str) -> float:
        """How many seconds to wait; 0 where this one may try, which counts as wrong until it is `forgiven`."""
        origin = network(address)
        with self._lock:
            now = self._clock()
            while self._wrong and now - self._wrong[0][0] >= WINDOW_S:
                self._wrong.popleft()
            own = [since for since, other in self._wrong if other == origin]
            if len(own) >= LOGIN_TRIES:
                return own[-LOGIN_TRIES] + WINDOW_S - now
            if len(self._wrong) >= ALL_LOGIN_TRIES:
                return self._wrong[0][0] + WINDOW_S - now
            self._wrong.append((now, origin))
            return 0.0

    def forgive(self, address: str) -> None:
        """The newest try from there was a right one."""
        origin = network(address)
        with self._lock:
            for index in reversed(range(len(self._wrong))):
                if self._wrong[index][1] == origin:
                    del self._wrong[index]
                    return


def network(address: str) -> str:
    """What counts as one address."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if not isinstance(found, IPv6Address):
        return str(found)
    return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))


def identities(header: str, name: str) -> Iterator[str]:
    """What a Cookie header says of our cookie, as far as it has the form of ours."""
    if len(header) > MAX_COOKIE_BYTES:
        return
    found = (pair.strip().partition("=") for pair in header.split(";"))
    values = [value for key, _, value in found if key == name and _ID.fullmatch(value)]
    yield from values[:MAX_IDS]


def _hash(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()
