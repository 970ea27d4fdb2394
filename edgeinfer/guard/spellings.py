"""The ways in which a library may write a secret: percent-encoded, escaped, quoted, in base64."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote


def spellings(secret: str) -> dict[str, None]:
    """The secret itself and other spellings of it, each once."""
    return dict.fromkeys(form for plain in {secret, unquote(secret)} for form in _forms(plain))


def _forms(plain: str) -> Iterator[str]:
    yield from (plain, " ".join(plain.split()), plain.strip())
    raw = plain.encode("utf-8", "surrogatepass")
    for encoded in (quote(raw, safe=""), quote(raw), quote_plus(raw), quote(raw, safe="!$&'()*+,;=:@/")):
        yield encoded
        yield re.sub(r"%[0-9A-F]{2}", lambda code: code[0].lower(), encoded)
    for escaped in (json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1], ascii(plain)[1:-1]):
        yield escaped
        yield re.sub(r"(?<=\\[xuU])[0-9a-f]+", lambda code: code[0].upper(), escaped)  # as YAML has it
    yield from (repr(plain)[1:-1], repr(raw)[2:-1])
    yield from (html.escape(plain), html.escape(plain, quote=False))
    yield from (plain.replace("'", "''"), plain.replace("'", "'\"'\"'"), plain.replace('"', '\\"'))
    yield plain.encode("utf-8", "backslashreplace").decode()
    yield base64.b64encode(raw).decode().rstrip("=")
    yield base64.urlsafe_b64encode(raw).decode().rstrip("=")
