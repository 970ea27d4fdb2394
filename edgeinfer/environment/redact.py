"""Removes from text what should not leave a machine: secrets, addresses, names of its users and of itself.

When in doubt it removes too much: a URL goes to the end of its line, because a password may hold spaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from edgeinfer.guard.redaction import redact

GONE = "<redacted>"
HARMLESS = frozenset({"root", "nvidia", "jetson", "ubuntu", "tegra", "localhost", "python", "cuda", "tensorrt"})
"""Names that are the same on many machines, and words of the report itself."""

_SENSITIVE = r"pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|_key|credential|authorization|bearer|cookie"
_IS_SECRET = re.compile(_SENSITIVE, re.IGNORECASE)
# Every repetition that something must follow has a bound, so that no text takes long.
_PATTERNS = (
    (re.compile(r"://.*"), f"://{GONE}"),
    (re.compile(rf"((?:{_SENSITIVE})[\w-]{{0,40}}[\"']?\s{{0,9}}[=:\s]).*", re.IGNORECASE), rf"\1{GONE}"),
    (re.compile(r"\b(?:ghp|gho|ghs|github_pat|glpat|hf|sk|nvapi|xox[abp])[-_][\w-]{8,}"), GONE),
    (re.compile(r"\beyJ[\w-]{1,500}\.[\w.-]+"), GONE),
    (re.compile(r"[\w.+-]{1,64}@[\w.-]+"), GONE),
    (re.compile(r"(/(?:home|Users|media)/)[^/\s:\"']+"), r"\1<user>"),
)


class Redactor:
    """Knows the literal secrets and names of one machine, and the shapes of others."""

    def __init__(self, secrets: Iterable[str] = (), names: Iterable[str] = ()) -> None:
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        words = sorted({name for name in names if name and name.lower() not in HARMLESS}, key=len, reverse=True)
        self._names = [re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE) for word in words]

    def text(self, text: str) -> str:
        """The text without what should not leave the machine."""
        text = redact(text)
        for secret in self._secrets:
            text = text.replace(secret, GONE)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        for name in self._names:
            text = name.sub("<name>", text)
        return text

    def data(self, value: Any) -> Any:
        """The same for every text in a structure of JSON's types. Keys are ours and stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.data(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.data(item) for item in value]
        return value


def secrets_of(environment: Mapping[str, str]) -> set[str]:
    """The values of variables whose names speak of secrets, and the credentials in those that hold URLs.

    Shorter than four characters they would tear up every text, and are left to the patterns.
    """
    found = {value for name, value in environment.items() if _IS_SECRET.search(name)}
    for value in environment.values():
        for authority in re.findall(r"://(.*)@", value):
            found.update(authority.split(":", 1))
    return {secret for secret in found if len(secret) >= 4}
