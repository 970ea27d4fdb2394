"""The siege in full. Prints what was done and what came of it; exits with 1 where a promise was not kept."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.siege.director import FEW, parts
from tests.siege.outcome import Outcome, page


def main(minutes: float, seed: int) -> int:
    """Returns the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended on the way out
    started = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s: {what}", flush=True)

    with tempfile.TemporaryDirectory(prefix="edgeinfer-siege-") as folder:
        many, few = parts(Path(folder), minutes * 60, seed, tell)
    broken = [*_shown("siege", many), *_shown(f"the same with {FEW} descriptors", few)]
    return 1 if broken else 0


def _shown(title: str, outcome: Outcome) -> list[str]:
    print(f"\n{title}, seed {outcome.seed}\n\n{page(outcome)}\n")
    broken = outcome.broken()
    for what in broken:
        print(f"broken: {what}")
    print(f"promises broken: {len(broken) or 'none'}")
    print(outcome.log[-8000:] if broken else "", file=sys.stderr)
    return broken


if __name__ == "__main__":
    given = [*sys.argv[1:], *("10", "1")[len(sys.argv) - 1 :]]
    sys.exit(main(float(given[0]), int(given[1])))
