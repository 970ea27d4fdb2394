"""The unit files as they ship, and what is adapted in them: the program's path, drop-ins for this machine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgeinfer.errors import UnavailableError, UsageError

USER = "edgeinfer"
MAIN = "main"
"""The instance of the unit without an `@`: its folders are named so."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
SHIPPED_EXEC = "/usr/bin/edgeinfer "

BACKOFF = """# systemd 254 and later: restarts that go on failing come more and more slowly.
[Service]
RestartSteps=6
RestartMaxDelaySec=60
"""
BACKOFF_SINCE = 254

UVM = """# CUDA needs /dev/nvidia-uvm, which the service itself may not bring about.
[Service]
ExecStartPre=-+/usr/bin/nvidia-modprobe -c 0 -u
"""

ARGUS_PATH, ARGUS_SERVICE = "edgeinfer-argus@.path", "edgeinfer-argus@.service"
ARGUS = {
    ARGUS_PATH: """# `edgeinfer service install --restart-argus` puts this file in place.
[Unit]
Description=edgeinfer %i: sees that a CSI camera was not let go of in order

[Path]
PathExists=/run/edgeinfer/%i/argus-stuck

[Install]
WantedBy=multi-user.target
""",
    ARGUS_SERVICE: """# `edgeinfer service install --restart-argus` puts this file in place.
[Unit]
Description=edgeinfer %i: starts nvargus-daemon again, which holds a CSI camera that nobody uses

[Service]
Type=oneshot
ExecStart=-/bin/rm -f /run/edgeinfer/%i/argus-stuck
ExecStart=-/bin/rmdir /run/edgeinfer/%i/argus-stuck
ExecStart=/bin/systemctl restart nvargus-daemon.service
# Not more often than that.
ExecStart=/bin/sleep 30
TimeoutStartSec=120
""",
}
"""Units that do as root what the service may not. All CSI cameras of the machine are interrupted by it."""

JAILED_HOME = """# The program lies below /home, which the service otherwise does not see.
[Service]
ProtectHome=read-only
"""


@dataclass(frozen=True, slots=True)
class Instance:
    """A service: the plain one, or `edgeinfer@NAME`."""

    name: str = MAIN

    @staticmethod
    def named(name: str | None) -> Instance:
        """The instance that `--instance` means. Raises UsageError."""
        if name is None:
            return Instance()
        if not NAME.fullmatch(name) or name == MAIN:
            raise UsageError(
                f"--instance {name!r}: not a name for an instance", "letters, digits, - and _; for instance front"
            )
        return Instance(name)

    @property
    def unit(self) -> str:
        """What systemctl calls it."""
        return "edgeinfer.service" if self.name == MAIN else f"edgeinfer@{self.name}.service"

    @property
    def argus(self) -> str:
        """The unit that sees whether nvargus-daemon has to be started again for it."""
        return ARGUS_PATH.replace("@", f"@{self.name}")

    @property
    def file(self) -> str:
        """The unit file that it is made of."""
        return "edgeinfer.service" if self.name == MAIN else "edgeinfer@.service"

    @property
    def config(self) -> Path:
        """Where its configuration lies."""
        return Path("/etc/edgeinfer") / ("edgeinfer.yaml" if self.name == MAIN else f"{self.name}.yaml")

    @property
    def dropins(self) -> Path:
        """The folder of its drop-ins."""
        return self.config.with_name(f"{self.config.name}.d")

    @property
    def state(self) -> Path:
        """Where its last crash is kept."""
        return Path("/var/lib/edgeinfer") / self.name


def folder() -> Path:
    """Where the files of `systemd/` are: in the package, or beside it where it runs from its repository."""
    here = Path(__file__).parent
    for place in (here / "units", here.parent.parent / "systemd"):
        if (place / "edgeinfer.service").is_file():
            return place
    raise UnavailableError("the unit files are missing from this installation", "install edgeinfer again")


def shipped(name: str) -> str:
    """A file of `systemd/`."""
    return (folder() / name).read_text(encoding="utf-8")


def with_program(text: str, interpreter: str) -> str:
    """The unit with the interpreter that has edgeinfer installed. systemd wants `%` doubled and blanks quoted."""
    quoted = interpreter.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    quoted = f'"{quoted}"' if re.search(r"[\s\"'\\]", quoted) else quoted
    return text.replace(f"ExecStart={SHIPPED_EXEC}", f"ExecStart={quoted} -m edgeinfer ")


def strict_devices(found: Iterable[str]) -> str:
    """The drop-in that closes all devices but these. systemd.resource-control(5): patterns don't work, so by name."""
    lines = "".join(f"DeviceAllow={path} rw\n" for path in found)
    return (
        "# The devices of this machine, and no others. Write it again after adding a camera:\n"
        "# edgeinfer service install --strict-devices\n"
        f"[Service]\nDevicePolicy=closed\n{lines}"
    )
