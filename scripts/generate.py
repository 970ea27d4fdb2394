"""Writes docs/schema/*.json and docs/configuration.md from the code; `--check` only says which are old."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import msgspec
from msgspec import inspect as types

from edgeinfer.config import plugins
from edgeinfer.config.settings import HttpConfig, ModelConfig, SourceSettings, WatchdogConfig
from edgeinfer.messages import KINDS, json_schema

DOCS = Path(__file__).parent.parent / "docs"

HEAD = """# Configuration

Generated from the code by `scripts/generate`; don't edit.

A YAML file has these keys. `--set key.path=value` overrides any of them on the command line.

| key | value |
|---|---|
| `model` | a model's name, or the keys below |
| `backend` | `auto`, a backend's name, or `name` and the backend's own keys |
| `sources` | name → a URI, or `uri`, the general keys and those of the URI's source |
| `publish` | the keys of the sink `zmq`; `null` publishes nothing |
| `sinks` | a sink's name → its keys |
| `watchdog` | the keys below |
| `http` | health and metrics over HTTP, see below; left out, none |
| `frames` | integer ≥ 1: end each source after so many results |

Source URIs: `0` or `v4l2:///dev/video0` is a camera, `rtsp://…` and `rtsps://…` a network camera (`http://…` too, where
it gives MJPEG or MPEG-TS), `csi://0` a CSI camera, `gst:…` a GStreamer pipeline, `demo:` the synthetic camera; anything
without a scheme is a video file, an image, a folder of images or a glob. A dotted scheme is a plugin of your own.

## Changing it while the daemon runs

`edgeinfer reload`, or SIGHUP, has the daemon read its file again. `--set`, `--source` and the other options that it was
started with stay in force over it. All changes are applied, or none.

| key | what a change does |
|---|---|
| `sources` | a new source is opened, a missing one ended; one that comes back goes on counting where it was |
| `sources.NAME.max_fps` | taken up while the source runs |
| `sources.NAME`, other keys | the source is opened again; a file begins anew |
| `model.score`, `model.iou` | taken up between two frames |
| `model`, other keys; `backend` | built and tried beside the old, swapped, rolled back if its first ten frames fail |
| the model's file or card | the same |
| `sinks` | closed and opened, those that had failed too; what was accepted is still written. A video begins anew |
| `frames`, `batching` | taken up at once |
| `publish`, and any sink that subscribers are connected to | refused: they would be cut off. Restart the daemon |
| `sinks.jsonl.path` from or to `-`, and all other keys | refused: restart the daemon |
"""


def main() -> int:
    """Returns 1 where `--check` finds something old."""
    wanted = {DOCS / "schema" / f"{kind}.json": json_schema(kind) for kind in KINDS}
    wanted[DOCS / "configuration.md"] = configuration().encode()
    old = [path for path, content in wanted.items() if not path.exists() or path.read_bytes() != content]
    if "--check" in sys.argv:
        sys.stderr.writelines(f"{path} is not current; run scripts/generate\n" for path in old)
        return 1 if old else 0
    for path in old:
        path.write_bytes(wanted[path])
    return 0


def configuration() -> str:
    """The page."""
    parts = [
        HEAD,
        section("## `model`", ModelConfig),
        section("## `sources`, general keys", SourceSettings),
        section("## `watchdog`", WatchdogConfig),
        section("## `http`", HttpConfig),
    ]
    kinds: tuple[plugins.Kind, ...] = ("sources", "backends", "sinks")
    for kind in kinds:
        for name in plugins.names(kind):
            options = plugins.load(kind, name).Options
            parts.append(section(f"## {kind[:-1].capitalize()} `{name}`", options))
    return "\n".join(parts)


def section(heading: str, struct: type[msgspec.Struct]) -> str:
    """A struct as a table under its docstring."""
    info = types.type_info(struct)
    assert isinstance(info, types.StructType)
    rows = [f"| `{field.encode_name}` | {describe(field.type)} | {default(field)} |" for field in info.fields]
    return "\n".join(
        [
            heading,
            "",
            inspect.cleandoc(struct.__doc__ or ""),
            "",
            "| key | value | default |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def default(field: types.Field) -> str:
    """What stands where the key is left out."""
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "" if value is None else f"`{msgspec.json.encode(value).decode()}`"


def describe(kind: types.Type) -> str:  # noqa: PLR0911 (one per type)
    """A type in words."""
    match kind:
        case types.Metadata(type=inner):
            return describe(inner)
        case types.UnionType(types=choices):
            return " or ".join(describe(choice) for choice in choices if not isinstance(choice, types.NoneType))
        case types.LiteralType(values=values):
            return " or ".join(f"`{value}`" for value in values)
        case types.IntType() | types.FloatType():
            name = "integer" if isinstance(kind, types.IntType) else "number"
            limits = (("≥", kind.ge), (">", kind.gt), ("≤", kind.le), ("<", kind.lt))
            return ", ".join([name, *(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)])
        case types.StrType(pattern=pattern):
            return "text" if pattern is None else f"text that matches `{pattern}`"
        case types.BoolType():
            return "`true` or `false`"
        case types.VarTupleType(item_type=item) | types.ListType(item_type=item):
            return f"list of: {describe(item)}"
        case _:
            return "mapping"


if __name__ == "__main__":
    sys.exit(main())
