"""Two minutes of faults; `scripts/soak` runs ten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import soak


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(400)
def test_faults_cost_frames_and_nothing_else(tmp_path: Path) -> None:
    outcome = soak(tmp_path, seconds=110, count=22, seed=4, tell=lambda _: None)
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.starts == 1, "it was one process from beginning to end"
    assert outcome.unaccounted == 0
    assert outcome.results > 0
    assert outcome.statuses > 100
    assert outcome.not_back == [], outcome.stderr
    assert outcome.growth < 0.1, outcome.rss_mb
    assert "Traceback" not in outcome.stderr
    assert "S3cretQ" not in outcome.stderr
