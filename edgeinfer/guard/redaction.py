"""Takes credentials out of whatever is shown: errors, logs, messages, tracebacks.

In two ways. By form: what looks like the credentials of a URL, in any text (`credentials.py`). By value: what the
configuration, the command line, the environment or a password file told to be secret is looked for in every text from
then on, in every spelling that a library may give it (`spellings.py`). Nothing displaces it, and what others wrote, as
a model card, has no say in it.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from edgeinfer.guard import credentials
from edgeinfer.guard.credentials import MIN_LENGTH
from edgeinfer.guard.limits import MAX_SECRETS
from edgeinfer.guard.spellings import spellings

log = logging.getLogger(__name__)

GONE = "***"
LONG = 8
"""A shorter word or number is looked for where it stands for itself: "camera" is no part of "cameras"."""

_AROUND = "\"'!&*|>"
"""What a text of a configuration may have around a value."""

_known: dict[str, None] = {}
_meanwhile: ContextVar[tuple[str, ...] | None] = ContextVar("meanwhile", default=None)
_asked: ContextVar[str] = ContextVar("asked", default="")
_said_full = False


def remember(value: str) -> None:
    """Credentials in this value of a setting are taken out from now on wherever they appear."""
    remember_secrets(credentials.secrets_in_value(value))


def remember_secrets(secrets: Iterable[str]) -> None:
    """These are taken out from now on wherever they appear. Beyond MAX_SECRETS none is added, which is said once.

    Within `hidden_meanwhile` they are taken out there only.
    """
    global _known, _said_full  # noqa: PLW0603 (what is secret is so for the whole process)
    told = [secret for secret in dict.fromkeys(secrets) if len(secret) >= MIN_LENGTH]
    meanwhile = _meanwhile.get()
    if meanwhile is not None:
        _meanwhile.set(tuple(dict.fromkeys((*meanwhile, *told)))[:MAX_SECRETS])
        return
    new = [secret for secret in told if secret not in _known]
    room = MAX_SECRETS - len(_known)
    if new:
        _known = {**_known, **dict.fromkeys(new[:room])}  # a new one: others may be going through the old
    if len(new) > room and not _said_full:
        _said_full = True
        log.warning("more than %d passwords and tokens: further ones are hidden only in URLs and the like", MAX_SECRETS)


@contextlib.contextmanager
def hidden_meanwhile(text: str) -> Iterator[None]:
    """Secrets in a text that others wrote, and those that come to be known of it, are taken out as long as this context
    lasts, in it alone.
    """
    found = dict.fromkeys(secret for secret in credentials.secrets_in_lines(text) if len(secret) >= MIN_LENGTH)
    token = _meanwhile.set((*(_meanwhile.get() or ()), *found)[:MAX_SECRETS])
    try:
        yield
    finally:
        _meanwhile.reset(token)


@contextlib.contextmanager
def asked_with(text: str) -> Iterator[None]:
    """What is said to whoever wrote this text, who may be guessing: a secret that is in it is not taken out of that for
    being one of ours, since that would say that the guess was right. What the text itself calls secret is.
    """
    token = _asked.set(text)
    try:
        yield
    finally:
        _asked.reset(token)


def remember_settings(data: Any) -> None:
    """Every secret in plain data: whatever lies below a key like `password`, and credentials in any text."""
    remember_secrets(_secrets_in(data))


def spare(files: Iterable[str], others: Any) -> None:
    """Names of files are shown, though they stand below a key like `token`: errors are about them.

    Not what is no such name, nor what is a secret in the settings `others`. Within `hidden_meanwhile` this goes for
    what came to be known there.
    """
    global _known  # noqa: PLW0603 (see above)
    secret, meanwhile = _secrets_in(others), _meanwhile.get()
    spared = {file for file in files if credentials.names_a_file(file) and file not in secret}
    kept = [known for known in (_known if meanwhile is None else meanwhile) if known.strip(_AROUND) not in spared]
    if meanwhile is None:
        _known = dict.fromkeys(kept)
    else:
        _meanwhile.set(tuple(kept))


def _secrets_in(data: Any) -> dict[str, None]:
    waiting, seen, found = [("", data)], set[tuple[str, int]](), dict[str, None]()
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, Mapping | list | tuple | set):
            if (key, id(value)) not in seen:
                seen.add((key, id(value)))
                waiting += _parts(key, value)
        else:
            found.update(dict.fromkeys(_secrets_of(key, value)))
    return found


def remember_setting(path: str, value: Any) -> None:
    """The same for one setting with a dotted path: any part of that may say that it is a secret."""
    secret = next((part for part in path.split(".") if credentials.is_secret_key(part)), "")
    remember_settings({secret: value})


def _parts(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What is in a container, each with the secret key that it lies below, "" where it lies below none."""
    if not isinstance(value, Mapping):
        yield from ((key, item) for item in value)
        return
    for name, item in value.items():
        yield key, name
        first, _, rest = str(name).partition(" ")
        if credentials.is_secret_key(first):
            yield first, rest  # `password PW`: the colon was forgotten
        yield key or (str(name) if credentials.is_secret_key(str(name)) else ""), item


def _secrets_of(key: str, value: Any) -> Iterator[str]:
    text = _as_text(value)
    if isinstance(value, str):
        yield from credentials.secrets_in_value(value)
    if key and credentials.is_secret(key, text):
        yield text


def remember_text(text: str) -> None:
    """Every secret in the text of a configuration, before it is known whether it can be parsed."""
    remember_secrets(credentials.secrets_in_lines(text))


def redact(text: str) -> str:
    """`text` without credentials: those that look like it, and those remembered."""
    return _without_known(credentials.hide(_without_known(text), GONE))


def redact_value(text: str) -> str:
    """Like `redact`, for a text that is one value of a configuration: whatever stands before its last @ goes."""
    if whole := credentials.account_in(text):
        text = text[: whole[0]] + GONE + text[whole[1] :]
    return redact(text)


def _without_known(text: str) -> str:
    meanwhile, asked = _meanwhile.get() or (), _asked.get()
    found = {
        spelled
        for secret in (*_known, *meanwhile)
        for spelled in _spellings(secret)
        if spelled in text and (secret in meanwhile or not _spoken(secret, asked))
    }
    for spelled in sorted(found, key=len, reverse=True):  # one may be part of another
        text = _whole(spelled).sub(GONE, text)
    return text


def _spoken(secret: str, asked: str) -> bool:
    return bool(asked) and any(spelled in asked for spelled in _spellings(secret))


@lru_cache(maxsize=MAX_SECRETS)
def _spellings(secret: str) -> tuple[str, ...]:
    return tuple(spelled for spelled in spellings(secret) if len(spelled) >= MIN_LENGTH)


@lru_cache(maxsize=256)
def _whole(secret: str) -> re.Pattern[str]:
    """Anywhere; a short word or number only where it is not within another."""
    word = len(secret) < LONG and (secret.isalpha() or secret.isdecimal())
    return re.compile(rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])" if word else re.escape(secret))


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, int) and abs(value) >= 1 << 256:
        return ""  # no password, and Python won't write it
    dated = hasattr(value, "isoformat")
    return str(value) if (isinstance(value, int | float) and not isinstance(value, bool)) or dated else ""
