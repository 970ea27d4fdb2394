"""Sensors read from trees like those of real machines, and what is done about heat."""

from __future__ import annotations

import io
import itertools
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from edgeinfer.client import Subscriber
from edgeinfer.config.settings import load_config
from edgeinfer.daemon.daemon import Daemon
from edgeinfer.daemon.signals import Patience, Signals
from edgeinfer.environment import tree as tree_module
from edgeinfer.environment.tree import Tree
from edgeinfer.flow.accounting import Ledger
from edgeinfer.flow.capture import CaptureThread, Job
from edgeinfer.flow.mailbox import Mailbox
from edgeinfer.messages import DAEMON, MachineVitals, Reason, StatusMessage
from edgeinfer.sources.demo import Demo, Options
from edgeinfer.telemetry import sysfs
from edgeinfer.telemetry.bulletin import Bulletin
from edgeinfer.telemetry.governor import CALM_S, STEPS, WORSE_S, Governor, Thinning
from edgeinfer.telemetry.sampler import Sampler, hottest
from edgeinfer.telemetry.snapshot import SourceSnapshot, total

HOT = ["cpu-throttle-alert"]


def tree(root: Path, **files: str) -> Tree:
    """A folder with these files; `__` in a name is a slash, `_at_` an @."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_at_", "@")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree(root)


def orin(root: Path, throttled: int = 0, celsius: float = 61.5) -> Tree:
    """What an Orin with JetPack 6 shows, by the Jetson Linux Developer Guide."""
    thermal = "sys__class__thermal__"
    return tree(
        root,
        **{
            f"{thermal}thermal_zone0__type": "cpu-thermal\n",
            f"{thermal}thermal_zone0__temp": f"{celsius * 1000:.0f}\n",
            f"{thermal}thermal_zone1__type": "gpu-thermal\n",
            f"{thermal}thermal_zone1__temp": "58031\n",
            f"{thermal}thermal_zone2__type": "cv0-thermal\n",
            f"{thermal}thermal_zone2__temp": "-256000\n",  # powered off
            f"{thermal}cooling_device0__type": "pwm-fan\n",
            f"{thermal}cooling_device0__cur_state": "3\n",
            f"{thermal}cooling_device1__type": "cpu-throttle-alert\n",
            f"{thermal}cooling_device1__cur_state": f"{throttled}\n",
            "sys__devices__platform__bus_at_0__17000000.gpu__load": "437\n",
            "sys__class__devfreq__17000000.gpu__cur_freq": "918000000\n",
            "sys__class__hwmon__hwmon3__oc1_event_cnt": "0\n",
            "proc__meminfo": "MemTotal:        7802340 kB\nMemFree: 1 kB\nMemAvailable:    5123456 kB\n",
            "var__lib__nvpmodel__status": "pmode:0002",
            "etc__nvpmodel.conf": "< POWER_MODEL ID=2 NAME=15W >\n",
        },
    )


def test_an_orin(tmp_path: Path) -> None:
    assert sysfs.read(orin(tmp_path)) == MachineVitals(
        throttled=[],
        temperatures_c={"cpu-thermal": 61.5, "gpu-thermal": 58.0},
        gpu_load=0.437,
        gpu_hz=918_000_000,
        power_mode="15W",
        memory_total_bytes=7802340 * 1024,
        memory_available_bytes=5123456 * 1024,
    )
    assert hottest(sysfs.read(orin(tmp_path))) == "cpu-thermal 62 °C"


def test_a_fan_is_no_brake_and_a_throttle_is(tmp_path: Path) -> None:
    assert sysfs.read(orin(tmp_path, throttled=1)).throttled == ["cpu-throttle-alert"]


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    assert sysfs.read(Tree(tmp_path)) == MachineVitals()
    assert hottest(MachineVitals()) == ""


def test_zones_of_one_name(tmp_path: Path) -> None:
    files = {f"sys__class__thermal__thermal_zone{n}__type": "acpitz" for n in (0, 3)}
    temperatures = {f"sys__class__thermal__thermal_zone{n}__temp": f"{n + 40}000" for n in (0, 3)}
    machine = sysfs.read(tree(tmp_path, **files, **temperatures))
    assert machine.temperatures_c == {"acpitz": 40.0, "acpitz-3": 43.0}


@given(name=st.binary(max_size=80), value=st.binary(max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rubbish_in_a_sensor(tmp_path: Path, name: bytes, value: bytes) -> None:
    folder = tmp_path / "sys/class/thermal/thermal_zone0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "type").write_bytes(name)
    (folder / "temp").write_bytes(value)
    machine = sysfs.read(Tree(tmp_path))
    if machine.temperatures_c is not UNSET:
        for zone, celsius in machine.temperatures_c.items():
            assert zone.isprintable()
            assert zone.isascii()
            assert -60 <= celsius <= 200


def test_over_current_counts_as_throttling_while_it_grows(tmp_path: Path) -> None:
    orin(tmp_path)
    governor = Governor()
    sampler = Sampler(tmp_path, governor, Bulletin())
    sampler.sample(0.0)
    assert sampler.machine is not None
    assert sampler.machine.throttled == []
    (tmp_path / "sys/class/hwmon/hwmon3/oc1_event_cnt").write_text("2\n")
    sampler.sample(2.0)
    assert sampler.machine.throttled == ["over-current"]
    assert governor.factor < 1
    sampler.sample(4.0)
    assert sampler.machine.throttled == []


def test_what_is_no_reading_is_left_out(tmp_path: Path) -> None:
    for number, milli in enumerate(("200000", "200001", "-60000", "-60001", "0", "x", "45678")):
        tree(tmp_path, **{
            f"sys__class__thermal__thermal_zone{number}__type": f"z{number}",
            f"sys__class__thermal__thermal_zone{number}__temp": milli,
        })  # fmt: skip
    assert sysfs.read(Tree(tmp_path)).temperatures_c == {"z0": 200.0, "z2": -60.0, "z6": 45.7}


@pytest.mark.parametrize(
    ("name", "brakes"),
    [
        ("cpu-throttle-alert", True), ("hot-surface-alert", True), ("cpufreq-cpu0", True), ("devfreq-gpu", True),
        ("Processor", True), ("Processor-x", False), ("pwm-fan", False), ("intel_powerclamp", False),
    ],
)  # fmt: skip
def test_what_slows_a_machine_down(tmp_path: Path, name: str, brakes: bool) -> None:
    device = "sys__class__thermal__cooling_device12"
    found = sysfs.read(tree(tmp_path, **{f"{device}__type": name, f"{device}__cur_state": "2"}))
    assert found.throttled == ([name] if brakes else [])
    assert sysfs.read(tree(tmp_path, **{f"{device}__cur_state": "0"})).throttled == []
    assert sysfs.read(tree(tmp_path, **{f"{device}__cur_state": "-1"})).throttled == []


@pytest.mark.parametrize(
    ("name", "is_gpu"),
    [
        ("17000000.gpu", True), ("57000000.gpu", True), ("gpu.0", True), ("17000000.ga10b", True), ("gpu", True),
        ("gpu-gpc-0", True), ("gpu-nvd-0", False),
        ("17000000.gv11b", True), ("17000000.gp10b", True), ("57000000.gm20b", True), ("x.gb10b", True),
        ("15340000.vic", False), ("17000000.gpux", False), ("cpu", False),
    ],
)  # fmt: skip
def test_which_device_is_the_gpu(tmp_path: Path, name: str, is_gpu: bool) -> None:
    for folder in ("sys/devices", "sys/devices/platform", "sys/devices/platform/bus@0"):
        root = tmp_path / folder.replace("/", "-")
        for path, text in ((f"{folder}/{name}/load", "250"), (f"sys/class/devfreq/{name}/cur_freq", "1300500000")):
            (root / path).parent.mkdir(parents=True)
            (root / path).write_text(text)
        found = sysfs.read(Tree(root))
        assert (found.gpu_load, found.gpu_hz) == ((0.25, 1300500000) if is_gpu else (UNSET, UNSET))


def test_the_load_of_the_device_behind_the_clock(tmp_path: Path) -> None:
    files = {"sys__class__devfreq__17000000.ga10b__device__load": "437", "sys__class__devfreq__x__device__load": "9"}
    assert sysfs.read(tree(tmp_path, **files)).gpu_load == 0.437


def ina3221(number: int, *rails: tuple[str, str, str]) -> dict[str, str]:
    """The kernel's Documentation/hwmon/ina3221.rst: label, mV and mA of each channel; then shunts, and sums."""
    folder = f"sys__class__hwmon__hwmon{number}__"
    files = {f"{folder}name": "ina3221\n", f"{folder}in7_label": "sum of shunt voltages", f"{folder}in7_input": "7"}
    files |= {f"{folder}in{shunt}_input": "11" for shunt in (4, 5, 6)} | {f"{folder}curr4_input": "360"}
    for channel, (label, millivolts, milliamperes) in enumerate(rails, 1):
        files[f"{folder}in{channel}_label"] = f"{label}\n"
        files[f"{folder}in{channel}_input"] = f"{millivolts}\n"
        files[f"{folder}curr{channel}_input"] = f"{milliamperes}\n"
    return files


def test_power_rails(tmp_path: Path) -> None:
    one = ina3221(3, ("VDD_IN", "5000", "716"), ("VDD_CPU_GPU_CV", "4992", "96"), ("NC", "5", "1"))
    two = ina3221(4, ("VDD_IN", "5000", "1"), ("off", "", "x"), ("VDDQ", "1000", "-5"))
    thor = "sys__class__hwmon__hwmon5__"
    three = {
        f"{thor}name": "ina238",
        f"{thor}power1_input": "12345678",
        f"{thor}in1_input": "1",
        f"{thor}curr1_input": "1",
    }
    other = {f"sys__class__hwmon__hwmon6__{name}": "1" for name in ("in1_input", "curr1_input")}
    other["sys__class__hwmon__hwmon6__name"] = "nct6775"
    found = sysfs.read(tree(tmp_path, **one, **two, **three, **other)).power_mw
    assert found == {"VDD_IN": 3580, "VDD_CPU_GPU_CV": 479, "VDD_IN-hwmon4": 5, "VDDQ": 0, "hwmon5-1": 12345}


class SwitchedOff(io.RawIOBase):
    """A sensor whose driver answers EAGAIN, which Linux's files say to a reader that does not wait."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def fileno(self) -> int:
        return self._file.fileno()

    def readinto(self, buffer: object) -> None:
        return None

    def close(self) -> None:
        self._file.close()
        super().close()


def test_a_zone_that_is_off_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(path: Path) -> io.BufferedReader:
        if path.parent.name == "thermal_zone1" and path.name == "temp":
            return io.BufferedReader(SwitchedOff(path))
        return path.open("rb")

    monkeypatch.setattr(tree_module, "open_anything", opened)
    assert sysfs.read(orin(tmp_path)).temperatures_c == {"cpu-thermal": 61.5}


@pytest.mark.parametrize(("text", "load"), [("0", 0.0), ("1000", 1.0), ("1001", 1.0), ("-5", 0.0), ("x", UNSET)])
def test_the_load_is_a_share(tmp_path: Path, text: str, load: float) -> None:
    assert sysfs.read(tree(tmp_path, sys__devices__gpu__load=text)).gpu_load == load


def test_over_current_is_counted_over_all_sensors(tmp_path: Path) -> None:
    hwmon = "sys__class__hwmon__hwmon"
    counted = {f"{hwmon}1__oc1_event_cnt": "2", f"{hwmon}1__oc2_event_cnt": "3", f"{hwmon}22__oc3_event_cnt": "4"}
    other = {f"{hwmon}1__oc1_event_max": "50", f"{hwmon}1__in1_input": "60", f"{hwmon}1__oc4_event_cnt": "x"}
    assert sysfs.over_current_events(tree(tmp_path, **counted, **other)) == 9


def test_the_hottest_zone() -> None:
    assert hottest(MachineVitals(temperatures_c={"a": 40.0, "b": 61.4, "c": 50.0})) == "b 61 °C"


def test_the_sampler_tells_of_every_change_of_mind_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    orin(tmp_path, throttled=1)
    board = Bulletin()
    sampler = Sampler(tmp_path, Governor(), board)
    for now in (0.0, 2.0, 4.0):
        sampler.sample(now)
    told = board.heat
    assert told is not None
    assert told.code == "throttled"
    assert "throttled (cpu-throttle-alert), cpu-thermal 62 °C: live sources at 75%" in told.text
    orin(tmp_path, throttled=0)
    sampler.sample(63.9)
    assert board.heat is told
    for now in (64.0, 70.0):
        sampler.sample(now)
    assert board.heat is None
    calm = "the machine is not throttled any more: all frames are used"
    assert [record.getMessage() for record in caplog.records] == [told.text, calm]


def test_a_sensor_that_breaks_the_sampler_ends_it_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(tree: Tree) -> MachineVitals:
        raise ZeroDivisionError

    monkeypatch.setattr(sysfs, "read", fail)
    sampler = Sampler(tmp_path, Governor(), Bulletin())
    sampler.run()
    assert "no more is read" in caplog.text
    assert sampler.machine is None


# --- the sum over sources ---


def test_the_daemons_books_are_the_sum_of_all() -> None:
    one = SourceSnapshot("running", None, 10, 7, 1, {"overload": 2}, 5.0, 1, 2)
    other = SourceSnapshot("failed", Reason("x", "y"), 100, 70, 10, {"overload": 15, "stale": 5}, 2.5, 3, 4)
    reason = Reason("a", "b")
    assert total("running", reason, [one, other]) == SourceSnapshot(
        "running", reason, 110, 77, 11, {"overload": 17, "stale": 5}, 7.5, 4, 6
    )
    assert total("starting", None, []) == SourceSnapshot("starting", None, 0, 0, 0, {}, 0)


# --- the answer ---


def test_when_a_step_is_taken_and_taken_back() -> None:
    assert (STEPS, WORSE_S, CALM_S) == ((1.0, 0.75, 0.5, 0.35, 0.25), 10.0, 60.0)
    governor = Governor()
    changes = [
        (now, governor.factor)
        for now, hot in (
            (0.0, True),
            (9.9, True),
            (10.0, True),
            (12.0, False),
            (69.9, False),
            (70.0, True),
            (80.0, False),
            (129.9, False),
            (130.0, False),
            (189.9, False),
            (190.0, False),
            (249.9, False),
            (250.0, False),
        )
        if governor.update(HOT if hot else [], "", now)
    ]
    assert changes == [(0.0, 0.75), (10.0, 0.5), (70.0, 0.35), (130.0, 0.5), (190.0, 0.75), (250.0, 1.0)]


def test_the_reason_while_it_cools_down() -> None:
    governor = Governor()
    governor.update(HOT, "soc 99 °C", 0.0)
    governor.update(["a", "b"], "soc 99 °C", 10.0)
    assert governor.reason is not None
    assert governor.reason.text == "the machine is throttled (a, b), soc 99 °C: live sources at 50% of their frames"
    governor.update([], "soc 70 °C", 70.0)
    assert governor.reason == Reason(
        "throttled", "the machine is cooling down, soc 70 °C: live sources at 75% of their frames"
    )
    governor.update([], "", 130.0)
    assert governor.reason is None


def test_after_full_rate_thinning_begins_anew() -> None:
    thinning = Thinning()
    assert [thinning.keep(0.75) for _ in range(4)] == [False, True, True, True]
    assert not thinning.keep(0.5)
    assert thinning.keep(1.0)
    assert [thinning.keep(0.5) for _ in range(4)] == [False, True, False, True], "no credit is left from before"


def test_heat_lowers_the_rate_step_by_step_and_calm_restores_it() -> None:
    governor, seen = Governor(), []
    for second in range(0, 60, 2):
        governor.update(HOT, "soc 99 °C", float(second))
        seen.append(governor.factor)
    assert sorted(set(seen), reverse=True) == list(STEPS[1:])
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == STEPS[1]
    assert governor.reason == Reason(
        "throttled", "the machine is throttled (cpu-throttle-alert), soc 99 °C: live sources at 25% of their frames"
    )
    calm = []
    for second in range(60, 60 + round(CALM_S) * 5):
        governor.update([], "", float(second))
        calm.append(governor.factor)
    assert calm == sorted(calm)
    assert governor.factor == 1
    assert governor.reason is None


def test_it_does_not_swing() -> None:
    """Throttling that comes and goes every few seconds keeps the rate down instead of moving it up and down."""
    governor = Governor()
    times = (float(second) for second in range(600))
    changes = [governor.factor for now in times if governor.update(HOT if now % 20 < 4 else [], "", now)]
    assert changes == sorted(changes, reverse=True), "it never goes up while it still throttles"


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 30)), max_size=200))
def test_the_share_is_always_one_of_the_steps(history: list[tuple[bool, float]]) -> None:
    governor, now, last = Governor(), 0.0, -WORSE_S
    for hot, wait in history:
        now += wait
        if governor.update(HOT if hot else [], "", now):
            assert now - last >= WORSE_S or governor.factor == STEPS[1]
            last = now
        assert governor.factor in STEPS
        assert (governor.reason is None) == (governor.factor == 1)


@pytest.mark.parametrize("factor", STEPS)
def test_frames_are_left_out_evenly(factor: float) -> None:
    thinning = Thinning()
    kept = [thinning.keep(factor) for _ in range(1000)]
    assert abs(sum(kept) - factor * 1000) <= 1
    gaps = [i for i, keep in enumerate(kept) if keep]
    assert {b - a for a, b in itertools.pairwise(gaps)} <= {int(1 / factor), int(1 / factor) + 1}


@pytest.mark.parametrize(("realtime", "expected"), [(True, 50), (False, 100)])
def test_live_sources_are_thinned_out_and_files_are_not(realtime: bool, expected: int) -> None:
    governor = Governor()
    governor.factor = 0.5
    ledger, mailbox = Ledger(time.monotonic_ns), Mailbox(200)
    camera = Demo(Options(frames=100, fps=1000, realtime=realtime, width=64, height=64))
    camera.live = realtime
    capture = CaptureThread(Job("a", lambda: camera, ledger, mailbox, governor=governor))
    capture.run()
    books = ledger.snapshot()
    assert books.captured == 100
    assert books.captured - books.dropped.get("thermal", 0) == expected


@pytest.mark.slow
def test_a_throttled_machine_says_so_lowers_the_rate_and_recovers(tmp_path: Path, ipc: str) -> None:
    orin(tmp_path, throttled=1)
    config = load_config(None, [("sources.cam", "demo:"), ("publish.bind", ipc), ("sources.cam.fps", 200)])
    daemon = Daemon(config, root=tmp_path)
    with Signals() as signals, Subscriber(ipc, kinds=("status",)) as subscriber:
        daemon.start()
        told: StatusMessage | None = None
        dropped, end = 0, time.monotonic() + 60
        while (told is None or not dropped) and time.monotonic() < end and daemon.turn():
            message = subscriber.receive(0.05)
            if isinstance(message, StatusMessage) and message.source == DAEMON and message.reason is not None:
                told = message
            if isinstance(message, StatusMessage):
                dropped = max(dropped, message.dropped_by_reason.get("thermal", 0))
        daemon.stop(Patience(signals, hurry=True))
    assert told is not None
    assert told.reason is not None
    assert told.reason.code == "throttled"
    assert told.vitals is not UNSET
    assert told.vitals.rate < 1
    assert told.vitals.machine is not UNSET
    assert told.vitals.machine.throttled == ["cpu-throttle-alert"]
    assert dropped > 0
