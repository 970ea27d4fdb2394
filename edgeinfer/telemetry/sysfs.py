"""Reads temperatures, clocks, load and throttling from /sys and /proc. Pure; the root can be a captured tree.

Files as the kernel documents them (Documentation/ABI/testing/sysfs-class-thermal, -devfreq; proc(5)) and, for what
only a Jetson has, the Jetson Linux Developer Guide. What a machine lacks is left out, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import UNSET, UnsetType

from edgeinfer.environment import formats
from edgeinfer.environment.tree import Tree
from edgeinfer.messages import MachineVitals

_THERMAL = "sys/class/thermal"
_DEVFREQ = "sys/class/devfreq"
_HWMON = "sys/class/hwmon"

_GPU = re.compile(r"(?:.*\.)?(?:gpu|gpu\.0|gm20b|gp10b|gv11b|ga10b|gb10b|gpu-gpc-\d)$")
"""Names of a Jetson's GPU as a platform device: the chip's, or plainly gpu; Thor's clock is called gpu-gpc-0."""
_POWER_MONITORS = re.compile(r"ina\d{3,4}$")
"""Names of TI's chips that measure a Jetson's power rails."""
_BRAKES = re.compile(r"throttle|hot-surface|cpufreq|devfreq|^Processor$", re.IGNORECASE)
"""Cooling devices that cool by slowing something down; a fan does not."""
_LOAD_FOLDERS = ("sys/devices", "sys/devices/platform", "sys/devices/platform/bus@0")
MAX_CELSIUS, MIN_CELSIUS = 200.0, -60.0
"""What lies outside is no reading: a sensor that is switched off says so with an absurd value."""


def read(tree: Tree) -> MachineVitals:
    """The machine as it is now. Never raises for what can't be read."""
    memory = _memory(tree)
    return MachineVitals(
        temperatures_c=dict(_temperatures(tree)) or UNSET,
        throttled=sorted(_throttled(tree)),
        gpu_load=_gpu_load(tree),
        gpu_hz=_gpu_clock(tree),
        power_mw=dict(_power(tree)) or UNSET,
        power_mode=_power_mode(tree),
        memory_total_bytes=memory.get("MemTotal", UNSET),
        memory_available_bytes=memory.get("MemAvailable", UNSET),
    )


def over_current_events(tree: Tree) -> int:
    """How often a Jetson has been slowed down for drawing too much current, since it was started."""
    return sum(
        _integer(tree, f"{_HWMON}/{device}/{name}") or 0
        for device in tree.names(_HWMON)
        for name in tree.names(f"{_HWMON}/{device}")
        if re.fullmatch(r"oc\d+_event_cnt", name)
    )


def _temperatures(tree: Tree) -> Iterator[tuple[str, float]]:
    """Zone → °C. Zones of one name are numbered."""
    taken: set[str] = set()
    for zone in _numbered(tree, "thermal_zone"):
        name = _label(tree, f"{_THERMAL}/{zone}/type") or zone
        celsius = (_integer(tree, f"{_THERMAL}/{zone}/temp") or 0) / 1000
        if celsius == 0 or not MIN_CELSIUS <= celsius <= MAX_CELSIUS:
            continue
        name = name if name not in taken else f"{name}-{zone.removeprefix('thermal_zone')}"
        taken.add(name)
        yield name, round(celsius, 1)


def _throttled(tree: Tree) -> set[str]:
    """Names of the cooling devices that slow something down now."""
    found = set()
    for device in _numbered(tree, "cooling_device"):
        name = _label(tree, f"{_THERMAL}/{device}/type")
        if name and _BRAKES.search(name) and (_integer(tree, f"{_THERMAL}/{device}/cur_state") or 0) > 0:
            found.add(name)
    return found


def _gpu_load(tree: Tree) -> float | UnsetType:
    """0 to 1. A Jetson's driver gives thousandths."""
    for folder in _LOAD_FOLDERS:
        for name in tree.names(folder):
            if _GPU.match(name) and (load := _integer(tree, f"{folder}/{name}/load")) is not None:
                return min(1.0, max(0.0, load / 1000))
    for name in tree.names(_DEVFREQ):
        if _GPU.match(name) and (load := _integer(tree, f"{_DEVFREQ}/{name}/device/load")) is not None:
            return min(1.0, max(0.0, load / 1000))
    return UNSET


def _gpu_clock(tree: Tree) -> int | UnsetType:
    for name in tree.names(_DEVFREQ):
        if _GPU.match(name) and (hertz := _integer(tree, f"{_DEVFREQ}/{name}/cur_freq")) is not None:
            return max(0, hertz)
    return UNSET


def _power(tree: Tree) -> Iterator[tuple[str, int]]:
    """Rail → mW, from the chips that measure them (Documentation/hwmon): mV times mA, or µW where the chip multiplies.

    A rail that is off, or not connected, has no reading. Rails of one name are numbered by their chip.
    """
    taken: set[str] = set()
    for device in tree.names(_HWMON):
        folder = f"{_HWMON}/{device}"
        if not _POWER_MONITORS.match(_label(tree, f"{folder}/name")):
            continue
        for number in range(1, 4):  # what INA3221 has beyond is voltages of shunts, and sums
            milliwatts = _milliwatts(tree, folder, number)
            name = _label(tree, f"{folder}/in{number}_label") or _label(tree, f"{folder}/power{number}_label")
            if milliwatts is not None and name != "NC":
                name = name or f"{device}-{number}"
                name = name if name not in taken else f"{name}-{device}"
                taken.add(name)
                yield name, milliwatts


def _milliwatts(tree: Tree, folder: str, number: int) -> int | None:
    microwatts = _integer(tree, f"{folder}/power{number}_input")
    if microwatts is not None:
        return max(0, microwatts // 1000)
    millivolts = _integer(tree, f"{folder}/in{number}_input")
    milliamperes = _integer(tree, f"{folder}/curr{number}_input")
    if millivolts is None or milliamperes is None:
        return None
    return max(0, millivolts * milliamperes // 1000)


def _power_mode(tree: Tree) -> str | UnsetType:
    status = tree.text("var/lib/nvpmodel/status")
    mode = formats.power_mode(status, tree.text("etc/nvpmodel.conf") or "") if status else None
    return str(mode) if mode else UNSET


def _memory(tree: Tree) -> dict[str, int]:
    lines = re.findall(r"^(MemTotal|MemAvailable):\s+(\d{1,15}) kB$", tree.text("proc/meminfo") or "", re.MULTILINE)
    return {name: int(kilobytes) * 1024 for name, kilobytes in lines}


def _numbered(tree: Tree, prefix: str) -> list[str]:
    names = [name for name in tree.names(_THERMAL) if re.fullmatch(rf"{prefix}\d{{1,4}}", name)]
    return sorted(names, key=lambda name: int(name.removeprefix(prefix)))


def _integer(tree: Tree, path: str) -> int | None:
    text = (tree.text(path, 64) or "").strip()
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else None


def _label(tree: Tree, path: str) -> str:
    """A short name that can stand anywhere."""
    return re.sub(r"[^\w.@-]+", "-", (tree.text(path, 64) or "").strip(), flags=re.ASCII)[:40]
