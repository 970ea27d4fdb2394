"""The service under an older and a newer systemd than this machine's: JetPack's lie between.

Each is booted from a root of its own. On the newer one edgeinfer itself runs, on this machine's Python; on the older
one, whose C library no such Python runs on, a stand-in for it that keeps to systemd's protocol: there it is the unit
that is tested.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from edgeinfer.systemd import units
from tests import systemd_machine
from tests.systemd_machine import Booted, Machine
from tests.systemd_roots import BULLSEYE, TRIXIE, System, make, why_not
from tests.test_service import UNIT_FILES
from tests.test_service_systemd import detections_after, install, stop, told

pytestmark = [pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(500)]
CHOSEN = (BULLSEYE, TRIXIE)
STOP_S = 4


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, Future[str]]]]:
    """Where each system's root is made, and what went wrong there. All are begun at once."""
    systems = () if systemd_machine.why_not() or why_not() else CHOSEN
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
    if reason := systemd_machine.why_not() or why_not():
        pytest.skip(reason)
    if not chosen.old and sys.base_prefix == "/usr":
        pytest.skip("this Python is a part of its system, and runs in no other; one of pyenv's does")
    return chosen


@pytest.fixture(scope="module")
def machine(system: System, roots: dict[str, tuple[Path, Future[str]]]) -> Iterator[Booted]:
    folder, made = roots[system.name]
    if trouble := made.result():
        pytest.skip(trouble)
    share = folder / "share"
    share.mkdir()
    booted = Booted(share, [], root=folder / system.name) if system.old else Machine(share, folder / system.name)
    yield booted
    booted.close()


def test_systemd_understands_every_line(machine: Booted, system: System) -> None:
    version = machine.run("systemctl", "--version").split()[1]
    assert int(version) == system.systemd
    for name in UNIT_FILES:
        path = f"/run/verify/{name.replace('@', '@x')}"
        machine.write(path, units.with_program(units.shipped(name), "/bin/true"))
        said = machine.run("systemd-analyze", "verify", "--man=no", path, check=False)
        assert not [line for line in said.splitlines() if Path(path).name in line], said


STAND_IN = """
import os, signal, socket, sys, time
peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
peer.connect(os.environ["NOTIFY_SOCKET"])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
for folder in ("STATE", "CACHE", "RUNTIME"):
    open(os.environ[folder + "_DIRECTORY"].split(":")[0] + "/mine", "w").close()
peer.send(b"READY=1")
while True:
    peer.send(b"WATCHDOG=1")
    time.sleep(0.3)
"""


def restarted(machine: Booted, unit: str, times: int) -> bool:
    return machine.show(unit, "NRestarts") == str(times)


def test_the_unit_does_its_part(machine: Booted, system: System) -> None:
    """Its user, its folders, its sandbox, its heartbeat; it comes back after both ways of dying, and ends in order."""
    if not system.old:
        pytest.skip("edgeinfer itself is tested here")
    machine.write("/opt/stand/edgeinfer/__main__.py", STAND_IN)
    for name, folder in (("sysusers.conf", "sysusers.d"), ("tmpfiles.conf", "tmpfiles.d")):
        machine.write(f"/etc/{folder}/edgeinfer.conf", units.shipped(name))
    machine.run("systemd-sysusers", "/etc/sysusers.d/edgeinfer.conf")
    machine.run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/edgeinfer.conf")
    unit = "edgeinfer.service"
    text = units.with_program(units.shipped(unit), "/usr/bin/python3")
    machine.write(f"/etc/systemd/system/{unit}", text)
    quick = "[Service]\nWatchdogSec=3\nRestartSec=1\nEnvironment=PYTHONPATH=/opt/stand\n"
    machine.write(f"/etc/systemd/system/{unit}.d/90-test.conf", quick)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", unit)
    assert machine.show(unit, "ActiveState") == "active"
    for number, (how, result) in enumerate((("-KILL", "signal"), ("-STOP", "watchdog")), 1):
        main = machine.show(unit, "MainPID")
        assert machine.run("ps", "-o", "user=", "-p", main).strip() == "edgeinfer"
        machine.run("kill", how, main)
        machine.wait(partial(restarted, machine, unit, number), result)
        machine.wait(lambda: machine.show(unit, "ActiveState") == "active", "the unit to be active again")
    machine.run("systemctl", "stop", unit)
    assert machine.show(unit, "Result") == "success"


def test_it_is_started_petted_restarted_and_stopped_in_order(machine: Booted, system: System) -> None:
    if not isinstance(machine, Machine):
        pytest.skip(f"no Python that edgeinfer needs runs on {system.name}")
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
