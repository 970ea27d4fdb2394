"""The service under the real systemd: ready, petted, restarted, not restarted, each as promised."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from edgeinfer.client import Subscriber
from edgeinfer.messages import DAEMON, DetectionsMessage, StatusMessage
from tests.conftest import need_gst
from tests.systemd_machine import Machine, why_not

pytestmark = [pytest.mark.long, pytest.mark.alone, pytest.mark.timeout(300)]
WATCHDOG_S = 5
PATIENT_S = 60
"""Where nothing is to go wrong, a machine that is busy with other things must not make it."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if reason := why_not():
        pytest.skip(reason)
    booted = Machine(tmp_path_factory.mktemp("machine"))
    yield booted
    booted.close()


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def install(
    machine: Machine, name: str, watchdog_s: int = WATCHDOG_S, options: tuple[str, ...] = (), **settings: Any
) -> str:
    """Installs an instance with its own deadlines, the stages' at half of systemd's. Returns its endpoint."""
    endpoint = free_endpoint()
    config = {
        "sources": {"d": "demo:"},
        "publish": {"bind": endpoint},
        "watchdog": {"deadline_s": watchdog_s / 2},
        **settings,
    }
    path = machine.share / f"{name}.yaml"
    path.write_text(json.dumps(config))
    quick = f"[Service]\nWatchdogSec={watchdog_s}\nTimeoutStartSec=3\nRestartSec=1\nEnvironment=PYTHONPATH=/opt/src\n"
    machine.write(f"/etc/systemd/system/edgeinfer@{name}.service.d/90-test.conf", quick)
    machine.edgeinfer("service", "install", "--no-start", "--instance", name, "--config", str(path), *options)
    machine.run("systemctl", "start", "--no-block", f"edgeinfer@{name}")
    return endpoint


def stop(machine: Machine, name: str) -> None:
    machine.edgeinfer("service", "uninstall", "--instance", name, "--purge")


def detections_after(endpoint: str, session: str = "") -> DetectionsMessage:
    """The first detections of another session."""
    with Subscriber(endpoint) as subscriber:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            message = subscriber.receive(1)
            if isinstance(message, DetectionsMessage) and message.session != session:
                return message
    raise AssertionError("no detections for 60 s")


def told(endpoint: str) -> StatusMessage:
    with Subscriber(endpoint, kinds=("status",)) as subscriber:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            message = subscriber.receive(1)
            if isinstance(message, StatusMessage) and message.source == DAEMON:
                return message
    raise AssertionError("no status for 60 s")


def test_installed_it_serves_survives_a_kill_and_leaves_nothing_but_the_users_data(machine: Machine) -> None:
    endpoint = free_endpoint()
    path = machine.share / "edgeinfer.yaml"
    path.write_text(json.dumps({"sources": {"d": "demo:"}, "publish": {"bind": endpoint}}))
    said = machine.edgeinfer("service", "install", "--config", str(path))
    assert "run systemctl restart edgeinfer.service" in said
    assert machine.show("edgeinfer", "ActiveState") == "active"
    assert "onnxruntime-cpu: " in machine.show("edgeinfer", "StatusText")
    pid = machine.show("edgeinfer", "MainPID")
    assert "uid=" in machine.run("id", "edgeinfer")
    assert machine.run("stat", "-c", "%U", f"/proc/{pid}").strip() == "edgeinfer"

    again = machine.edgeinfer("service", "install", "--config", str(path))
    assert "write" not in again
    assert machine.show("edgeinfer", "MainPID") == pid, "a second install must not disturb what runs"

    session = detections_after(endpoint).session
    machine.run("kill", "-KILL", pid)
    killed = time.monotonic()
    detections_after(endpoint, session)
    print(f"kill -9 → detections again: {time.monotonic() - killed:.1f} s")
    assert machine.show("edgeinfer", "NRestarts") == "1"
    crash = told(endpoint).last_crash
    assert crash
    assert crash.code == "killed"
    status = json.loads(machine.edgeinfer("service", "status", "--json"))
    assert (status["restarts"], status["last_crash"]["code"]) == (1, "killed")

    entries = [json.loads(line) for line in machine.run("journalctl", "-u", "edgeinfer", "-o", "json").splitlines()]
    entries = [entry for entry in entries if entry.get("_PID") == pid]
    messages = [entry["MESSAGE"] for entry in entries]
    assert [text for text in messages if text.startswith("d is ")] == ["d is starting", "d is running"]
    if find_spec("systemd.journal") is not None:
        ours = [entry for entry in entries if entry.get("EDGEINFER_SOURCE") == "d"]
        assert [entry["EDGEINFER_EVENT"] for entry in ours] == ["starting", "running"]
    assert len(messages) == len(set(messages)), "a line is there twice"

    machine.edgeinfer("service", "uninstall")
    assert machine.show("edgeinfer", "LoadState") == "not-found"
    assert machine.run("ls", "/etc/edgeinfer").split() == ["edgeinfer.yaml"]
    machine.edgeinfer("service", "uninstall", "--purge")
    assert not machine.run(
        "sh", "-c", "ls -d /etc/edgeinfer /var/lib/edgeinfer /var/cache/edgeinfer 2>/dev/null || true"
    )


def test_a_wrong_configuration_is_not_tried_again(machine: Machine) -> None:
    install(machine, "wrong", PATIENT_S)
    machine.write("/etc/edgeinfer/wrong.yaml", "sauces: {}\n")
    machine.run("sh", "-c", "chgrp edgeinfer /etc/edgeinfer/wrong.yaml; chmod 640 /etc/edgeinfer/wrong.yaml")
    machine.systemctl("restart", "edgeinfer@wrong")
    machine.wait(lambda: machine.show("edgeinfer@wrong", "ActiveState") == "failed", "the unit to fail")
    time.sleep(2)
    assert machine.show("edgeinfer@wrong", "ExecMainStatus") == "78"
    assert machine.show("edgeinfer@wrong", "NRestarts") == "0"
    assert "sauces: unknown key" in machine.journal("-u", "edgeinfer@wrong")
    stop(machine, "wrong")


def test_a_start_that_takes_longer_than_its_timeout_is_waited_for(machine: Machine) -> None:
    """TimeoutStartSec is 3 s; loading takes 8. Until the first result the unit is not active."""
    install(machine, "slow", PATIENT_S, backend={"name": "tests.faults.backend", "start_s": 8})
    started = time.monotonic()
    seen = set()

    def active() -> bool:
        seen.add((machine.show("edgeinfer@slow", "ActiveState"), machine.show("edgeinfer@slow", "StatusText")))
        return machine.show("edgeinfer@slow", "ActiveState") == "active"

    machine.wait(active, "the slow unit to be active")
    assert time.monotonic() - started > 7
    assert ("activating", "loading the model") in seen
    assert machine.show("edgeinfer@slow", "NRestarts") == "0"
    assert machine.show("edgeinfer@slow", "Result") == "success"
    stop(machine, "slow")


FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "submit": ("faults/backend.py", {"backend": {"name": "tests.faults.backend", "fault": "submit"}}),
    "never": ("edgeinfer/flow/inference.py", {"backend": {"name": "tests.faults.backend", "fault": "never"}}),
    "sink": ("faults/sink.py", {"sinks": {"tests.faults.sink": {}}}),
    "cuda": ("CUDA error 700", {"backend": {"name": "tests.faults.backend", "fault": "cuda"}}),
    "gil": ("faults/backend.py", {"backend": {"name": "tests.faults.backend", "fault": "gil"}}),
}


def test_every_stage_that_stands_still_is_restarted_with_its_stacks_in_the_journal(machine: Machine) -> None:
    endpoints = {name: install(machine, name, **settings) for name, (_, settings) in FAULTS.items()}
    for name, (trace, _) in FAULTS.items():
        unit = f"edgeinfer@{name}"
        machine.wait(lambda unit=unit: machine.show(unit, "NRestarts") not in ("", "0"), f"a restart of {unit}")  # type: ignore[misc]
        journal = machine.journal("-u", unit)
        assert trace in journal, journal
        assert name == "cuda" or "(most recent call first)" in journal
        code = told(endpoints[name]).last_crash
        assert code
        assert code.code == {"gil": "killed", "cuda": "sticky-cuda-error"}.get(name, "stalled")
    for name in FAULTS:
        stop(machine, name)


def test_a_frozen_process_is_restarted_with_its_stacks_in_the_journal(machine: Machine) -> None:
    endpoint = install(machine, "frozen")
    session = detections_after(endpoint).session
    machine.wait(lambda: machine.show("edgeinfer@frozen", "ActiveState") == "active", "the unit to be active")
    frozen = time.monotonic()
    machine.run("kill", "-STOP", machine.show("edgeinfer@frozen", "MainPID"))
    machine.wait(lambda: machine.show("edgeinfer@frozen", "NRestarts") not in ("", "0"), "a restart")
    print(f"SIGSTOP → restarted: {time.monotonic() - frozen:.1f} s, WatchdogSec={WATCHDOG_S}")
    detections_after(endpoint, session)
    assert "Fatal Python error: Aborted" in machine.journal("-u", "edgeinfer@frozen")
    stop(machine, "frozen")


STOP_S = 5


def test_a_camera_that_is_slow_to_stop_is_stopped_in_order_however_the_daemon_ends(machine: Machine) -> None:
    """The camera refuses whoever comes after a process that was killed."""
    need_gst()
    log = "/var/lib/edgeinfer/csi/camera.log"
    camera = {
        "uri": f"gst:nvarguscamerasrc log={log} stop-s={STOP_S}",
        "python": "/opt/src/tests/slow_camera.py",
        "reconnect": False,
    }
    endpoint = install(machine, "csi", sources={"c": camera})
    session, unit = detections_after(endpoint).session, "edgeinfer@csi"

    def told() -> list[str]:
        return [line.split()[0] for line in machine.run("cat", log).splitlines()]

    def active() -> bool:
        return machine.show(unit, "ActiveState") == "active"

    machine.wait(active, "the unit to be active")
    machine.run("systemctl", "stop", unit)
    assert told() == ["open", "closed"]
    assert machine.show(unit, "Result") == "success"
    machine.run("systemctl", "start", unit)
    for number in ("-KILL", "-STOP"):  # the second: systemd's watchdog ends it
        session = detections_after(endpoint, session).session
        machine.wait(active, "the unit to be active")
        machine.run("kill", number, machine.show(unit, "MainPID"))
        ended = time.monotonic()
        detections_after(endpoint, session)
        print(f"{number}, with a camera that takes {STOP_S} s to stop → detections: {time.monotonic() - ended:.1f} s")
    assert told() == ["open", "closed"] * 3 + ["open"]
    assert machine.show(unit, "NRestarts") == "2"
    stop(machine, "csi")
    assert "is reconnecting" not in machine.journal("-u", unit), "it ended before the daemon knew why"


def test_nvargus_daemon_is_started_again_for_a_camera_that_was_not_stopped_in_order(machine: Machine) -> None:
    """A stand-in for nvargus-daemon: started again it forgets which cameras it holds."""
    need_gst()
    log, starts = "/var/lib/edgeinfer/argus/camera.log", "/run/nvargus-starts"
    start = f"ExecStart=/bin/sh -c 'rm -f {log}; echo started >>{starts}'"
    fake = f"[Service]\nType=oneshot\nRemainAfterExit=yes\n{start}\n"
    machine.write("/etc/systemd/system/nvargus-daemon.service", fake)
    camera = {"uri": f"gst:nvarguscamerasrc log={log}", "python": "/opt/src/tests/slow_camera.py"}
    endpoint = install(machine, "argus", options=("--restart-argus",), sources={"c": camera})
    detections_after(endpoint)
    assert machine.run("cat", starts).split() == ["started"], "it is wanted, and there before the service"
    machine.run("pkill", "-KILL", "--full", "slow_camera.py")
    machine.wait(lambda: machine.run("cat", starts).split() == ["started"] * 2, "nvargus-daemon to be started again")
    machine.wait(lambda: "open" in machine.run("cat", log, check=False), "the camera to be opened again")
    assert machine.show("edgeinfer@argus", "NRestarts") == "0"
    stop(machine, "argus")
    assert machine.show("edgeinfer-argus@argus.path", "ActiveState") == "inactive"
    machine.run("sh", "-c", "systemctl stop nvargus-daemon; rm /etc/systemd/system/nvargus-daemon.service")


ALLOWED = {  # name → group
    "nvhost-ctrl": "video",
    "nvmap": "video",
    "host1x-fence": "video",
    "tegra-soc-hwpm": "video",
    "v4l2-nvdec": "video",
    "nvgpu/igpu0/ctrl": "video",
    "dma_heap/system": "video",
    "nvsciipc": "video",
    "nvidia0": "render",
    "nvidia-uvm": "render",
    "nvidia-caps/nvidia-cap1": "render",
    "dri/renderD128": "render",
    "odd-name-of-a-list": "video",
}
CLOSED = ("sdz", "i2c-9", "gpiochip9", "nvme0", "mem")
PROBE = """
import errno, json, os
def opened(name):
    try:
        os.close(os.open(f"/dev/{name}", os.O_RDWR))
    except OSError as error:
        return errno.errorcode[error.errno]
    return "open"
print(json.dumps({name: opened(name) for name in NAMES}))
"""


def test_a_service_with_strict_devices_can_open_each_that_it_needs_and_no_other(machine: Machine) -> None:
    """No driver is behind the nodes: who may open one gets ENXIO; EPERM is the service's policy, EACCES the mode."""
    for major, name in enumerate([*ALLOWED, *CLOSED], 384):
        group = ALLOWED.get(name, "video")
        make = f"mkdir -p $(dirname /dev/{name}); mknod -m 660 /dev/{name} c {major} 0; chgrp {group} /dev/{name}"
        machine.run("sh", "-c", f"getent group {group} >/dev/null || groupadd -r {group}; {make}")
    lists = "/etc/nvidia-container-runtime/host-files-for-container.d"
    machine.write(f"{lists}/devices.csv", "dev, /dev/odd-name-of-a-list\ndev, /dev/not-here\nlib, /dev/mem\n")
    probe = PROBE.replace("NAMES", repr([*ALLOWED, *CLOSED, "null"]))
    machine.write("/opt/probe.py", probe)
    folder = "/etc/systemd/system/edgeinfer@strict.service.d"
    say = "ExecStartPre=/bin/sh -c '/usr/bin/python3 /opt/probe.py >/var/lib/edgeinfer/strict/devices'"
    machine.write(f"{folder}/90-test.conf", f"[Service]\n{say}\nEnvironment=PYTHONPATH=/opt/src\n")
    config = machine.share / "strict.yaml"
    config.write_text(json.dumps({"sources": {"d": "demo:"}, "publish": {"bind": free_endpoint()}}))
    command = ("service", "install", "--instance", "strict", "--config", str(config), "--strict-devices")
    machine.edgeinfer(*command)
    found = json.loads(machine.run("cat", "/var/lib/edgeinfer/strict/devices"))
    assert found == {**dict.fromkeys(ALLOWED, "ENXIO"), **dict.fromkeys(CLOSED, "EPERM"), "null": "open"}

    machine.run("gpasswd", "--delete", "edgeinfer", "render")
    pid = machine.show("edgeinfer@strict", "MainPID")
    said = machine.edgeinfer(*command)
    assert "run usermod --append --groups render edgeinfer" in said
    assert "usermod --append --groups video" not in said
    assert {"video", "render"} <= set(machine.run("id", "-nG", "edgeinfer").split())
    assert machine.show("edgeinfer@strict", "MainPID") != pid, "what runs has the groups that it was started with"
    assert "usermod" not in machine.edgeinfer(*command)
    stop(machine, "strict")
