"""Two minutes of siege; `scripts/siege` runs as many as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.siege.attacks import ATTACKS
from tests.siege.director import parts
from tests.siege.outcome import page


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_no_attack_ends_it_fills_it_or_costs_others_anything(tmp_path: Path) -> None:
    many, few = parts(tmp_path, seconds=120, seed=7, tell=lambda _: None)
    for outcome in (many, few):
        assert outcome.broken() == [], f"{page(outcome)}\n{outcome.log[-8000:]}"
    assert many.attacks.total() >= len(ATTACKS) / 2
