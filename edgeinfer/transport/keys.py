"""CURVE keys: the files that hold them, and the list of clients that a daemon lets in.

`NAME.key` holds a pair and is for its owner alone; `NAME.pub` is one line, `KEY NAME`, and an allow list is such lines.
A key is 40 characters of Z85 (ZeroMQ RFC 32). A line that begins with `# ` is a comment; `#` alone may begin a key.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from edgeinfer.errors import (
    TEMPORARY,
    ConfigError,
    InputError,
    TemporaryError,
    UnavailableError,
    UsageError,
    unreadable,
)
from edgeinfer.guard.files import in_time
from edgeinfer.guard.limits import MAX_KEY_FILE_BYTES
from edgeinfer.transport.guarded import check_owned, read_owned

_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair in Z85. The secret half is shown nowhere."""

    public: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Client:
    """A line of an allow list."""

    public: str
    name: str


def generate() -> KeyPair:
    """A fresh pair. Raises UnavailableError where libzmq was built without CURVE."""
    try:
        public, secret = zmq.curve_keypair()
    except zmq.ZMQError:
        raise UnavailableError("this libzmq was built without CURVE", "install pyzmq from PyPI") from None
    return KeyPair(public.decode(), secret.decode())


def write_pair(pair: KeyPair, base: Path) -> tuple[Path, Path]:
    """Writes BASE.key (mode 0600) and BASE.pub. Raises UsageError where one is there, TemporaryError on a full disk."""
    if not _NAME.fullmatch(base.name):
        raise UsageError(f"{base.name!r} can't name a key", "letters, digits and . _ @ - can")
    secret, public = base.with_name(f"{base.name}.key"), base.with_name(f"{base.name}.pub")
    _create(public, f"{pair.public} {base.name}\n", 0o644)
    try:
        _create(secret, f"# a secret of this machine's\npublic {pair.public}\nsecret {pair.secret}\n", 0o600)
    except BaseException:
        public.unlink()
        raise
    return secret, public


def read_pair(path: Path) -> KeyPair:
    """The pair in a .key file. Raises InputError, or ConfigError where others may read or write it, or it is none."""
    text = _read(path, secret=True)
    found = dict(line.split(None, 1) for line in _lines(text) if len(line.split()) == 2)
    public, secret = (found.get(name, "").strip() for name in ("public", "secret"))
    if not (_Z85.fullmatch(public) and _Z85.fullmatch(secret)):
        raise ConfigError(f"{path}: not a key file", "`edgeinfer keys new NAME` writes NAME.key")
    if zmq.curve_public(secret.encode()).decode() != public:
        raise ConfigError(f"{path}: its two halves do not belong together", "make a new pair: edgeinfer keys new NAME")
    return KeyPair(public, secret)


def read_public(text: str) -> Client:
    """A public key, given as such or as the path of a .pub or .key file. Raises InputError, ConfigError."""
    path = Path(text)
    if _Z85.fullmatch(text) and not path.exists():  # a path may be forty such characters too
        return Client(text, "")
    if path.suffix == ".key":
        return Client(read_pair(path).public, path.stem)
    found = _clients(_read(path), path)
    if len(found) != 1:
        raise ConfigError(f"{path}: holds {len(found)} public keys instead of one", "give a .pub file, or the key")
    return found[0]


def read_list(path: Path) -> list[Client]:
    """The clients of an allow list, in its order. Raises InputError, ConfigError for a line that is no key, or
    TemporaryError where the list can't be read now.
    """
    return _clients(_read(path), path)


def read_list_here(path: Path) -> list[Client]:
    """As `read_list`, for as long as the disk takes, on the calling thread."""
    return _clients(_text_of(path, secret=False), path)


def allow(path: Path, client: Client) -> bool:
    """Adds a client to the list, which is made where it is missing; false where the key was on it. Atomic."""
    clients = read_list(path) if path.exists() else []
    if any(known.public == client.public for known in clients):
        return False
    if client.name and any(known.name == client.name for known in clients):
        raise UsageError(f"{path}: another key is called {client.name!r}", "give another --name, or revoke that one")
    _replace(path, f"{_text(path)}{client.public} {client.name}".rstrip() + "\n")
    return True


def revoke(path: Path, text: str) -> Client:
    """Takes the client with this name, key or .pub file off the list. Atomic. Raises UsageError where it is not on it.

    Comments and the other lines stay as they are.
    """
    clients = read_list(path)
    found = [client for client in clients if text in (client.name, client.public)]
    if not found and text.endswith((".pub", ".key")):
        key = read_public(text).public
        found = [client for client in clients if client.public == key]
    if not found:
        raise UsageError(f"{path}: no client {text!r} on this list", f"see edgeinfer keys ls {path}")
    kept = [line for line in _text(path).splitlines(keepends=True) if line.split()[:1] != [found[0].public]]
    _replace(path, "".join(kept))
    return found[0]


def _clients(text: str, path: Path) -> list[Client]:
    clients = []
    for number, line in enumerate(text.splitlines(), 1):
        key, _, name = line.strip().partition(" ")
        if not key or (key == "#" and name) or line.strip() == "#":
            continue
        if not _Z85.fullmatch(key) or (name.strip() and not _NAME.fullmatch(name.strip())):
            raise ConfigError(f"{path}, line {number}: not a public key and a name", "comments begin with `# `")
        clients.append(Client(key, name.strip()))
    return clients


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("# ")]


def _text(path: Path) -> str:
    text = _read(path) if path.exists() else ""
    return text if not text or text.endswith("\n") else f"{text}\n"


def _read(path: Path, secret: bool = False) -> str:
    try:
        return in_time(lambda: _text_of(path, secret))
    except OSError as error:  # the others have become errors of ours
        raise unreadable(path, error) from None


def _text_of(path: Path, secret: bool) -> str:
    try:
        data = read_owned(path, MAX_KEY_FILE_BYTES, lambda status: check_owned(path, status, secret))
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in TEMPORARY:
            raise unreadable(path, error) from None
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: {reason}", "`edgeinfer keys new NAME` makes a pair of keys") from None
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a file of keys", "is this the right file?") from None


def _create(path: Path, text: str, mode: int) -> None:
    """A file that appears complete or not at all, and in no other's place."""
    temporary = _temporary(path, text, mode)
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise UsageError(f"{path}: there already, and not replaced", "choose another name, or remove it") from None
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        temporary.unlink()


def _replace(path: Path, text: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644
    temporary = _temporary(path, text, mode)
    try:
        temporary.replace(path.resolve())
    except OSError as error:
        temporary.unlink()
        raise _unwritable(path, error) from None


def _temporary(path: Path, text: str, mode: int) -> Path:
    try:
        descriptor, name = tempfile.mkstemp(dir=path.resolve().parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        Path(name).unlink()
        raise _unwritable(path, error) from None
    return Path(name)


def _unwritable(path: Path, error: OSError) -> TemporaryError:
    return TemporaryError(f"{path}: can't be written ({error.strerror})", "choose a folder of yours with room in it")
