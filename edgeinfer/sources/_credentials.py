"""Who we are to a camera: from the URL, from settings, from a file or the environment. Never shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from msgspec import Struct

from edgeinfer.errors import CameraError, ConfigError
from edgeinfer.guard.credentials import secrets_of_account
from edgeinfer.guard.files import read_small
from edgeinfer.guard.limits import MAX_PASSWORD_BYTES
from edgeinfer.guard.redaction import remember, remember_secrets

_VARIABLE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")


class Account(Struct, frozen=True):
    """A URL without credentials, and the credentials that go with it. `repr` shows neither of these."""

    url: str
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Account({self.url})"

    @property
    def full_url(self) -> str:
        """The URL with percent-encoded credentials in it. For the library that connects, and nobody else."""
        if not self.user and not self.password:
            return self.url
        parts = urlsplit(self.url)
        account = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return urlunsplit(parts._replace(netloc=f"{account}@{parts.netloc}"))


def account(
    uri: str,
    user: str | None,
    password: str | None,
    password_file: str | None,
    environment: Mapping[str, str] = os.environ,
) -> Account:
    """The account for `uri`; settings go before what the URL holds, and `${env:NAME}` is replaced in all of them.

    The file is read at every call, so that a password that was put right there is used at the next try. Raises
    ConfigError for a URL or variable that can't be right and CameraError (`unauthorized`) for a file that is not there.
    """
    expanded = expand(uri, environment)
    remember(expanded)
    url, in_url = _split(expanded)
    own_user, _, own_password = in_url.partition(":")
    if password is not None and password_file is not None:
        raise ConfigError("password and password_file are both set", "one of them is enough")
    secret = expand(password, environment) if password is not None else unquote(own_password)
    if password_file is not None:
        secret = _read(Path(expand(password_file, environment)))
    name = expand(user, environment) if user is not None else unquote(own_user)
    remember_secrets((secret, *secrets_of_account(f"{name}:{secret}")))
    return Account(url, name, secret)


def expand(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """`text` with every `${env:NAME}` replaced. Raises ConfigError where a variable is not set."""
    for name in _VARIABLE.findall(text):
        if name not in environment:
            raise ConfigError(f"${{env:{name}}}: there is no such variable in the environment", f"set {name}")
    return _VARIABLE.sub(lambda match: environment[match[1]], text)


def _split(uri: str) -> tuple[str, str]:
    """The URL without credentials, and those. A password may hold / and @ itself: the last @ counts."""
    scheme, separator, rest = uri.partition("://")
    before, at, after = rest.rpartition("@")
    url = f"{scheme}{separator}{after}"
    if any(character <= " " or character == "\x7f" for character in url):
        raise ConfigError(f"{url!r}: a URL holds no spaces and no control characters", "write them as %20")
    try:
        host, _ = urlsplit(url).hostname, urlsplit(url).port
    except ValueError as error:
        raise ConfigError(f"{url}: {error}") from None
    if not separator or not host:
        raise ConfigError(f"{url}: there is no host in this URL", "for instance rtsp://192.168.1.20:554/stream1")
    return url, before if at else ""


def _read(path: Path) -> str:
    try:
        content = read_small(path, MAX_PASSWORD_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "can't be read"
        raise CameraError(
            "unauthorized", f"{path}: {reason.lower()}", "password_file holds the password alone", True
        ) from None
    return content.decode("utf-8", "replace").rstrip("\r\n")
