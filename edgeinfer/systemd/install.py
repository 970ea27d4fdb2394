"""What has to be done to this machine so that edgeinfer runs as a service, and to undo it."""

from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeinfer import recipe
from edgeinfer.errors import ConfigError, EdgeinferError, UnavailableError
from edgeinfer.systemd import devices, units
from edgeinfer.systemd.steps import Call, Remove, Step, Write
from edgeinfer.systemd.units import USER, Instance

UNITS = Path("/etc/systemd/system")
SYSUSERS, TMPFILES = Path("/etc/sysusers.d/edgeinfer.conf"), Path("/etc/tmpfiles.d/edgeinfer.conf")
UNIT_FILES = ("edgeinfer.service", "edgeinfer@.service")
DROP_INS = ("10-backoff.conf", "20-nvidia-uvm.conf", "30-home.conf", "40-devices.conf")
DATA = (Path("/etc/edgeinfer"), Path("/var/lib/edgeinfer"), Path("/var/cache/edgeinfer"))
GROUPS = ("video", "render")
"""Whose members may open cameras and GPU: on JetPack 6 video, on Thor and a PC render too."""


@dataclass(frozen=True, slots=True)
class Host:
    """Where to install: `root` is / but for images and tests; `version` systemd's, `running` whether it is PID 1."""

    root: Path
    version: int
    running: bool

    def at(self, path: Path) -> Path:
        """The path below `root`."""
        return self.root / path.relative_to("/")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wants: which instance, on which program, with which configuration (its bytes, checked) and which
    drop-ins beside it, by their names.
    """

    instance: Instance
    interpreter: str
    places: Sequence[Path]
    config: bytes | None = None
    strict_devices: bool = False
    start: bool = True
    restart_argus: bool = False
    dropins: Mapping[str, bytes] = field(default_factory=dict)


def detect(root: Path) -> Host:
    """Raises UnavailableError where there is no systemd to install for."""
    if shutil.which("systemctl") is None:
        raise UnavailableError(
            "there is no systemd on this machine (no systemctl)",
            "edgeinfer run --supervise restarts the daemon without it",
        )
    running = root == Path("/") and Path("/run/systemd/system").is_dir()
    if root == Path("/") and not running:
        raise UnavailableError(
            "systemd is not what runs this machine (in a container, most likely)",
            "edgeinfer run --supervise restarts the daemon without it",
        )
    return Host(root, _version(), running)


def _version() -> int:
    said = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S607 (the system's own)
    words = said.split()
    return int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0


def check_program(places: Sequence[Path], root: Path = Path("/")) -> bool:
    """Whether the program lies below /home, after checking that the service's user may read it.

    `places` are the interpreter, its libraries and our package. Raises ConfigError, with the recipe for the machine
    whose system lies at `root`.
    """
    every = sorted({part for place in places for part in _ancestry(place)})
    for path in every:
        if _hidden(path) or not _open_to_all(path):
            raise ConfigError(
                f"{path}: user {USER} can't read it, and edgeinfer is installed there",
                f"install it where everybody can, in a clone: {' && '.join(recipe.here(root).commands)}",
            )
    return any(path.parts[:2] == ("/", "home") for path in every)


def _ancestry(place: Path) -> set[Path]:
    """The path, its target, and every folder on the way to both."""
    real = place.resolve()
    return {place, *place.parents, real, *real.parents}


def _hidden(path: Path) -> bool:
    """ProtectHome=yes or read-only: what the service never sees."""
    return path.parts[:2] == ("/", "root") or path.parts[:3] == ("/", "run", "user")


def _open_to_all(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return bool(mode & stat.S_IXOTH) if stat.S_ISDIR(mode) else bool(mode & stat.S_IROTH)


def installation(machine: Host, wish: Wish) -> list[Step]:
    """The steps. Raises EdgeinferError where it can't work."""
    below_home = check_program(wish.places, machine.root)
    steps: list[Step] = [
        Write(machine.at(SYSUSERS), units.shipped("sysusers.conf").encode()),
        Call(["systemd-sysusers", *_root(machine), str(SYSUSERS)], when=lambda: not _complete(machine)),
        *[_membership(machine, group) for group in GROUPS],
        Write(machine.at(TMPFILES), units.shipped("tmpfiles.conf").encode()),
        Call(["systemd-tmpfiles", "--create", *_root(machine), str(TMPFILES)]),
        *[Write(machine.at(UNITS / name), _unit(name, wish)) for name in UNIT_FILES],
        *_drop_ins(machine, wish, below_home),
        *_argus(machine, wish),
    ]
    if wish.config is not None:
        steps.append(Write(machine.at(wish.instance.config), wish.config, 0o640, USER))
    folder = machine.at(wish.instance.dropins)
    steps += [Write(folder / name, data, 0o640, USER, folder=0o750) for name, data in wish.dropins.items()]
    return steps


def activation(machine: Host, wish: Wish, changed: int) -> list[Step]:
    """What comes after the files: systemd reads them, and the service runs on them."""
    unit = wish.instance.unit
    enable = ["systemctl", *_root(machine), "enable", "--quiet"]
    now = ["--now"] if machine.running else []
    steps: list[Step] = [Call([*enable, unit])]
    if wish.restart_argus:
        steps.append(Call([*enable, *now, wish.instance.argus]))
    if not machine.running:
        return steps
    steps.insert(0, Call(["systemctl", "daemon-reload"]))
    if wish.start and machine.at(wish.instance.config).exists():
        steps.append(Call(["systemctl", "restart" if changed else "start", unit]))
    return steps


def removal(machine: Host, instance: Instance | None, purge: bool) -> list[Step]:
    """Undoes an installation: of one instance, or (None) of all. Data of the user stay unless `purge`."""
    if instance is not None and instance.name != units.MAIN:
        own = [instance.config, instance.dropins, instance.state] if purge else []
        return [*_stop(machine, [instance.unit, instance.argus]), *[Remove(machine.at(path)) for path in own]]
    steps = _stop(machine, ["edgeinfer.service", *instances(machine)])
    steps += [Remove(machine.at(UNITS / name)) for name in units.ARGUS]
    for name in UNIT_FILES:
        folder = UNITS / f"{name}.d"
        steps += [Remove(machine.at(path)) for path in (UNITS / name, *(folder / own for own in DROP_INS))]
        steps.append(Remove(machine.at(folder), only_empty=True))  # `systemctl edit` writes there too
    steps += [Remove(machine.at(path)) for path in (SYSUSERS, TMPFILES, *(DATA if purge else ()))]
    steps += [Call(["systemctl", "daemon-reload"])] if machine.running else []
    return steps


def instances(machine: Host) -> list[str]:
    """The template's units that are enabled."""
    wants = machine.at(UNITS / "multi-user.target.wants")
    return sorted(path.name for kind in ("edgeinfer@*.service", "edgeinfer-argus@*.path") for path in wants.glob(kind))


def _stop(machine: Host, names: Sequence[str]) -> list[Step]:
    now = ["--now"] if machine.running else []
    wants = machine.at(UNITS / "multi-user.target.wants")
    start = ["systemctl", *_root(machine), "disable", "--quiet", *now]
    return [Call([*start, name], optional=True, when=(wants / name).is_symlink) for name in names]


def _unit(name: str, wish: Wish) -> bytes:
    return units.with_program(units.shipped(name), wish.interpreter).encode()


def _drop_ins(machine: Host, wish: Wish, below_home: bool) -> list[Step]:
    """Settings of this machine. Those that no longer apply are taken away."""
    wanted = {
        "10-backoff.conf": units.BACKOFF if machine.version >= units.BACKOFF_SINCE else None,
        "20-nvidia-uvm.conf": units.UVM if machine.at(Path("/usr/bin/nvidia-modprobe")).exists() else None,
        "30-home.conf": units.JAILED_HOME if below_home else None,
        "40-devices.conf": _strict_devices(machine) if wish.strict_devices else None,
    }
    folder = machine.at(UNITS / f"{wish.instance.file}.d")
    return [
        Remove(folder / name) if text is None else Write(folder / name, text.encode()) for name, text in wanted.items()
    ]


def _argus(machine: Host, wish: Wish) -> list[Step]:
    """The units that start nvargus-daemon again, or what takes them from an instance that is not to have them."""
    if not wish.restart_argus:
        return _stop(machine, [wish.instance.argus])
    return [Write(machine.at(UNITS / name), text.encode()) for name, text in units.ARGUS.items()]


def _strict_devices(machine: Host) -> str:
    found = devices.devices(machine.root)
    if not found:
        raise EdgeinferError(
            "--strict-devices: no camera and no GPU below /dev",
            "connect them and load their drivers first, or leave the option out",
        )
    return units.strict_devices(found)


def _root(machine: Host) -> list[str]:
    return [] if machine.root == Path("/") else [f"--root={machine.root}"]


def _membership(machine: Host, group: str) -> Call:
    """For a user that was there before: systemd-sysusers has made it without its groups, or somebody else has."""
    prefix = [] if machine.root == Path("/") else ["--prefix", str(machine.root)]
    argv = ["usermod", *prefix, "--append", "--groups", group, USER]
    return Call(argv, counts=True, when=lambda: group in _lacking(machine))


def _complete(machine: Host) -> bool:
    """Whether there are the user, and the groups that it is to be in."""
    known = {line[0] for line in _entries(machine, "group")}
    return _user(machine) is not None and known >= set(GROUPS)


def _lacking(machine: Host) -> list[str]:
    """The groups that the user, if there is one, is not in."""
    user = _user(machine)
    if user is None:
        return []
    mine = {line[0] for line in _entries(machine, "group") if line[2] == user[3] or USER in line[3].split(",")}
    return [group for group in GROUPS if group not in mine]


def _user(machine: Host) -> list[str] | None:
    return next((line for line in _entries(machine, "passwd") if line[0] == USER), None)


def _entries(machine: Host, name: str) -> list[list[str]]:
    """The lines of /etc/passwd or /etc/group, in their fields (passwd(5), group(5))."""
    try:
        lines = machine.at(Path("/etc") / name).read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [fields for line in lines if len(fields := line.split(":")) >= 4]
