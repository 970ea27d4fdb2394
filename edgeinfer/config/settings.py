"""Every setting, declared once. The YAML file, `--set` and the command line's short options all end here.

A plugin declares its own settings in its own `Options`; their keys stand beside the general ones below.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import UNSET, Meta, Struct, UnsetType

from edgeinfer.config import plugins, strict
from edgeinfer.config.dropins import merged, read_dropins
from edgeinfer.config.overrides import set_override
from edgeinfer.config.places import Places, located
from edgeinfer.config.uri import SourceUri, parse_uri
from edgeinfer.config.yamlfile import Document, parse_document, read_document
from edgeinfer.errors import ConfigError, EdgeinferError, UnavailableError
from edgeinfer.guard.redaction import remember_setting, remember_settings, remember_text, spare
from edgeinfer.interfaces import Isolating
from edgeinfer.messages import SOURCE_PATTERN

DEFAULT_MODEL = "nanodet-g"
AUTO = "auto"
TENSORRT, FALLBACK = "tensorrt", "onnxruntime"
"""`auto` is TensorRT where it can run, ONNX Runtime until its engine is built, and ONNX Runtime alone elsewhere."""

SHA256_PATTERN = r"^[0-9a-f]{64}$(?!\n)"

Share = Annotated[float, Meta(ge=0, le=1)]
Mebibytes = Annotated[int, Meta(ge=32, le=65536)]


class ModelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`path` is a vendored model's name or an ONNX file; thresholds override the card's. `sha256`, where given, must be
    the network's, weights beside its file included (docs/models.md): another network is not run.

    `precision` is that of the TensorRT engine, unless the backend says otherwise.
    """

    path: str = DEFAULT_MODEL
    card: str | None = None
    sha256: Annotated[str, Meta(pattern=SHA256_PATTERN)] | None = None
    precision: Literal["fp32", "tf32", "fp16", "int8", "best"] | None = None
    score: Share | None = None
    iou: Share | None = None
    max_batch: Annotated[int, Meta(ge=1, le=256)] | None = None


class LadderConfig(Struct, frozen=True, kw_only=True):
    """What is expected of a live source, and what is done where it does not give it. See `SourceSettings`."""

    reconnect: bool | None = None
    wait: bool = True
    stall_s: Annotated[float, Meta(ge=0.1, le=3600)] = 2.5
    timeout_s: Annotated[float, Meta(ge=0.2, le=3600)] = 5.0
    max_age_ms: Annotated[float, Meta(ge=1)] | None = 500.0
    frozen_s: Annotated[float, Meta(ge=0.1)] | None = None


class IsolationConfig(Struct, frozen=True, kw_only=True):
    """Whether a source is read and decoded in a process that edgeinfer makes for it, and how many MiB that may have.

    `may_relay`: nobody has said so or otherwise, so that the process may leave decoding to us: see `Relaying`.
    """

    isolated: bool = False
    memory_mb: Mebibytes | None = None
    may_relay: bool = False


class BatchingConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a frame waits for others to share its batch: `latency` never, `balanced` while every stream of the backend
    is busy, `throughput` always; for `wait_ms` at most.
    """

    mode: Literal["latency", "balanced", "throughput"] = "balanced"
    wait_ms: Annotated[float, Meta(ge=0, le=1000)] = 5.0


class SourceConfig(Struct, frozen=True, kw_only=True):
    """A source's settings, checked. `max_fps` leaves frames out evenly; `options` are the plugin's own."""

    uri: SourceUri
    max_fps: float | None
    options: Struct
    ladder: LadderConfig = LadderConfig()
    isolation: IsolationConfig = IsolationConfig()


class PluginConfig(Struct, frozen=True, kw_only=True):
    """A plugin's name and its checked options."""

    name: str
    options: Struct


class BackendConfig(Struct, frozen=True, kw_only=True):
    """A backend and its checked options; for `auto` TensorRT's, and those of what runs without it or until then."""

    name: str
    options: Struct
    fallback: Struct | None = None


class WatchdogConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stage that does not move for `deadline_s` seconds, or for ten times the 99th percentile of inference where
    that is more, ends the process with exit code 70 and all stacks in the log. Loading a model, building an engine
    and a model's first result are not judged by it."""

    deadline_s: Annotated[float, Meta(ge=1, le=3600)] = 5.0


class TlsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files: the certificate with those that vouch for it, and its private key."""

    cert: Annotated[str, Meta(min_length=1)]
    key: Annotated[str, Meta(min_length=1)]


class HttpConfig(Struct, frozen=True, kw_only=True):
    """`/healthz`, `/readyz` and `/metrics` at `bind`, HOST:PORT; nothing is served where `http` is not there.

    `ready_min_sources` must run for `/readyz` to say yes. `insecure: true` allows an address that other machines can
    reach: anybody there can then read the numbers and the names of the sources.

    `web: true` serves the live page and its API too (docs/web.md). `token` is a file made by `edgeinfer web token new`,
    which says who may look; `tls` encrypts. Where other machines can reach the page it needs both.
    """

    bind: str = "127.0.0.1:9108"
    ready_min_sources: Annotated[int, Meta(ge=0)] = 1
    insecure: bool = False
    web: bool = False
    token: Annotated[str, Meta(min_length=1)] | None = None
    tls: TlsConfig | None = None


class Config(Struct, frozen=True, kw_only=True):
    """The whole configuration, checked. `frames` ends each source after so many results."""

    model: ModelConfig
    backend: BackendConfig
    sources: dict[str, SourceConfig]
    sinks: dict[str, PluginConfig]
    frames: int | None
    batching: BatchingConfig = BatchingConfig()
    watchdog: WatchdogConfig = WatchdogConfig()
    http: HttpConfig | None = None
    path: str | None = None


class SourceSettings(LadderConfig, frozen=True, kw_only=True):
    """What every source's table may hold beside the plugin's options. `max_fps` leaves frames out evenly.

    A live source without a frame for `stall_s` is `stalled`; without one for `timeout_s` it is opened again, and again;
    opening it, and its first frame after that, may take 20 s each; opening one through GStreamer, 100 s.
    `reconnect: false` makes its first error final; cameras reconnect by default, and of files those that play in
    real time in a loop. `wait: false` makes the first error final where the source has never given a frame; that is the
    default for sources of the command line.
    A live frame older than `max_age_ms` when its turn comes is dropped; with `null` none is. With `frozen_s` a source
    that shows the same picture for so long counts as one without a frame.

    `isolated` sources are read and decoded in a process of their own, which may hang, crash or swell without harm to
    the others; network cameras and files in real time are by default, and `isolated: false` makes them threads. Such a
    process may have `memory_mb` MiB beyond what it starts with; by default what half of the memory leaves for each, 512
    at most. Sources through GStreamer have a process of their own in any case. What NVDEC decodes of a camera is
    demultiplexed in such a process and decoded in the daemon's, unless `isolated` or `memory_mb` is given: then FFmpeg
    decodes it over there.
    """

    uri: Annotated[str, Meta(min_length=1)]
    max_fps: Annotated[float, Meta(gt=0)] | None = None
    isolated: bool | None = None
    memory_mb: Mebibytes | None = None


class _File(Struct, frozen=True, kw_only=True):
    """The file's top level, before plugins have checked their parts."""

    model: str | ModelConfig = DEFAULT_MODEL
    backend: str | dict[str, Any] = AUTO
    sources: dict[Annotated[str, Meta(pattern=SOURCE_PATTERN)], Any] = {}
    publish: dict[str, Any] | UnsetType | None = UNSET
    sinks: dict[str, dict[str, Any]] = {}
    batching: BatchingConfig | Literal["latency", "balanced", "throughput"] = "balanced"
    http: HttpConfig | None = None
    frames: Annotated[int, Meta(ge=1)] | None = None
    watchdog: WatchdogConfig = WatchdogConfig()


class Reading(NamedTuple):
    """A configuration and the texts that it comes from, the file's first; none where there is no file."""

    config: Config
    texts: tuple[Places, ...] = ()
    overrides: Sequence[tuple[str, Any]] = ()

    def located(self, error: EdgeinferError) -> EdgeinferError:
        """The error with its place, where one of the texts has its key; else it speaks of another file."""
        told = _located(error, self.texts, self.overrides)
        return told if told.place else error


def load_config(path: Path | None, overrides: Sequence[tuple[str, Any]] = ()) -> Config:
    """The configuration in a file and its drop-ins (or the defaults) with overrides applied in order.

    An override is a dotted key path and a value. Nothing is opened but the files; plugins that the config names are
    imported, to check their options. Raises InputError, ConfigError, UnavailableError; what is wrong in a file has its
    place.
    """
    return read_config(path, overrides).config


def read_config(path: Path | None, overrides: Sequence[tuple[str, Any]] = (), text: str | None = None) -> Reading:
    """The same with the texts that it was read from. `text` stands for the file's, which is not read then."""
    for key, value in overrides:
        remember_setting(key, value)
    documents = [] if path is None else _documents(path, text)
    data = merged(documents[0], documents[1:]) if documents else {}
    remember_settings(data)
    texts = tuple(document.places for document in documents)
    try:
        for key, value in overrides:
            set_override(data, key, copy.deepcopy(value))
        _spare_files(data)
        config = _resolve(strict.convert(data, _File), None if path is None else str(path))
    except EdgeinferError as error:
        raise _located(error, texts, overrides) from None
    return Reading(config, texts, overrides)


def _spare_files(data: Any) -> None:
    """`http.token` and `http.tls.key` name files, with which errors have to be told."""
    http = data.get("http") if isinstance(data, dict) else None
    if not isinstance(http, dict):
        return
    tls = http.get("tls")
    files = (http.get("token"), tls.get("key") if isinstance(tls, dict) else None)
    others = {**data, "http": {key: value for key, value in http.items() if key not in ("token", "tls")}}
    spare([file for file in files if isinstance(file, str)], others)


def _documents(path: Path, text: str | None) -> list[Document]:
    if text is None:
        return [read_document(path), *read_dropins(path)]
    remember_text(text)
    return [parse_document(text, str(path)), *read_dropins(path)]


def _located(error: EdgeinferError, texts: tuple[Places, ...], overrides: Sequence[tuple[str, Any]]) -> EdgeinferError:
    """An error of the command line's values stays as it is: they stand in no file."""
    if error.place is not None:
        return error
    given = error.key and any(f"{error.key}.".startswith(f"{key}.") for key, _ in overrides)
    named = error.key is not None or isinstance(error, ConfigError)
    return error if given or not named or not texts else located(error, *texts)


def writes_to_stdout(config: Config) -> bool:
    """Whether JSON lines go to standard output, so that nothing else may."""
    return any(sink.name == "jsonl" and getattr(sink.options, "path", "") == "-" for sink in config.sinks.values())


def source_names(path: Path | None) -> set[str]:
    """The names of the sources in a file and its drop-ins, as far as these can be read; `load_config` tells why not."""
    try:
        documents = [] if path is None else _documents(path, None)
        data = merged(documents[0], documents[1:]) if documents else None
    except EdgeinferError:
        return set()
    sources = data.get("sources") if isinstance(data, dict) else None
    return {str(name) for name in sources} if isinstance(sources, dict) else set()


def _resolve(file: _File, path: str | None) -> Config:
    model = ModelConfig(path=file.model) if isinstance(file.model, str) else file.model
    return Config(
        model=model,
        backend=_backend(file.backend, model.precision),
        sources={name: _source(name, table) for name, table in file.sources.items()},
        sinks=_sinks(file),
        frames=file.frames,
        batching=BatchingConfig(mode=file.batching) if isinstance(file.batching, str) else file.batching,
        watchdog=file.watchdog,
        http=file.http,
        path=path,
    )


def _backend(value: str | dict[str, Any], precision: str | None) -> BackendConfig:
    table = {"name": value} if isinstance(value, str) else dict(value)
    if precision is not None and table.get("name", AUTO) in (AUTO, TENSORRT):
        table.setdefault("precision", precision)
    name = table.pop("name", AUTO)
    if not isinstance(name, str):
        expected = f"{strict.shown('', name)} is not allowed: expected a name"
        raise ConfigError.at("backend.name", expected, strict.nearest("", [AUTO, *plugins.names("backends")]))
    if name == AUTO:
        return _auto(table)
    module = plugins.load("backends", name, "backend" if isinstance(value, str) else "backend.name")
    return BackendConfig(name=name, options=plugins.options(module, table, "backend"))


def _auto(table: dict[str, Any]) -> BackendConfig:
    """Each key goes to the backends that know it."""
    modules = {TENSORRT: plugins.load("backends", TENSORRT, "backend")}
    with contextlib.suppress(UnavailableError):
        modules[FALLBACK] = plugins.load("backends", FALLBACK, "backend")
    known = {name: strict.field_names(module.Options) for name, module in modules.items()}
    for key in table:
        if not any(key in names for names in known.values()):
            hint = strict.nearest(str(key), set().union(*known.values()))
            raise ConfigError.at(f"backend.{key}", "unknown key", hint, of_name=True)
    options = {
        name: plugins.options(module, {key: table[key] for key in table if key in known[name]}, "backend")
        for name, module in modules.items()
    }
    return BackendConfig(name=AUTO, options=options[TENSORRT], fallback=options.get(FALLBACK))


def _source(name: str, table: Any) -> SourceConfig:
    path = f"sources.{name}"
    if isinstance(table, str):
        table = {"uri": table}
    general = strict.field_names(SourceSettings)
    if not isinstance(table, dict):
        expected = f"{strict.shown(path, table)} is not allowed: expected a URI, or keys with values"
        raise ConfigError.at(path, expected)
    known = strict.convert({key: value for key, value in table.items() if key in general}, SourceSettings, path)
    uri = parse_uri(known.uri, f"{path}.uri")
    module = plugins.load("sources", uri.plugin, f"{path}.uri")
    _check_patience(known, path, "timeout_s" in table)
    own = {key: value for key, value in table.items() if key not in general}
    for key in own:
        if key not in strict.field_names(module.Options):
            hint = strict.nearest(str(key), [*general, *strict.field_names(module.Options)])
            raise ConfigError.at(f"{path}.{key}", "unknown key", hint, of_name=True)
    options = plugins.options(module, own, path)
    return SourceConfig(
        uri=uri,
        max_fps=known.max_fps,
        options=options,
        ladder=LadderConfig(**{key: getattr(known, key) for key in strict.field_names(LadderConfig)}),
        isolation=_isolation(known, module, uri.text, options, path),
    )


def _check_patience(known: SourceSettings, path: str, said: bool) -> None:
    """`said`: whether the timeout was given, or the default's is meant."""
    if known.timeout_s > known.stall_s:
        return
    if said:
        raise ConfigError.at(f"{path}.timeout_s", f"{known.timeout_s:g} is not longer than stall_s, {known.stall_s:g}")
    raise ConfigError.at(f"{path}.stall_s", f"{known.stall_s:g} is not shorter than timeout_s, {known.timeout_s:g}")


def _isolation(known: SourceSettings, module: ModuleType, uri: str, options: Struct, path: str) -> IsolationConfig:
    usual = module.isolate(uri, options) if isinstance(module, Isolating) else False
    isolated = usual is not None and (usual if known.isolated is None else known.isolated)
    if known.memory_mb is not None and not isolated:
        hint = "sources through GStreamer have a bound of their own" if usual is None else "isolated: true gives it one"
        raise ConfigError.at(f"{path}.memory_mb", "this source has no process whose memory that could bound", hint)
    may_relay = known.isolated is None and known.memory_mb is None
    return IsolationConfig(isolated=isolated, memory_mb=known.memory_mb, may_relay=may_relay)


def _sinks(file: _File) -> dict[str, PluginConfig]:
    chosen: dict[str, tuple[str, dict[str, Any]]] = {}
    if file.publish is not None:
        chosen["publish"] = ("zmq", file.publish if isinstance(file.publish, dict) else {})
    for name, table in file.sinks.items():
        chosen[f"sinks.{name}"] = (name, table)
    return {
        key: PluginConfig(name=name, options=plugins.options(plugins.load("sinks", name, key), table, key))
        for key, (name, table) in chosen.items()
    }
