"""The plugins that ship with edgeinfer, in one sentence each."""

from __future__ import annotations

import inspect

from edgeinfer.config import plugins
from reference.settings import KINDS
from reference.tables import table


def table_rows() -> list[tuple[str, str, str]]:
    """Kind, name, and the first paragraph of the module's docstring."""
    return [
        (kind[:-1], f"`{name}`", first_paragraph(plugins.load(kind, name).__doc__))
        for kind in KINDS
        for name in plugins.names(kind)
    ]


def first_paragraph(docstring: str | None) -> str:
    """Of a docstring, as one line."""
    return " ".join(inspect.cleandoc(docstring or "").partition("\n\n")[0].split())


def listing() -> str:
    """The table."""
    return table(("kind", "name", "what it does"), table_rows())
