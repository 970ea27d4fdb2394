"""What the page says of the model that serves."""

from __future__ import annotations

import os
from pathlib import Path

from edgeinfer.config.card import Model
from edgeinfer.config.settings import Config
from edgeinfer.engine.store.cache import default_root
from edgeinfer.telemetry.snapshot import DaemonSnapshot
from edgeinfer.web.viewing.model import ModelView, model_view


def portrait(model: Model, config: Config, seen: DaemonSnapshot) -> ModelView:
    """May read files. From any thread."""
    chosen = getattr(config.backend.options, "cache", None)
    return model_view(model, seen, Path(chosen) if chosen else default_root(os.environ))
