"""A build child for tests: does what its first argument says, by the protocol of the real one.

build      writes a plan and reports it        slow    the same after reporting 50 steps
hang       reports a step and waits for ever   eat     takes memory until it is stopped
crash      ends by SIGSEGV                     killed  ends by SIGKILL
rubbish    ends with a traceback               fail    reports a failure
full       fails for lack of space
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec

from edgeinfer.engine.build import worker
from edgeinfer.engine.build.construct import Emit
from edgeinfer.engine.build.protocol import BuildRequest, Built, Failed, Logged, Step, Warned
from edgeinfer.engine.store.manifest import Verification
from tests.engine.plans import make_plan


def main(mode: str) -> None:
    emit = worker._event_writer()
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=BuildRequest)
    threading.Thread(target=worker._die_with_parent, args=(Path(request.workspace),), daemon=True).start()
    emit(Step("Working", 0.5))
    emit(Logged("INFO hello"))
    plan = make_plan(request.tensorrt, os.urandom(100_000))
    if mode == "slow":
        write_slowly(Path(request.work) / "engine.plan", plan, emit)
    if mode == "hang":
        time.sleep(3600)
    if mode == "eat":
        eat()
    if mode in {"crash", "killed"}:
        os.kill(os.getpid(), signal.SIGSEGV if mode == "crash" else signal.SIGKILL)
    if mode == "rubbish":
        raise ValueError("something odd")
    if mode in {"fail", "full"}:
        emit(
            Failed("ToleranceError", "too far", "try again")
            if mode == "fail"
            else worker._unforeseen(OSError(28, "No space left on device"))
        )
        sys.exit(1)
    print("a library's chatter")
    emit(Warned("this TensorRT has no such thing"))
    (Path(request.work) / "engine.plan").write_bytes(plan)
    check = Verification(state="skipped", reason="no GPU")
    digest = hashlib.sha256(plan).hexdigest()
    emit(
        Built(
            seconds=1.5, how="as it was", plan_bytes=len(plan), plan_sha256=digest, peak_rss_bytes=1, verification=check
        )
    )


def write_slowly(path: Path, plan: bytes, emit: Emit) -> None:
    for step in range(50):
        with contextlib.suppress(FileNotFoundError):  # the parent died: the next event tells
            path.write_bytes(plan[: 1000 * step])
        emit(Step("Working", step / 50))
        time.sleep(0.01)


def eat() -> None:
    hoard = []
    while True:
        hoard.append(os.urandom(4 << 20))
        time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1])
