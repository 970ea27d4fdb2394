"""Parsers of the text files that name versions. Each takes text and returns None where it says nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

_NUMBER = r"\d{1,9}(?:\.\d{1,9}){0,5}"
_L4T = re.compile(rf"^\ufeff?# R(\d{{1,9}}) \(release\), REVISION: ({_NUMBER})", re.ASCII | re.MULTILINE)
_DEBIAN = re.compile(rf"(?:\d+:)?({_NUMBER})", re.ASCII)
_NVRM = re.compile(rf"^NVRM version:.*?\s({_NUMBER})\s", re.ASCII | re.MULTILINE)
_CUDA_TXT = re.compile(rf"CUDA Version ({_NUMBER})", re.ASCII)
_MODULE = re.compile(r"^(?:[\w.-]+,[\w.-]+\+|nvidia,)(p\d{4}-\d{4})(?:-|$)", re.ASCII)
_NO_MODULES = (
    "p2371", "p2597", "p2771", "p2822", "p2972", "p3449", "p3450", "p3509", "p3710", "p3737", "p3740", "p3768", "p4071",
)  # fmt: skip
"""Carriers and developer kits, which older device trees name alone."""
_SOC = re.compile(r"^nvidia,(tegra\d+)$", re.ASCII)
_SOC_OF_ID = {"33": "tegra210", "24": "tegra186", "25": "tegra194", "35": "tegra234", "38": "tegra264"}
"""Chip numbers 0x21, 0x18, 0x19, 0x23 and 0x26, which Linux's drivers/soc/tegra/fuse writes in decimal."""
_POWER_MODEL = re.compile(r"^<\s*POWER_MODEL\s+ID=(\d{1,4})\s+NAME=(\w+)", re.ASCII | re.MULTILINE)
_POWER_STATUS = re.compile(r"pmode:(\d{1,8})", re.ASCII)
_POWER_QUERY = re.compile(r"NV Power Mode:\s*(\w+)", re.ASCII)


_USABLE = ("installed", "triggers-pending", "triggers-awaited")
_UNFINISHED = ("unpacked", "half-configured", "half-installed")
"""States of dpkg-query(1): in these an installation or upgrade has been broken off."""


class Package(NamedTuple):
    """An installed Debian package."""

    version: str
    arch: str


def l4t_release(text: str) -> str | None:
    """/etc/nv_tegra_release: "# R36 (release), REVISION: 4.7, …" → "36.4.7". Its dates vary in form.

    A byte order mark or lines before it come of editing.
    """
    match = _L4T.search(text)
    return f"{match[1]}.{match[2]}" if match else None


def upstream_version(debian: str) -> str | None:
    """The dotted numbers that a Debian version starts with: "10.3.0.30-1+cuda12.5" → "10.3.0.30"."""
    match = _DEBIAN.match(debian)
    return match[1] if match else None


def dpkg_status(text: str) -> dict[str, Package]:
    """/var/lib/dpkg/status: the installed packages by name; a removed one that left files is none."""
    packages: dict[str, Package] = {}
    for stanza in text.split("\n\n"):
        entry = _stanza(stanza)
        if _state(entry) in _USABLE and "Package" in entry:
            packages[entry["Package"]] = Package(entry.get("Version", ""), entry.get("Architecture", ""))
    return packages


def dpkg_unfinished(text: str) -> list[str]:
    """/var/lib/dpkg/status: "name version (state)" of each package whose installation has been broken off."""
    entries = [_stanza(stanza) for stanza in text.split("\n\n")]
    return [
        f"{entry['Package']} {entry.get('Version', '')} ({_state(entry)})"
        for entry in entries
        if _state(entry) in _UNFINISHED and "Package" in entry
    ]


def _state(entry: Mapping[str, str]) -> str:
    return " ".join(entry.get("Status", "").split()[2:3])


def _stanza(text: str) -> dict[str, str]:
    lines = (line.partition(": ") for line in text.splitlines() if not line.startswith((" ", "\t")))
    return {key: value.strip() for key, colon, value in lines if colon}


def driver_version(text: str) -> str | None:
    """/proc/driver/nvidia/version: "NVRM version: … Kernel Module  595.71.05  …" → "595.71.05"."""
    match = _NVRM.search(text)
    return match[1] if match else None


def cuda_components(text: str) -> dict[str, str]:
    """version.json of a CUDA toolkit: component → version. Raises ValueError if it is no such file."""
    try:
        data = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    pairs = ((name, entry.get("version")) for name, entry in data.items() if isinstance(entry, Mapping))
    return {name: version for name, version in pairs if isinstance(version, str) and _is_version(version)}


def _is_version(text: str) -> bool:
    return re.fullmatch(_NUMBER, text, re.ASCII) is not None


def cuda_text(text: str) -> str | None:
    """version.txt of a CUDA toolkit up to 11.0: "CUDA Version 10.2.300"."""
    match = _CUDA_TXT.search(text)
    return match[1] if match else None


def tree_strings(text: str) -> list[str]:
    """A device-tree property: strings that end in NUL."""
    return [part for part in text.split("\0") if part]


def soc_of(compatible: list[str]) -> str | None:
    """The entry "nvidia,tegra234" → "tegra234"."""
    return next((match[1] for entry in compatible if (match := _SOC.match(entry))), None)


def module_of(compatible: list[str]) -> str | None:
    """The entry "nvidia,p3768-0000+p3767-0005-super" or "nvidia,p3767-0005" → "p3767-0005".

    What stands before the + is the carrier.
    """
    found = (match[1] for entry in compatible if (match := _MODULE.match(entry)))
    return next((part for part in found if not part.startswith(_NO_MODULES)), None)


def soc_of_id(family: str, number: str) -> str | None:
    """/sys/devices/soc0: family "Tegra", soc_id "35" → "tegra234", the name of chip 0x23 in device trees."""
    return _SOC_OF_ID.get(number.strip()) if family.strip() == "Tegra" else None


def cudnn_header(text: str) -> str | None:
    """cudnn_version.h: three #defines → "9.3.0"."""
    defines = dict(re.findall(r"#define CUDNN_(\w+)\s+(\d{1,9})\b", text, re.ASCII))
    parts = [defines.get(name) for name in ("MAJOR", "MINOR", "PATCHLEVEL")]
    return ".".join(part for part in parts if part) if all(parts) else None


def power_mode(status: str, config: str) -> str | None:
    """/var/lib/nvpmodel/status ("pmode:0002") and names from /etc/nvpmodel.conf → "MAXN_SUPER", "mode 2"."""
    match = _POWER_STATUS.search(status)
    if not match:
        return None
    mode = int(match[1])
    names = {int(number): str(name) for number, name in _POWER_MODEL.findall(config)}
    return names.get(mode, f"mode {mode}")


def power_query(text: str) -> str | None:
    """What `nvpmodel -q` prints: "NV Power Mode: 25W" and the mode's number on the next line."""
    match = _POWER_QUERY.search(text)
    return match[1] if match else None


def mem_total(text: str) -> int | None:
    """/proc/meminfo: MemTotal in bytes."""
    match = re.search(r"^MemTotal:\s+(\d{1,15}) kB", text, re.ASCII | re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def os_name(text: str) -> str | None:
    """/etc/os-release: PRETTY_NAME."""
    match = re.search(r"""^PRETTY_NAME=["']?([^"'\r\n]+)["']?""", text, re.MULTILINE)
    return match[1] if match else None
