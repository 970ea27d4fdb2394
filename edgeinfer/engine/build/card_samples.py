"""The package's own photographs as inputs to verify an engine on, prepared as a model card says."""

from __future__ import annotations

from pathlib import Path

import edgeinfer
from edgeinfer.config.card import InputCard, ModelCard
from edgeinfer.engine.build.samples import Normalize, SampleSource
from edgeinfer.engine.store.manifest import Tolerance

PHOTOS = Path(edgeinfer.__file__).parent / "sources/photos"


def normalize_of(card: InputCard) -> Normalize:
    """How the card prepares a picture."""
    mean, std = ((values[0], values[1], values[2]) for values in (card.mean, card.std))
    return Normalize(mean, std, card.color, card.fill, card.resize == "stretch")


def tolerance_of(card: ModelCard) -> Tolerance | None:
    """What the card lets pass; None leaves it to the default of the precision."""
    return Tolerance(card.tolerance.max, card.tolerance.mean) if card.tolerance else None


def samples_in(folder: str, card: InputCard) -> SampleSource:
    """The pictures or recorded inputs in a folder, prepared as that card wants them."""
    return SampleSource(str(Path(folder).resolve()), normalize_of(card))


def verification_samples(card: InputCard) -> SampleSource | None:
    """The photographs as that card wants them; None where the installation lacks them."""
    return SampleSource(str(PHOTOS), normalize_of(card)) if PHOTOS.is_dir() else None
