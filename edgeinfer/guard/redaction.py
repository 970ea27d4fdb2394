"""Takes credentials out of whatever is shown: errors, logs, messages, tracebacks."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from urllib.parse import unquote

GONE = "***"
MIN_LENGTH = 4
"""A shorter secret is not looked for as such: it would tear up every text."""
MAX_KNOWN = 256
"""The newest are kept."""

_CREDENTIALS = re.compile(r"(?<=://)\S*@")
"""Up to the last @ of a URL: a password may hold /, @, quotes and brackets itself."""
_IN_VALUE = re.compile(r"(?<=://).*@", re.DOTALL)
"""The same where the whole text is a URL: then a space belongs to it too."""
_QUERY_SECRET = re.compile(r"(?i)([?&][^=&\s]*(?:pass|pwd|token|key|secret|auth)[^=&\s]*=)[^&\s'\"]*")

_PROPERTY_SECRET = re.compile(
    r"(?i)(\b(?:user-pw|password|passphrase|proxy-pw)\s?=\s?)(?:\"[^\"]*\"?|'[^']*'?|[^\s\"',;]+)"
)
"""In the text of a GStreamer pipeline."""

_known: tuple[str, ...] = ()


def remember(url: str) -> None:
    """Credentials of this URL are taken out from now on wherever they appear, also where a library quotes a part.

    A user's name alone is no secret: "user" and "admin" would be gone from every sentence.
    """
    global _known  # noqa: PLW0603 (what is secret is so for the whole process)
    found = re.search(r"://(.*)@", url, re.DOTALL)
    if not found:
        return
    account, password = found[1], found[1].partition(":")[2]
    new = {part for whole in (account, password) for part in (whole, unquote(whole)) if len(password) >= MIN_LENGTH}
    _known = (*new, *(secret for secret in _known if secret not in new))[:MAX_KNOWN]


def redact(text: str) -> str:
    """`text` with the credentials of every URL in it, and of those remembered, replaced by `***`."""
    text = _QUERY_SECRET.sub(rf"\1{GONE}", _CREDENTIALS.sub(f"{GONE}@", text))
    text = _PROPERTY_SECRET.sub(rf"\1{GONE}", text)
    for secret in sorted(_known, key=len, reverse=True):  # one may be part of another
        text = _whole(secret).sub(GONE, text)
    return text


@lru_cache(maxsize=MAX_KNOWN)
def _whole(secret: str) -> re.Pattern[str]:
    """Where it stands for itself: not within another word."""
    before = r"(?<!\w)" if re.match(r"\w", secret) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", secret) else ""
    return re.compile(before + re.escape(secret) + after)


def redact_value(text: str) -> str:
    """Like `redact`, for a text that is one value of a configuration: whatever stands before its last @ goes."""
    return redact(_IN_VALUE.sub(f"{GONE}@", text))


class RedactingFormatter(logging.Formatter):
    """For log lines: what a library or a plugin says, and its traceback, may quote a URL."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the lines of a traceback, without credentials."""
        return redact(super().format(record))
