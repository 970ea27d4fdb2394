"""All that the site reads of a daemon, in one place. No web library is imported here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from edgeinfer.flow.statistics import Statistics
from edgeinfer.telemetry.snapshot import DaemonSnapshot
from edgeinfer.web.access.rights import Access
from edgeinfer.web.request import Routes
from edgeinfer.web.viewing.chronicle import Chronicle
from edgeinfer.web.viewing.desk import ConfigDesk
from edgeinfer.web.viewing.encoding import Encoder
from edgeinfer.web.viewing.gallery import Gallery
from edgeinfer.web.viewing.history import History
from edgeinfer.web.viewing.latched import Latched
from edgeinfer.web.viewing.model import ModelView

Role = Literal["local", "viewer", "admin"]


@dataclass(frozen=True, slots=True)
class Views:
    """Called from the site's thread. `model` may read files, and `config` wait for long: in a thread of their own."""

    session: str
    picture: Callable[[], DaemonSnapshot]
    stats: Statistics
    model: Callable[[], ModelView]
    config: ConfigDesk
    pages: Routes
    gallery: Gallery = field(default_factory=Gallery)
    encoder: Encoder = field(default_factory=Encoder)
    chronicle: Chronicle = field(default_factory=Chronicle)
    history: History = field(default_factory=History)
    latched: Latched = field(default_factory=Latched)
    access: Access = field(default_factory=lambda: Access(local=True))
