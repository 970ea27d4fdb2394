"""`edgeinfer service`: run as a systemd service: install, uninstall, status."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

import edgeinfer
from edgeinfer.commands._group import Group
from edgeinfer.commands._options import json_output, verbose
from edgeinfer.commands._terminal import echo, echo_json
from edgeinfer.config.dropins import dropin_files
from edgeinfer.config.settings import Config, load_config
from edgeinfer.errors import ConfigError, EdgeinferError, unreadable
from edgeinfer.guard.files import read_small
from edgeinfer.guard.limits import MAX_CONFIG_BYTES
from edgeinfer.guard.redaction import redact
from edgeinfer.systemd import install as installer
from edgeinfer.systemd import units
from edgeinfer.systemd.install import Host, Wish
from edgeinfer.systemd.steps import perform
from edgeinfer.systemd.units import Instance
from edgeinfer.watchdog.crash import CrashLog

PROPERTIES = ("LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "NRestarts", "Result", "StatusText")

instance_option = click.option("--instance", metavar="NAME", help="The service edgeinfer@NAME instead of edgeinfer.")
root_option = click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False), default="/", help="Another system's root, for images."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


@click.group("service", cls=Group)
def command() -> None:
    """Runs edgeinfer as a systemd service: installs it, removes it, says how it is."""


@command.command("install")
@instance_option
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="Copied to /etc/edgeinfer, with its drop-ins."
)
@click.option("--strict-devices", is_flag=True, help="Allow the cameras and GPU that are here now, no other device.")
@click.option("--restart-argus", is_flag=True, help="Restart nvargus-daemon when a CSI camera is stuck in it.")
@click.option("--no-start", is_flag=True, help="Enable it, and leave the start to the next boot.")
@dry_run_option
@root_option
@verbose
def install(
    instance: str | None,
    config_file: Path | None,
    strict_devices: bool,
    restart_argus: bool,
    no_start: bool,
    dry_run: bool,
    root: Path,
) -> int:
    """Sets up user, folders and unit, and starts the service. Once more does no harm: what is right stays."""
    machine, chosen = _machine(root, dry_run), Instance.named(instance)
    content = None if config_file is None else checked_config(config_file)
    dropins = {} if config_file is None else dict(dropin_bytes(config_file))
    wish = Wish(chosen, sys.executable, program_places(), content, strict_devices, not no_start, restart_argus, dropins)
    changed = perform(installer.installation(machine, wish), echo, dry_run)
    perform(installer.activation(machine, wish, changed), echo, dry_run)
    if content is None and not machine.at(chosen.config).exists():
        echo(f"next: write {chosen.config}, then systemctl start {chosen.unit}")
    return 0


@command.command("uninstall")
@instance_option
@click.option("--purge", is_flag=True, help="Remove configurations, engines and state too.")
@dry_run_option
@root_option
@verbose
def uninstall(instance: str | None, purge: bool, dry_run: bool, root: Path) -> int:
    """Stops the service and removes what install made. Configurations, engines and state stay unless --purge."""
    machine = _machine(root, dry_run)
    chosen = None if instance is None else Instance.named(instance)
    perform(installer.removal(machine, chosen, purge), echo, dry_run)
    if not purge:
        kept = [str(path) for path in installer.DATA if machine.at(path).exists()]
        echo(f"kept: {', '.join(kept) or 'nothing was there'}; user {units.USER}")
    return 0


@command.command("status")
@instance_option
@root_option
@json_output
@verbose
def status(instance: str | None, root: Path, as_json: bool) -> int:
    """How the service is, what it says of itself, and how it last ended badly."""
    machine, chosen = installer.detect(root), Instance.named(instance)
    found = _status(machine, chosen)
    if as_json:
        echo_json(msgspec.json.format(msgspec.json.encode(found)))
    else:
        for key, value in found.items():
            echo(f"{key:<11} {_shown(value)}")
    return 0


def _status(machine: Host, instance: Instance) -> dict[str, Any]:
    said = _properties(instance.unit) if machine.running else {}
    crash = CrashLog(machine.at(instance.state)).read()
    return {
        "unit": instance.unit,
        "installed": machine.at(installer.UNITS / instance.file).exists(),
        "enabled": said.get("UnitFileState", "unknown"),
        "state": f"{said.get('ActiveState', 'unknown')} ({said.get('SubState', 'unknown')})",
        "says": redact(said.get("StatusText", "")),
        "pid": int(said.get("MainPID", 0)) or None,
        "restarts": int(said.get("NRestarts", 0)),
        "result": said.get("Result", "unknown"),
        "config": _config(machine, instance),
        "last_crash": None if crash is None else {"code": crash.code, "text": crash.text, "stage": crash.stage},
    }


def _config(machine: Host, instance: Instance) -> str | None:
    """Its folder is closed to everybody else, since it may hold the passwords of cameras."""
    try:
        return str(instance.config) if machine.at(instance.config).exists() else None
    except PermissionError:
        return f"only root and {units.USER} may look into {instance.config.parent}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {item}" for key, item in value.items() if item)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _properties(unit: str) -> dict[str, str]:
    arguments = ["systemctl", "show", "--no-pager", f"--property={','.join(PROPERTIES)}", unit]
    said = subprocess.run(arguments, capture_output=True, text=True, check=False)  # noqa: S603 (the system's own)
    return dict(line.partition("=")[::2] for line in said.stdout.splitlines())


def _machine(root: Path, dry_run: bool) -> Host:
    machine = installer.detect(root.absolute())
    if not dry_run and root == Path("/") and os.geteuid() != 0:
        raise EdgeinferError("only root can set up a service", "run it with sudo; --dry-run shows what it would do")
    return machine


def program_places() -> list[Path]:
    """What the service's user must be able to read: the interpreter, its libraries, this package."""
    package = Path(edgeinfer.__file__).parent
    libraries = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    return [Path(sys.executable), *libraries, package]


def checked_config(path: Path) -> bytes:
    """The file's bytes, if a service can run on it. Raises EdgeinferError."""
    config = load_config(path)
    if not config.sources:
        raise ConfigError(f"{path}: no sources", "add a line below sources")
    for where, text in _paths(config):
        if text and not text.startswith("/"):
            raise ConfigError(
                f"{path}: {where}: {redact(text)}: a service has no folder of yours to find it in",
                f"write {Path(text).absolute()}",
            )
    try:
        return read_small(path, MAX_CONFIG_BYTES)
    except OSError as error:
        raise unreadable(path, error) from None


def dropin_bytes(path: Path) -> Iterator[tuple[str, bytes]]:
    """The drop-ins beside a configuration that has been checked with them. Raises EdgeinferError."""
    for file in dropin_files(path):
        try:
            yield file.name, read_small(file, MAX_CONFIG_BYTES)
        except OSError as error:
            raise unreadable(file, error) from None


def _paths(config: Config) -> list[tuple[str, str]]:
    """The configuration's file names: relative ones mean something else once it lies in /etc."""
    own_model = config.model.path if "." in config.model.path or "/" in config.model.path else ""
    files = [
        (f"sources.{name}.uri", source.uri.text.removeprefix("file:"))
        for name, source in config.sources.items()
        if source.uri.plugin in ("images", "video")
    ]
    return [("model.path", own_model), ("model.card", config.model.card or ""), *files]
