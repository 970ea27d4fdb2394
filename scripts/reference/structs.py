"""msgspec structs → Markdown: settings with their defaults, message fields with their meaning."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import msgspec
from msgspec import inspect as types

from edgeinfer import messages
from edgeinfer.messages import _Base
from reference.tables import table

MESSAGES: dict[str, type[msgspec.Struct]] = {
    "Every message": _Base,
    "`detections`": messages.DetectionsMessage,
    "an item of `detections`": messages.Detection,
    "`timing_ms`": messages.TimingMs,
    "`status`": messages.StatusMessage,
    "`reason`": messages.Reason,
    "`reload`": messages.ReloadReport,
    "`last_crash`": messages.LastCrash,
    "`decoder` of `status`": messages.VideoDecoderInfo,
    "`vitals`": messages.Vitals,
    "`vitals.machine`": messages.MachineVitals,
    "an item of `vitals.sinks`": messages.SinkVitals,
    "`info`": messages.InfoMessage,
    "`model` of `info`": messages.ModelInfo,
}
"""Heading → struct, in the order of the page."""
NOTHING_FOLLOWS = r"(?!\n)"
"""Said for Python's `$` alone (see `messages.SOURCE_PATTERN`)."""


def fields_of_messages() -> str:
    """Every struct of the wire as a table; what all messages have is told once."""
    common = {field.name for field in struct_type(_Base).fields}
    parts = []
    for heading, struct in MESSAGES.items():
        info = struct_type(struct)
        own = [field for field in info.fields if struct is _Base or field.name not in common]
        kind = [("`kind`", "text", "`detections`, `status` or `info`")] if struct is _Base else []
        rows = [*kind, *((f"`{f.encode_name}`", f"{describe(f.type)}{missing(f)}", meaning(f)) for f in own)]
        parts += [f"### {heading}", docstring(struct), table(("field", "value", "meaning"), rows)]
    return "\n\n".join(parts)


def settings_table(struct: type[msgspec.Struct]) -> str:
    """The keys of a struct, those of structs in it too, with their defaults."""
    rows = ((f"`{key}`", describe(field.type), default(field)) for key, field in keys(struct_type(struct)))
    return table(("key", "value", "default"), rows)


def keys(info: types.StructType, prefix: str = "") -> Iterator[tuple[str, types.Field]]:
    """Dotted keys and their fields."""
    for field in info.fields:
        yield f"{prefix}{field.encode_name}", field
        for inner in structs_in(field.type):
            yield from keys(inner, f"{prefix}{field.encode_name}.")


def structs_in(kind: types.Type) -> Iterator[types.StructType]:
    """The structs that a field may hold itself."""
    match kind:
        case types.StructType():
            yield kind
        case types.UnionType(types=choices):
            for choice in choices:
                yield from structs_in(choice)
        case types.Metadata(type=inner):
            yield from structs_in(inner)


def struct_type(struct: type[msgspec.Struct]) -> types.StructType:
    """What msgspec knows of a struct."""
    info = types.type_info(struct)
    assert isinstance(info, types.StructType)
    return info


def docstring(struct: type[msgspec.Struct]) -> str:
    """A struct's docstring."""
    return inspect.cleandoc(struct.__doc__ or "")


def meaning(field: types.Field) -> str:
    """The description in a field's annotation."""
    match field.type:
        case types.Metadata(extra_json_schema={"description": str(text)}):
            return text
    return ""


def missing(field: types.Field) -> str:
    """Whether a field of a message may be left out."""
    optional = not field.required and field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
    return ", may be missing" if optional else ""


def default(field: types.Field) -> str:
    """What stands where the key is left out."""
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "" if value is None else f"`{msgspec.json.encode(value).decode()}`"


def describe(kind: types.Type) -> str:  # noqa: C901, PLR0911 (one per type)
    """A type in words."""
    match kind:
        case types.Metadata(type=inner):
            return describe(inner)
        case types.UnionType(types=choices):
            null = ["`null`"] if any(isinstance(choice, types.NoneType) for choice in choices) else []
            named = [describe(choice) for choice in choices if not isinstance(choice, types.NoneType)]
            return " or ".join([*named, *null])
        case types.LiteralType(values=values):
            return " or ".join(f"`{value}`" for value in values)
        case types.IntType() | types.FloatType():
            name = "integer" if isinstance(kind, types.IntType) else "number"
            limits = (("≥", kind.ge), (">", kind.gt), ("≤", kind.le), ("<", kind.lt))
            return ", ".join([name, *(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)])
        case types.StrType(pattern=pattern):
            return "text" if pattern is None else f"text that matches `{pattern.removesuffix(NOTHING_FOLLOWS)}`"
        case types.BoolType():
            return "`true` or `false`"
        case types.VarTupleType(item_type=item) | types.ListType(item_type=item):
            return f"list of: {describe(item)}"
        case types.TupleType(item_types=items):
            return f"list of {len(items)}: {describe(items[0])}"
        case _:
            return "mapping"
