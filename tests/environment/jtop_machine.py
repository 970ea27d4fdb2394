"""A machine whose /run/jtop.sock is somebody's, and what is then found: the real client of jetson-stats is asked.

    unshare --mount --pid --fork --kill-child python jtop_machine.py SOMEBODY

Needs root; everything it mounts goes with the namespace. SOMEBODY is `service`, the real service of jetson-stats, which
takes the files below for a Jetson's; `frozen`, the same, stopped once it is there; `silent`, a socket that takes
connections and says nothing; `rubbish`, one that says what makes no sense; `denied`, the service's socket for another
user. Prints {"facts", "faults", "seconds", "answer", "told"} as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from edgeinfer.environment import jtop
from edgeinfer.environment.tree import Tree
from edgeinfer.telemetry.feed import Feed

SERVICE = """
import platform, sys
platform.machine = lambda: "aarch64"  # or it takes this for a PC
sys.argv = ["jtop", "--force"]
from jtop.__main__ import main
main()
"""
GPU = "sys/devices/platform/bus@0/17000000.gpu"
CLOCK = f"{GPU}/devfreq/17000000.gpu"
ZONES = "sys/devices/virtual/thermal"
CHIP = "sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040"
TREE = "sys/firmware/devicetree/base"
FILES = {
    f"{GPU}/load": "437",
    f"{GPU}/of_node/name": "gpu\0",
    f"{GPU}/of_node/compatible": "nvidia,ga10b\0",
    f"{GPU}/railgate_enable": "0",
    f"{GPU}/enable_3d_scaling": "1",
    f"{GPU}/tpc_pg_mask": "0",
    f"{CLOCK}/governor": "nvhost_podgov",
    f"{CLOCK}/cur_freq": "612000000",
    f"{CLOCK}/min_freq": "306000000",
    f"{CLOCK}/max_freq": "918000000",
    f"{ZONES}/thermal_zone0/type": "cpu-thermal",
    f"{ZONES}/thermal_zone0/temp": "61500",
    f"{ZONES}/thermal_zone1/type": "cv0-thermal",
    f"{ZONES}/thermal_zone1/temp": "-256000",
    f"{CHIP}/name": "ina3221",
    f"{CHIP}/hwmon/hwmon1/name": "ina3221",
    f"{TREE}/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    f"{TREE}/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "sys/class/power_supply/.": "",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64\n",
}
CPUS = os.cpu_count() or 1  # /proc/stat has as many
FILES |= {f"sys/devices/system/cpu/{name}": f"0-{CPUS - 1}" for name in ("present", "online")}
FILES |= {f"sys/devices/system/cpu/cpu{number}/online": "1" for number in range(CPUS)}
FILES |= {
    f"sys/devices/system/cpu/cpu{number}/cpufreq/{kind}_{name}": "729600"
    for number in range(CPUS)
    for kind in ("scaling", "cpuinfo")
    for name in ("governor", "cur_freq", "min_freq", "max_freq")
}
for number, (rail, millivolts, milliamperes) in enumerate((("VDD_IN", 5000, 716), ("VDD_SOC", 4992, 200)), 1):
    values = {"in%d_label": rail, "in%d_input": millivolts, "curr%d_input": milliamperes}
    values |= {"curr%d_max": 5000, "curr%d_crit": 6000}
    FILES |= {f"{CHIP}/hwmon/hwmon1/{name % number}": str(value) for name, value in values.items()}
LINKS = {
    "sys/class/devfreq/17000000.gpu": CLOCK,
    f"{CLOCK}/device": GPU,
    "sys/class/thermal": ZONES,
    "sys/bus/i2c/devices/1-0040": CHIP,
    "sys/class/hwmon/hwmon1": f"{CHIP}/hwmon/hwmon1",
}


def mount(*arguments: str) -> None:
    subprocess.run(["/usr/bin/mount", *arguments], check=True)


def prepare(whole: bool) -> None:
    """An empty /run, a group jtop, and for the service a Jetson's files."""
    mount("--make-rprivate", "/")
    mount("-t", "proc", "proc", "/proc")
    mount("-t", "tmpfs", "tmpfs", "/run")
    shutil.copytree("/etc", "/run/etc", symlinks=True)
    mount("--bind", "/run/etc", "/etc")
    if "\njtop:" not in Path("/etc/group").read_text():
        with Path("/etc/group").open("a") as groups:
            groups.write("jtop:x:64001:\n")
    if not whole:
        return
    mount("-t", "tmpfs", "tmpfs", "/sys")
    for name, text in FILES.items():
        path = Path("/", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name != "power_supply":
            path.write_text(text)
    for link, target in LINKS.items():
        Path("/", link).parent.mkdir(parents=True, exist_ok=True)
        Path("/", link).symlink_to(f"/{target}")


def serve() -> subprocess.Popen[bytes]:
    """The real service; it is there when its socket is."""
    environment = {**os.environ, "JTOP_SERVICE": "True"}
    service = subprocess.Popen(
        [sys.executable, "-c", SERVICE], env=environment, stdout=sys.stderr, start_new_session=True
    )
    end = time.monotonic() + 60
    while not jtop.SOCKET.exists():
        if service.poll() is not None or time.monotonic() > end:
            sys.exit("the service did not start")
        time.sleep(0.1)
    return service


def pretend(says: bytes) -> None:
    """A socket that takes every connection, says this and no more."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(jtop.SOCKET))
    listener.listen()

    def accept() -> None:
        kept = []
        while True:
            kept.append(listener.accept()[0])
            kept[-1].sendall(says)

    threading.Thread(target=accept, daemon=True).start()


def ask() -> dict[str, Any]:
    """What doctor and the daemon get of it."""
    jtop.TIMEOUT_S = 5.0
    start, tree = time.monotonic(), Tree(Path("/"))
    notes = list(jtop.read(tree))
    seconds = time.monotonic() - start
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("edgeinfer").addHandler(handler)
    logging.getLogger("edgeinfer").setLevel(logging.DEBUG)
    feed = Feed(jtop.NAME, jtop.command("stream"), jtop.obstacle)
    end, answer = time.monotonic() + 8, None
    while answer is None and not records and (now := time.monotonic()) < end:
        answer = feed.read(now)
        time.sleep(0.02)
    feed.close()
    known: dict[str, Any] = {name: getattr(answer, name) for name in answer.__struct_fields__} if answer else {}
    return {
        "facts": {note.field: [note.value, note.source] for note in notes},
        "faults": [fault.message for fault in tree.faults],
        "seconds": seconds,
        "answer": known,
        "told": records,
    }


def main(somebody: str) -> None:
    """Sets it up, asks and prints."""
    real = somebody in ("service", "frozen", "denied")
    prepare(real)
    service = serve() if real else None
    if not real:
        pretend(b"" if somebody == "silent" else b"\x00\x00\x00\x05hello" * 100)
    if somebody == "frozen" and service is not None:
        os.killpg(service.pid, signal.SIGSTOP)  # it is several processes
    if somebody == "denied":
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    print(json.dumps(ask()))
    if service is not None and somebody != "denied":
        os.killpg(service.pid, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
