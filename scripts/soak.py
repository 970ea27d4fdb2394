"""The soak in full. Prints what was done and what came of it; exits with 1 where a promise was not kept."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.soak import Outcome, soak


def main(seconds: float, count: int, seed: int) -> int:
    """Returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="edgeinfer-soak-") as folder:
        outcome = soak(Path(folder), seconds, count, seed, lambda kind: print(f"fault: {kind}", flush=True))
    print(f"{sum(outcome.faults.values())} faults in {outcome.seconds:.0f} s, seed {seed}: {dict(outcome.faults)}")
    print(f"results: {outcome.results}, statuses: {outcome.statuses}, frames unaccounted for: {outcome.unaccounted}")
    print(f"starts: {outcome.starts}, exit code: {outcome.exit_code}, not back: {outcome.not_back or 'none'}")
    early, late = outcome.rss_mb[len(outcome.rss_mb) // 10], outcome.rss_mb[-1]
    print(f"resident memory: {early:.1f} MB early, {late:.1f} MB at the end, growth {outcome.growth:+.1%}")
    print(outcome.stderr[-8000:], file=sys.stderr)
    return 0 if kept(outcome) else 1


def kept(outcome: Outcome) -> bool:
    """Whether it was one process that lost no frame, came back on every source and did not grow."""
    sound = outcome.exit_code == 0 and outcome.starts == 1 and outcome.unaccounted == 0
    return sound and not outcome.not_back and outcome.growth < 0.05 and "S3cretQ" not in outcome.stderr


if __name__ == "__main__":
    numbers = [*sys.argv[1:], *("600", "50", "1")[len(sys.argv) - 1 :]]
    sys.exit(main(float(numbers[0]), int(numbers[1]), int(numbers[2])))
