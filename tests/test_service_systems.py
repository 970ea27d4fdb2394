"""The service under the systemd of other systems: JetPack's, and a newer one.

Each is booted from a root of its own; edgeinfer runs on this machine's Python there.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from edgeinfer.systemd import units
from tests import systemd_machine
from tests.systemd_machine import Machine
from tests.systemd_roots import JAMMY, NOBLE, TRIXIE, System, make, why_not
from tests.test_service import UNIT_FILES
from tests.test_service_systemd import detections_after, install, stop, told

pytestmark = [pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(500)]
CHOSEN = (JAMMY, NOBLE, *((TRIXIE,) if os.environ.get("EDGEINFER_MORE_SYSTEMS") else ()))
STOP_S = 4


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, Future[str]]]]:
    """Where each system's root is made, and what went wrong there. All are begun at once."""
    systems = [] if systemd_machine.why_not() else [system for system in CHOSEN if not why_not(system)]
    folders = {system.name: tmp_path_factory.mktemp(system.name) for system in systems}
    with ThreadPoolExecutor() as pool:
        yield {
            system.name: (folders[system.name], pool.submit(make, system, folders[system.name])) for system in systems
        }
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", params=CHOSEN, ids=lambda system: system.name)
def system(request: pytest.FixtureRequest) -> System:
    chosen: System = request.param
    if reason := systemd_machine.why_not() or why_not(chosen):
        pytest.skip(reason)
    return chosen


@pytest.fixture(scope="module")
def machine(system: System, roots: dict[str, tuple[Path, Future[str]]]) -> Iterator[Machine]:
    folder, made = roots[system.name]
    if trouble := made.result():
        pytest.skip(trouble)
    share = folder / "share"
    share.mkdir()
    booted = Machine(share, folder / system.name)
    yield booted
    booted.close()


def test_systemd_understands_every_line(machine: Machine, system: System) -> None:
    version = machine.run("systemctl", "--version").split()[1]
    assert int(version) == system.systemd
    for name in UNIT_FILES:
        path = f"/run/verify/{name.replace('@', '@x')}"
        machine.write(path, units.with_program(units.shipped(name), "/bin/true"))
        said = machine.run("systemd-analyze", "verify", "--man=no", path, check=False)
        assert not [line for line in said.splitlines() if Path(path).name in line], said


def test_it_is_started_petted_restarted_and_stopped_in_order(machine: Machine, system: System) -> None:
    log, unit = "/var/lib/edgeinfer/held/log", "edgeinfer@held"
    camera = {"uri": "tests.faults.held:", "log": log, "stop_s": STOP_S}
    endpoint = install(machine, "held", sources={"c": camera})

    def wait_for_service() -> None:
        machine.wait(lambda: machine.show(unit, "ActiveState") == "active", "the unit to be active")

    wait_for_service()
    session = detections_after(endpoint).session
    heard = machine.show(unit, "WatchdogTimestampMonotonic")
    machine.wait(lambda: machine.show(unit, "WatchdogTimestampMonotonic") != heard, "a heartbeat")
    assert machine.run("id", "-nG", "edgeinfer").split() == ["edgeinfer", "video", "render"]
    for number in ("-KILL", "-STOP"):
        machine.run("kill", number, machine.show(unit, "MainPID"))
        ended = time.monotonic()
        session = detections_after(endpoint, session).session
        print(f"systemd {system.systemd}, {number}: detections after {time.monotonic() - ended:.1f} s")
        wait_for_service()
    crash = told(endpoint).last_crash
    assert crash
    assert crash.code == "killed"
    assert machine.show(unit, "NRestarts") == "2"
    machine.run("systemctl", "stop", unit)
    assert machine.show(unit, "Result") == "success"
    assert machine.run("cat", log).split() == ["open", "closed"] * 3
    status = json.loads(machine.edgeinfer("service", "status", "--instance", "held", "--json"))
    assert status["state"] == "inactive (dead)"
    stop(machine, "held")
