"""Takes credentials out of whatever is shown: errors, logs, messages, tracebacks."""

from __future__ import annotations

import re

GONE = "***"

_CREDENTIALS = re.compile(r"(?<=://)[^\s'\"<>]*@")
"""Up to the last @ of a URL: a password may hold / and @ itself."""
_QUERY_SECRET = re.compile(r"(?i)([?&][^=&\s]*(?:pass|pwd|token|key|secret|auth)[^=&\s]*=)[^&\s'\"]*")


def redact(text: str) -> str:
    """`text` with the credentials of every URL in it replaced by `***`."""
    return _QUERY_SECRET.sub(rf"\1{GONE}", _CREDENTIALS.sub(f"{GONE}@", text))
