"""Who may do what: every request and every WebSocket is asked about here, once, before anything else looks at it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Literal

from edgeinfer.errors import unreadable
from edgeinfer.guard.rate import RationedLog
from edgeinfer.web.access import origin
from edgeinfer.web.access.login import LIFE_S, Session, Sessions, Tries, identities
from edgeinfer.web.access.tls import Certificate
from edgeinfer.web.access.tokens import MAKES_ONE, Token, TokenList

log = logging.getLogger(__name__)

REFRESH_S = 1.0
END_S = 1.0
"""How long the end waits for the thread, which goes by itself when its disk has answered."""

Standing = Literal["local", "viewer", "admin", "nobody"]

PUBLIC = frozenset({"/", "/healthz", "/readyz", "/login", "/logout", "/favicon.ico"})
"""What needs no right: the page itself, which holds nothing of what it shows, and what a service manager asks."""
STATIC = "/static/"
READING = frozenset({"GET", "HEAD"})
TAKING_NOTHING = PUBLIC - {"/login", "/logout"}
ONLY_LOOKING = frozenset({"/api/v1/config/check"})
"""What is sent, and changes nothing."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of a request. Header names are in lower case; several of one name are joined as HTTP has it."""

    method: str
    path: str
    address: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    websocket: bool = False

    def header(self, name: str) -> str:
        """Empty where it was not sent."""
        return self.headers.get(name, "")


@dataclass(frozen=True, slots=True)
class Grant:
    """Who asks. `local` is everybody on this machine, where there are no tokens; `nobody` may have what is public."""

    role: Standing
    token: Token | None = None
    session: Session | None = None

    @property
    def is_admin(self) -> bool:
        """Whether this one may change things."""
        return self.role == "admin"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not, in a sentence, and what helps. `close` is a WebSocket's code for it."""

    status: int
    code: str
    text: str
    hint: str = ""
    retry_after_s: int | None = None

    @property
    def close(self) -> int:
        """4401 no rights, 4403 somebody else's page; beyond a browser's reach until the WebSocket is open."""
        return 4403 if self.code in ("foreign-origin", "misdirected") else 4401

    @property
    def headers(self) -> dict[str, str]:
        """What belongs to the answer beside its body."""
        found = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        return found if self.retry_after_s is None else {**found, "Retry-After": str(self.retry_after_s)}

    @property
    def body(self) -> dict[str, dict[str, str]]:
        """The JSON of every error of the API."""
        return {"error": {"code": self.code, "text": self.text, "hint": self.hint}}


@dataclass(frozen=True, slots=True)
class Welcome:
    """A log-in that went well: who it is, and the Set-Cookie header."""

    grant: Grant
    cookie: str = field(repr=False)


class Access:
    """Asked by the site, on any thread; nothing here waits for a disk but the thread between `start` and `close`.

    `local` says that only this machine reaches the server; without `tokens` everybody there may look. `port` is where
    it listens, as soon as that is known.
    """

    def __init__(
        self,
        local: bool,
        tokens: TokenList | None = None,
        certificate: Certificate | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.certificate, self.port = certificate, 0
        self._local, self._tokens = local, tokens
        self._scheme = "https" if certificate else "http"
        self._sessions, self._tries = Sessions(clock), Tries(clock)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="web-files", daemon=True)
        self._rationed = RationedLog(log)

    @property
    def cookie_name(self) -> str:
        """With the port, since a browser has the same cookies for all servers of a host, and would mix two of ours up.

        With TLS no server without it can set one of this name.
        """
        return f"{'__Host-' if self.certificate else ''}edgeinfer_session_{self.port}"

    def start(self) -> None:
        """Looks at the files of tokens and of the certificate each second from now on."""
        if self._tokens is not None or self.certificate is not None:
            self._thread.start()

    def close(self) -> None:
        """Ends the thread; waits a second for it at most."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(END_S)
        self._rationed.settle(final=True)

    def grant(self, asked: Asked) -> Grant | Refusal:
        """Who asks, if this one may have what is asked for."""
        return self._foreign(asked) or self._unfit(asked) or self._allowed(asked)

    def still(self, grant: Grant) -> bool:
        """Whether a grant holds: its token is still in the file, and its session has not ended. Ask at each message."""
        if grant.token is None:
            return self._tokens is None or grant.role == "nobody"
        known = self._tokens is not None and self._tokens.known(grant.token)
        return known and (grant.session is None or self._sessions.is_open(grant.session))

    def login(self, asked: Asked, secret: str) -> Welcome | Refusal:
        """A new session for whoever has the token; the one that the browser had before ends.

        Whatever an address tries too often is refused unseen.
        """
        if self._tokens is None:
            text = "there are no tokens here: everybody on this machine may look"
            return Refusal(409, "no-tokens", text, f"{MAKES_ONE}; then write token: FILE under http")
        wait_s = self._tries.take(asked.address)
        if wait_s:
            text = f"too many wrong tokens; the next may be tried in {ceil(wait_s)} s"
            return Refusal(429, "too-many-tries", text, retry_after_s=ceil(wait_s))
        token = self._tokens.find(secret.strip())
        if token is None:
            self._rationed.warning("wrong tokens", "web: a wrong token from %s", asked.address)
            return Refusal(401, "wrong-token", "this is no token of this server", "edgeinfer web token ls shows them")
        self._tries.forgive(asked.address)
        self.logout(asked)
        session, identity = self._sessions.begin(token)
        log.info("web: %s (%s) has logged in from %s", token.name, token.role, asked.address)
        return Welcome(Grant(token.role, token, session), self._cookie(identity, LIFE_S))

    def logout(self, asked: Asked) -> str:
        """Ends the browser's session, if it has one. The Set-Cookie header that takes its cookie."""
        session = self._session(asked)
        if session is not None:
            self._sessions.end(session)
        return self._cookie("", 0)

    def _foreign(self, asked: Asked) -> Refusal | None:
        """Host, Origin and Sec-Fetch-Site."""
        host, source = asked.header("host"), asked.headers.get("origin")
        if self._local and not origin.is_local_host(host):
            text = "this server answers to addresses and to localhost only"
            return Refusal(421, "misdirected", text, "open it as http://127.0.0.1:PORT/")
        if not self._local and host and origin.place(host) is None:
            return Refusal(421, "misdirected", "this is no name of a server")
        if source is not None and not origin.is_same_origin(source, host, self._scheme):
            return Refusal(
                403, "foreign-origin", "another web page asked for this", "open the page of this server itself"
            )
        if not asked.websocket and self._is_foreign_fetch(asked):
            return Refusal(403, "foreign-origin", "another web page asked for this", "open it in a window of its own")
        return None

    def _is_foreign_fetch(self, asked: Asked) -> bool:
        found = (asked.header(f"sec-fetch-{name}").lower() for name in ("site", "mode", "dest"))
        return origin.is_foreign_fetch(asked.method, *found)

    def _unfit(self, asked: Asked) -> Refusal | None:
        """A form of another page can be sent without asking, but not as JSON."""
        kind = asked.header("content-type").partition(";")[0].strip().lower()
        if asked.method == "POST" and asked.path not in TAKING_NOTHING and kind != "application/json":
            return Refusal(415, "wrong-type", "a POST is JSON here", "send Content-Type: application/json")
        return None

    def _allowed(self, asked: Asked) -> Grant | Refusal:
        found = self._who(asked)
        if is_public(asked):
            return found if isinstance(found, Grant) else Grant("nobody")
        if isinstance(found, Refusal):
            return found
        return found if found.is_admin or not needs_admin(asked) else self._no_admin(found)

    def _who(self, asked: Asked) -> Grant | Refusal:
        if self._tokens is None:
            return Grant("local")
        scheme, _, secret = asked.header("authorization").partition(" ")
        if scheme.lower() == "bearer":
            token = self._tokens.find(secret.strip())
            if token is not None:
                return Grant(token.role, token)
            self._rationed.warning("wrong tokens", "web: a wrong token from %s", asked.address)
            return Refusal(401, "wrong-token", "this is no token of this server", "edgeinfer web token ls shows them")
        session = self._session(asked)
        if session is not None and self._tokens.known(session.token):
            return Grant(session.token.role, session.token, session)
        return Refusal(401, "unauthorized", "this needs a token", f"log in at /, or send one as a Bearer; {MAKES_ONE}")

    def _session(self, asked: Asked) -> Session | None:
        return self._sessions.find(identities(asked.header("cookie"), self.cookie_name))

    def _no_admin(self, grant: Grant) -> Refusal:
        make = "edgeinfer web token new --admin --file FILE"
        if grant.token is None:
            hint = f"{make} makes one; then write token: FILE under http, and start again"
            return Refusal(403, "forbidden", "changing things needs an admin token, and there is no token file", hint)
        text = f"the token {grant.token.name!r} may look, and not change anything"
        return Refusal(403, "forbidden", text, f"log in with an admin token; {make} makes one")

    def _cookie(self, value: str, life_s: int) -> str:
        secure = "; Secure" if self.certificate else ""
        return f"{self.cookie_name}={value}; Max-Age={life_s}; Path=/; HttpOnly; SameSite=Strict{secure}"

    def _live(self) -> None:
        while not self._ended.wait(REFRESH_S):
            if self._tokens is not None:
                self._tokens.refresh()
            if self.certificate is not None:
                self.certificate.refresh()
            self._rationed.settle()


def is_public(asked: Asked) -> bool:
    """Whether this needs no right."""
    return not asked.websocket and (asked.path in PUBLIC or asked.path.startswith(STATIC))


def needs_admin(asked: Asked) -> bool:
    """Whether this changes something: whatever is no mere question, so that what is added is the admin's by itself."""
    return not asked.websocket and asked.method not in READING and asked.path not in ONLY_LOOKING


def open_access(
    local: bool, token: str | None, tls: tuple[str, str] | None, clock: Callable[[], float] = time.monotonic
) -> Access:
    """What the settings `http.token` and `http.tls` ask for. Raises InputError, ConfigError, TemporaryError."""
    try:
        tokens = None if token is None else TokenList(Path(token), clock)
        certificate = None if tls is None else Certificate(Path(tls[0]), Path(tls[1]))
    except OSError as error:  # a disk that does not answer
        raise unreadable(error.filename or "http.token or http.tls", error) from None
    return Access(local, tokens, certificate, clock)
