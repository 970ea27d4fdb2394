"""A report to send to somebody who helps: the diagnosis and the files that it rests on, without secrets."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeinfer.environment import formats
from edgeinfer.environment.probe import MAX_STATUS
from edgeinfer.environment.redact import Redactor, secrets_of
from edgeinfer.environment.tree import Tree
from edgeinfer.errors import UsageError
from edgeinfer.guard.files import open_anything

SCHEMA = 1
FILES = (
    "etc/nv_tegra_release",
    "etc/os-release",
    "etc/nvpmodel.conf",
    "var/lib/nvpmodel/status",
    "proc/device-tree/model",
    "proc/device-tree/compatible",
    "proc/driver/nvidia/version",
    "usr/local/cuda/version.json",
    "usr/local/cuda/version.txt",
)
VARIABLES = (
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_VISIBLE_DEVICES",
    "PYTHONPATH",
    "VIRTUAL_ENV",
)
_BEGINNING = b'{\n  "edgeinfer_doctor_bundle"'
_PACKAGES = re.compile(
    r"nvidia-(l4t|jetpack|container|driver).*|libnvinfer.*|tensorrt.*|cuda-.*|libcudnn.*|python3(\.\d+)?"
)


def make(report: Mapping[str, Any], root: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """A bundle, redacted: the report, the texts below `root` that it rests on, packages, and some variables.

    Only named files and variables go in. Of a captured tree no variable does, they would be this machine's.
    """
    tree = Tree(root)
    texts = {f"/{path}": text for path in FILES if (text := tree.text(path)) is not None}
    packages = formats.dpkg_status(tree.text("var/lib/dpkg/status", MAX_STATUS) or "")
    content = {
        "edgeinfer_doctor_bundle": SCHEMA,
        "report": report,
        "files": texts,
        "packages": {name: package.version for name, package in packages.items() if _PACKAGES.fullmatch(name)},
        "environment": {name: environment[name] for name in VARIABLES if tree.is_live and name in environment},
    }
    clean = redactor(environment).data(content)
    assert isinstance(clean, dict)  # noqa: S101 (data keeps the shape)
    return clean


def redactor(environment: Mapping[str, str]) -> Redactor:
    """Knows this machine's names and the secrets in its environment."""
    host = socket.gethostname()
    users = (environment.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER"))
    home = Path(environment.get("HOME", "")).name
    return Redactor(secrets_of(environment), (host, host.split(".")[0], home, *users))


def write(bundle: Mapping[str, Any], path: Path) -> None:
    """Writes JSON that only its owner can read, all or nothing, in place of an earlier bundle or an empty file.

    Raises UsageError if that is not possible.
    """
    text = json.dumps(bundle, indent=2) + "\n"
    try:
        if os.path.lexists(path) and not _is_bundle(path):
            raise UsageError(f"{path} is there already, and is no bundle", "give --bundle another name")
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(fd, "w") as file:
                file.write(text)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink()
            raise
    except OSError as error:
        raise UsageError(
            f"can't write {path}: {error.strerror}", "give --bundle a file in a folder of yours"
        ) from error


def _is_bundle(path: Path) -> bool:
    with open_anything(path, follow=False) as file:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and file.read(len(_BEGINNING)) in (_BEGINNING, b"")
