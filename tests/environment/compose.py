"""Puts a machine's tree together from parts: a release of L4T, a device tree, packages, libraries.

The texts have the form of captured ones (`trees/*/PROVENANCE`), and the numbers of NVIDIA's release pages. Names in
device trees are those of Linux (arch/arm64/boot/dts/nvidia) and of NVIDIA's kits; those of makers' carriers are made up
in the same form.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from tests.environment.make_elf import make_elf

ARM = "usr/lib/aarch64-linux-gnu"


@dataclass(frozen=True)
class Part:
    """Files and links by their paths below the root, and Debian packages: name → (version, status)."""

    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    packages: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __add__(self, other: Part) -> Part:
        """Both; of what both have, the other's."""
        return Part({**self.files, **other.files}, {**self.links, **other.links}, {**self.packages, **other.packages})


def lay(root: Path, part: Part) -> Path:
    """Writes the tree below `root`."""
    files = dict(part.files)
    if part.packages:
        files["var/lib/dpkg/status"] = "\n".join(
            f"Package: {name}\nStatus: {status}\nArchitecture: arm64\nVersion: {version}\n"
            for name, (version, status) in part.packages.items()
        ).encode()
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    for path, target in part.links.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    return root


def release(l4t: str, end: str = "\n", start: str = "") -> Part:
    """/etc/nv_tegra_release."""
    major, _, revision = l4t.partition(".")
    line = f"{start}# R{major} (release), REVISION: {revision}, GCID: 42132812, BOARD: generic, EABI: aarch64{end}"
    return Part({"etc/nv_tegra_release": f"{line}# KERNEL_VARIANT: oot{end}".encode()})


def device_tree(model: str, *compatible: str) -> Part:
    """/proc/device-tree."""
    entries = "".join(f"{entry}\0" for entry in compatible)
    folder = "proc/device-tree"
    return Part({f"{folder}/model": f"{model}\0".encode(), f"{folder}/compatible": entries.encode()})


def soc0(number: int, machine: str = "") -> Part:
    """What a Tegra's kernel says of the chip, also in a container."""
    folder = "sys/devices/soc0"
    files = {f"{folder}/family": b"Tegra\n", f"{folder}/soc_id": f"{number}\n".encode()}
    return Part({**files, **({f"{folder}/machine": f"{machine}\n".encode()} if machine else {})})


def debs(status: str = "install ok installed", **versions: str) -> Part:
    """Debian packages; an underscore in a name is a hyphen."""
    return Part(packages={name.replace("_", "-"): (version, status) for name, version in versions.items()})


def core(l4t: str, status: str = "install ok installed") -> Part:
    """The package that every release of L4T consists of, and dpkg itself."""
    return debs(dpkg="1.21.1") + debs(status, nvidia_l4t_core=f"{l4t}-20250918154033")


def library(version: str, folder: str = ARM) -> Part:
    """libnvinfer, which exports its version, with its usual names."""
    numbers = version.split(".")
    name = f"libnvinfer.so.{'.'.join(numbers[:3])}"
    exported = f"tensorrt_version_{'_'.join(numbers)}"
    return Part(
        {f"{folder}/{name}": make_elf("createInferBuilder_INTERNAL", exported)},
        {f"{folder}/libnvinfer.so.{numbers[0]}": name},
    )


def python(version: str, bindings: str = "", packages: str = "dist-packages") -> Part:
    """/usr/bin/python3, and TensorRT's bindings in its folder if their version is given."""
    name = f"python{version}"
    folder = f"usr/lib/{name}/{packages}"
    found = {f"{folder}/tensorrt/__init__.py": b"", f"{folder}/tensorrt-{bindings}.dist-info/METADATA": b""}
    return Part({f"usr/bin/{name}": b"", **(found if bindings else {})}, {"usr/bin/python3": name})


def cuda(version: str, runtime: str = "", link: bool = True) -> Part:
    """A toolkit with its version.json, and the link to it."""
    short = ".".join(version.split(".")[:2])
    components = {"cuda": {"name": "CUDA SDK", "version": version}}
    if runtime:
        components["cuda_cudart"] = {"name": "CUDA Runtime (cudart)", "version": runtime}
    files = {f"usr/local/cuda-{short}/version.json": json.dumps(components).encode()}
    return Part(files, {"usr/local/cuda": f"cuda-{short}"} if link else {})


def system(name: str) -> Part:
    """/etc/os-release."""
    return Part({"etc/os-release": f'PRETTY_NAME="{name}"\nID=x\n'.encode()})


def driver(version: str, what: str = "UNIX Open Kernel Module for aarch64") -> Part:
    """/proc/driver/nvidia/version."""
    line = f"NVRM version: NVIDIA {what}  {version}  Release Build  (builder@host)  Thu Sep 18\n"
    return Part({"proc/driver/nvidia/version": line.encode()})


def tensorrt(version: str, cuda_version: str, python_version: str) -> Part:
    """TensorRT as JetPack's packages bring it: the library, its package, and bindings for the system's Python."""
    major = version.partition(".")[0]
    packaged = {f"libnvinfer{major}": f"{version}-1+cuda{cuda_version}"}
    bindings = ".".join(version.split(".")[:3])
    return library(version) + debs(**packaged) + python(python_version, bindings)


DOCKER = Part({".dockerenv": b""})
JP4 = core("32.7.4") + release("32.7.4") + system("Ubuntu 18.04.6 LTS")
JP4 += Part({"usr/local/cuda/version.txt": b"CUDA Version 10.2.300\n"}) + tensorrt("8.2.1.8", "10.2", "3.6")
JP5 = core("35.4.1") + release("35.4.1") + debs(nvidia_jetpack="5.1.2-b104") + system("Ubuntu 20.04.6 LTS")
JP5 += cuda("11.4.19", "11.4.298") + tensorrt("8.5.2.2", "11.4", "3.8") + driver("35.4.1")
JP60 = core("36.3.0") + release("36.3.0") + debs(nvidia_jetpack="6.0+b106") + system("Ubuntu 22.04.4 LTS")
JP60 += cuda("12.2.12", "12.2.140") + tensorrt("8.6.2.3", "12.2", "3.10") + driver("540.3.0")
L4T62 = core("36.4.7") + release("36.4.7") + system("Ubuntu 22.04.5 LTS") + python("3.10") + driver("540.4.0")
JP62 = L4T62 + debs(nvidia_jetpack="6.2.1+b38") + cuda("12.6.11", "12.6.68") + tensorrt("10.3.0.30", "12.5", "3.10")
JP70 = core("38.2.1") + release("38.2.1") + debs(nvidia_jetpack="7.0-b128") + system("Ubuntu 24.04.3 LTS")
JP70 += cuda("13.0.0", "13.0.48") + tensorrt("10.13.3.9", "13.0", "3.12") + driver("580.00")
JP71 = JP70 + core("38.4.0") + release("38.4.0") + debs(nvidia_jetpack="7.1-b55")
JP72 = core("39.2.1") + release("39.2.1") + debs(nvidia_jetpack="7.2.1-b49") + system("Ubuntu 24.04.4 LTS")
JP72 += cuda("13.2.2", "13.2.86") + tensorrt("10.16.2.10", "13.2", "3.12") + driver("595.71.05")
ORT = Part({"usr/local/lib/python3.10/dist-packages/onnxruntime-1.23.0.dist-info/METADATA": b""})


def orin(module: str = "p3767-0005", model: str = "NVIDIA Jetson Orin Nano Developer Kit", carrier: str = "") -> Part:
    """A module with tegra234."""
    carrier = carrier or ("nvidia,p3737-0000" if module.startswith("p3701") else "nvidia,p3768-0000")
    return device_tree(model, f"{carrier}+{module}", f"nvidia,{module.removesuffix('-super')}", "nvidia,tegra234")


def thor(module: str = "p3834-0008", model: str = "NVIDIA Jetson AGX Thor Developer Kit") -> Part:
    """A module with tegra264."""
    return device_tree(model, f"nvidia,p4071-0000+{module}", f"nvidia,{module}", "nvidia,tegra264")
