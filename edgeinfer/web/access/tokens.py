"""Tokens: 256-bit secrets that let a person or a program look at the page, or change things there.

A secret is shown once, when it is made. The file keeps a line for each, `ROLE:NAME:SHA-256 in hex`; one that begins
with # is a comment. Who reads the file learns no token, but it is kept as a secret all the same, since whoever can
write it is an admin.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from edgeinfer.errors import TEMPORARY, ConfigError, InputError, TemporaryError, UsageError, unreadable
from edgeinfer.guard.files import in_time
from edgeinfer.guard.limits import MAX_TOKEN_FILE_BYTES, MAX_TOKENS
from edgeinfer.guard.outputs import same_file
from edgeinfer.guard.ownership import folder_writers
from edgeinfer.transport.guarded import check_owned, read_owned

log = logging.getLogger(__name__)

Role = Literal["viewer", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

PREFIX = "eit_"
"""So that a token is known for one wherever it lies: `guard/credentials.py` takes such words out of every text."""
PATIENCE_S = 5.0
"""A file that can't be looked at for so long lets nobody in, and those who are in no further."""
WAIT_S, TICK_S = 5.0, 0.05
"""How long a command waits for another that changes the same file."""

MAKES_ONE = "edgeinfer web token new --file FILE makes one"
_SECRET = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
_LINE = re.compile(r"(viewer|admin):([A-Za-z0-9._@-]{1,64}):([0-9a-f]{64})")
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")


@dataclass(frozen=True, slots=True)
class Token:
    """A line of the file."""

    role: Role
    name: str
    digest: str


def mint() -> str:
    """A fresh secret of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What the file keeps of it. A plain hash is enough: nobody guesses 256 bits, however fast he hashes."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matching(secret: str, tokens: Iterable[Token]) -> Token | None:
    """The token with this secret. All of them are looked at, in a time that tells nothing of which was nearly right.

    What has not the form of our secrets is none, whatever the file says: a short word that somebody hashed by hand.
    """
    if not _SECRET.fullmatch(secret):
        return None
    wanted, found = digest(secret), None
    for token in tokens:
        if hmac.compare_digest(token.digest, wanted):
            found = token
    return found


def read(path: Path) -> tuple[Token, ...]:
    """The tokens in a file, in its order. Raises InputError or TemporaryError where it can't be read, ConfigError where
    it is none, or others may read or write it.
    """
    try:
        return parse(in_time(lambda: read_here(path)), path)
    except OSError as error:  # the others have become errors of ours
        raise unreadable(path, error) from None


def add(path: Path, role: Role, name: str | None = None) -> tuple[Token, str]:
    """Makes a token and writes its line into the file, which is made where it is missing. The token and its secret.

    Without a name it is called as its role, with a number where that is taken. Raises UsageError for a name that is
    taken or none, TemporaryError where the file can't be written, and what `read` raises.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} can't name a token", "letters, digits and . _ @ - can")
    with _held(path) as (real, text):
        known = parse(text, path)
        if len(known) >= MAX_TOKENS:
            raise UsageError(f"{path}: holds {MAX_TOKENS} tokens, and no more", "revoke some: edgeinfer web token ls")
        taken = {token.name for token in known}
        if name in taken:
            raise UsageError(f"{path}: another token is called {name!r}", "give another --name, or revoke that one")
        secret = mint()
        token = Token(role, name or _free(role, taken), digest(secret))
        ended = text if not text or text.endswith("\n") else f"{text}\n"
        _replace(real, f"{ended}{token.role}:{token.name}:{token.digest}\n")
    return token, secret


def revoke(path: Path, name: str) -> Token:
    """Takes the token with this name out of the file. Comments and the other lines stay as they are.

    Raises UsageError where there is none, and what `add` raises.
    """
    read(path)  # one that is missing is not made
    with _held(path) as (real, text):
        found = next((token for token in parse(text, path) if token.name == name), None)
        if found is None:
            raise UsageError(f"{path}: no token is called {name!r}", f"see edgeinfer web token ls --file {path}")
        kept = [line for line in text.splitlines(keepends=True) if f":{found.digest}" not in line]
        _replace(real, "".join(kept))
    return found


def parse(text: str, path: Path) -> tuple[Token, ...]:
    """Raises ConfigError."""
    found: dict[str, Token] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise ConfigError(f"{path}, line {number}: not ROLE:NAME:HASH", MAKES_ONE)
        if match[2] in found:
            raise ConfigError(f"{path}, line {number}: a second token is called {match[2]!r}", "give it another name")
        found[match[2]] = Token("admin" if match[1] == "admin" else "viewer", match[2], match[3])
    if len(found) > MAX_TOKENS:
        raise ConfigError(f"{path}: holds more than {MAX_TOKENS} tokens", "revoke some: edgeinfer web token ls")
    return tuple(found.values())


class TokenList:
    """The tokens of a file, while the daemon runs: somebody has to `refresh` them each second.

    One that is revoked counts no more after that. Nobody is let in by a file that is damaged or that others may write,
    nor by one that could not be looked at for PATIENCE_S: it is gone, or its disk hangs. Thread-safe.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises what `read` raises: a wrong file is found at the start, not when the first person comes."""
        self.path, self._clock = path, clock
        self._tokens: Mapping[Token, None] = dict.fromkeys(read(path))
        self._text: str | None = None
        self._looked_s = clock()
        self.error = ""
        if not self._tokens:
            log.warning("web: %s holds no token, so that nobody can log in; edgeinfer web token new makes one", path)

    @property
    def tokens(self) -> Mapping[Token, None]:
        """Those that count now, in their order."""
        return self._tokens if self._clock() - self._looked_s <= PATIENCE_S else {}

    def find(self, secret: str) -> Token | None:
        """The token with this secret."""
        return matching(secret, self.tokens)

    def known(self, token: Token) -> bool:
        """Whether this one still counts, with the role that it had."""
        return token in self.tokens

    def refresh(self) -> None:
        """Looks at the file. May take as long as its disk does, so that it is called on a thread of its own."""
        now = self._clock()
        try:
            text = read_here(self.path)
            if text != self._text:
                self._tokens = dict.fromkeys(parse(text, self.path))
            self._text, self._looked_s, error = text, now, ""
        except ConfigError as said:  # of what is in the file, or whose it is
            self._tokens, self._text, self._looked_s, error = {}, None, now, str(said)
        except Exception as said:  # it may be there again in a moment; until then it counts as it was, but not for long
            error = str(said)
        if error and error != self.error:
            log.warning("web: %s; nobody is let in", error)
        self.error = error


def read_here(path: Path) -> str:
    """The file's text, for as long as the disk takes, once it is clear that nobody else could have written it.

    Raises InputError, ConfigError, TemporaryError.
    """
    try:
        data = read_owned(path, MAX_TOKEN_FILE_BYTES, lambda status: _check(path, status))
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in TEMPORARY:
            raise unreadable(path, error) from None
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: {reason}", MAKES_ONE) from None
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a file of tokens", "is this the right file?") from None


def _check(path: Path, status: os.stat_result) -> None:
    """A link counts as the file behind it, but nobody else may have put it there: it could name an older list."""
    check_owned(path, status, secret=True)
    if path.lstat().st_uid not in {os.geteuid(), 0}:
        raise ConfigError(f"{path}: this link belongs to somebody else", "name the file itself")
    _check_folders(path)


def _check_folders(path: Path) -> None:
    for folder in (path.absolute().parent, path.resolve().parent):
        if who := folder_writers(folder):
            raise ConfigError(f"{path}: others could replace it, in {folder}: {who}", "choose a folder of yours")


@contextlib.contextmanager
def _held(path: Path) -> Iterator[tuple[Path, str]]:
    """The file itself behind any link, and its text, held against other commands that change it."""
    try:
        real = path.resolve()
        _check_folders(path)
        with contextlib.closing(_Hold(real)):
            yield real, read_here(real)
    except OSError as error:
        raise _unwritable(path, error) from None


class _Hold:
    """A lock on a file, which is made where it is missing. Whoever waited for it may hold one that was replaced."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, TemporaryError."""
        until_s = time.monotonic() + WAIT_S
        while True:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
            if self._locked() and same_file(path, self._descriptor):
                return
            self.close()
            if time.monotonic() > until_s:
                raise TemporaryError(f"{path}: another command is changing it", "try again")
            time.sleep(TICK_S)

    def close(self) -> None:
        """Lets go of it."""
        os.close(self._descriptor)

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _replace(path: Path, text: str) -> None:
    """Whole or not at all, and for good; owner and mode stay as they are. Raises OSError."""
    before = path.stat()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            if os.geteuid() == 0:
                os.fchown(descriptor, before.st_uid, before.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unwritable(path: Path, error: OSError) -> TemporaryError:
    return TemporaryError(f"{path}: can't be written ({error.strerror})", "choose a folder of yours with room in it")


def _free(role: Role, taken: set[str]) -> str:
    names = (role if number == 1 else f"{role}-{number}" for number in range(1, MAX_TOKENS + 2))
    return next(name for name in names if name not in taken)
