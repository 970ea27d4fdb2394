"""What can be known of a configuration without opening a camera, a socket or a model's network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edgeinfer.config.card import Model, load_model
from edgeinfer.config.settings import Config, Reading
from edgeinfer.daemon.assembly import open_decoder
from edgeinfer.errors import EdgeinferError
from edgeinfer.sinks import zmq
from edgeinfer.web.binding import access_of, check_http


def check(reading: Reading) -> Model:
    """Looks at all that a configuration names. Raises what is wrong, with its place."""
    try:
        check_addresses(reading.config)
        with _about("model.path"):
            return check_model(reading.config)
    except EdgeinferError as error:
        raise reading.located(error) from None


def check_model(config: Config) -> Model:
    """The model, once it, its card and its decoder have been looked at. Raises EdgeinferError."""
    model = load_model(config.model.path, config.model.card, config.model.sha256)
    open_decoder(model, config.model)
    return model


def check_addresses(config: Config) -> None:
    """Whether others could reach what is meant for this machine, and the keys are there. Raises EdgeinferError."""
    for name, sink in config.sinks.items():
        if isinstance(sink.options, zmq.Options):
            with _about(f"{name}.curve"):
                zmq.check(sink.options)
    if config.http is not None:
        host, _ = check_http(config.http)
        with _about("http.token" if config.http.tls is None else "http"):
            access_of(config.http, host)


def summary(config: Config, model: Model) -> str:
    """What would run, in a few words."""
    return f"{model.id} on {config.backend.name}, sources {', '.join(config.sources) or 'none'}"


@contextlib.contextmanager
def _about(key: str) -> Iterator[None]:
    """What a file is wrong with that the setting `key` names is that setting's error."""
    try:
        yield
    except EdgeinferError as error:
        if error.key is None and error.place is None:
            error.key = key
        raise
