"""Takes credentials out of whatever is shown: errors, logs, messages, tracebacks."""

from __future__ import annotations

import re

GONE = "***"

_CREDENTIALS = re.compile(r"(?<=://)[^\s'\"<>]*@")
"""Up to the last @ of a URL: a password may hold / and @ itself."""
_QUERY_SECRET = re.compile(r"(?i)([?&][^=&\s]*(?:pass|pwd|token|key|secret|auth)[^=&\s]*=)[^&\s'\"]*")

_PROPERTY_SECRET = re.compile(
    r"(?i)(\b(?:user-pw|password|passphrase|proxy-pw)\s?=\s?)(?:\"[^\"]*\"?|'[^']*'?|[^\s\"',;]+)"
)
"""In the text of a GStreamer pipeline."""


def redact(text: str) -> str:
    """`text` with the credentials of every URL in it replaced by `***`."""
    without_accounts = _CREDENTIALS.sub(f"{GONE}@", text)
    return _PROPERTY_SECRET.sub(rf"\1{GONE}", _QUERY_SECRET.sub(rf"\1{GONE}", without_accounts))
