"""Every board, carrier, module, image and container that could be thought of, put together from parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.environment.diagnosis import judge
from edgeinfer.environment.rules import find_problems
from tests.environment.compose import (
    ARM,
    DOCKER,
    JP4,
    JP5,
    JP60,
    JP62,
    JP70,
    JP71,
    JP72,
    L4T62,
    ORT,
    Part,
    core,
    cuda,
    debs,
    device_tree,
    driver,
    lay,
    library,
    orin,
    python,
    release,
    soc0,
    system,
    tensorrt,
    thor,
)
from tests.environment.test_trees import probe_tree, values

ORIN = {"soc": "tegra234", "compute_capability": "8.7", "integrated": True}
THOR = {"soc": "tegra264", "compute_capability": "11.0", "integrated": True}
XAVIER = {"soc": "tegra194", "compute_capability": "7.2"}
OF_JP62 = {"jetpack": "6.2.1", "l4t": "36.4.7", "tensorrt": "10.3.0.30", "cuda": "12.6.11"}
OF_JP72 = {"jetpack": "7.2.1", "l4t": "39.2.1", "tensorrt": "10.16.2.10", "cuda": "13.2.2"}
NOTHING_OF_A_TEGRA = {"soc": None, "jetpack": None, "l4t": None, "integrated": None, "module": None}


@dataclass(frozen=True)
class Machine:
    """A tree, and what has to be found: values, codes of problems, the backend, words of each problem's remedy."""

    tree: Part
    values: dict[str, Any]
    codes: set[str] = field(default_factory=set)
    backend: str | None = "tensorrt"
    remedies: dict[str, str] = field(default_factory=dict)
    is_jetson: bool = True


def carrier(model: str, *compatible: str, module: str) -> Machine:
    """An Orin module on a maker's carrier."""
    return Machine(JP62 + ORT + device_tree(model, *compatible), OF_JP62 | ORIN | {"board": model, "module": module})


XAVIER_NX = device_tree("NVIDIA Jetson Xavier NX Developer Kit", "nvidia,p3509-0000+p3668-0001", "nvidia,tegra194")
AGX_XAVIER = device_tree("Jetson-AGX", "nvidia,p2972-0000", "nvidia,tegra194")
NANO = device_tree(
    "NVIDIA Jetson Nano Developer Kit",
    "nvidia,p3449-0000-b00+p3448-0000-b00",
    "nvidia,jetson-nano",
    "nvidia,tegra210",
)
TX2 = device_tree("quill", "nvidia,p2597-0000+p3310-1000", "nvidia,tegra186")
IGX = device_tree(
    "NVIDIA IGX Orin Development Kit", "nvidia,p3740-0002+p3701-0008", "nvidia,p3701-0008", "nvidia,tegra234"
)
DRIVE = device_tree("NVIDIA DRIVE AGX Orin", "nvidia,p3710-0010", "nvidia,tegra234") + system("Ubuntu 20.04.6 LTS")
POKY = system("Poky (Yocto Project Reference Distro) 5.0.4 (scarthgap)")
TOO_OLD = {"python-too-old", "onnxruntime-missing"}
ANCIENT = TOO_OLD | {"tensorrt-too-old"}
NEWER = "there is no newer one for this module"

BOARDS = {
    "agx orin 64": Machine(JP62 + ORT + orin("p3701-0005"), OF_JP62 | ORIN | {"module": "p3701-0005"}),
    "agx orin 32": Machine(JP62 + ORT + orin("p3701-0004"), OF_JP62 | ORIN | {"module": "p3701-0004"}),
    "agx orin, combined entry alone": Machine(
        JP5 + device_tree("NVIDIA Orin Jetson-Small Developer Kit", "nvidia,p3737-0000+p3701-0000", "nvidia,tegra234"),
        ORIN | {"module": "p3701-0000", "jetpack": "5.1.2", "tensorrt": "8.5.2.2", "driver": "35.4.1"},
        TOO_OLD,
        None,
        {"python-too-old": "serve its own Python only"},
    ),
    "orin nx 16": Machine(JP62 + ORT + orin("p3767-0000"), OF_JP62 | ORIN | {"module": "p3767-0000"}),
    "orin nx 8": Machine(JP62 + ORT + orin("p3767-0001"), OF_JP62 | ORIN | {"module": "p3767-0001"}),
    "orin nano 8": Machine(JP62 + ORT + orin("p3767-0003"), OF_JP62 | ORIN | {"module": "p3767-0003"}),
    "orin nano 4": Machine(JP62 + ORT + orin("p3767-0004"), OF_JP62 | ORIN | {"module": "p3767-0004"}),
    "orin nano super": Machine(JP62 + ORT + orin("p3767-0005-super"), OF_JP62 | ORIN | {"module": "p3767-0005"}),
    "orin, JetPack 6.0": Machine(
        JP60 + orin("p3701-0000"),
        ORIN | {"jetpack": "6.0", "tensorrt": "8.6.2.3", "cuda": "12.2.12"},
        {"onnxruntime-missing"},
    ),
    "orin, JetPack 7.2.1": Machine(JP72 + orin(), OF_JP72 | ORIN, {"onnxruntime-missing"}),
    "orin, JetPack 7.2": Machine(
        JP72 + core("39.2.0") + release("39.2.0") + debs(nvidia_jetpack="7.2-b184") + orin("p3701-0005"),
        OF_JP72 | ORIN | {"jetpack": "7.2", "l4t": "39.2.0"},
        {"onnxruntime-missing"},
    ),
    "orin, JetPack 7.2.2 with TensorRT 11": Machine(
        core("39.2.2") + release("39.2.2") + tensorrt("11.4.1.106", "13.2", "3.12") + orin("p3701-0005"),
        ORIN | {"jetpack": "7.2.2", "l4t": "39.2.2", "tensorrt": "11.4.1.106"},
        {"onnxruntime-missing"},
    ),
    "thor, JetPack 7.0": Machine(
        JP70 + thor(),
        THOR | {"jetpack": "7.0", "l4t": "38.2.1", "module": "p3834-0008", "tensorrt": "10.13.3.9"},
        {"onnxruntime-missing", "tensorrt-known-bad"},
        remedies={"tensorrt-known-bad": "10.15 or newer"},
    ),
    "thor, JetPack 7.1": Machine(
        JP71 + thor(), THOR | {"jetpack": "7.1", "l4t": "38.4.0"}, {"onnxruntime-missing", "tensorrt-known-bad"}
    ),
    "thor, JetPack 7.2.1": Machine(JP72 + thor(), OF_JP72 | THOR, {"onnxruntime-missing"}),
    "thor t4000 on a maker's carrier": Machine(
        JP72 + device_tree("Forecr DSBOARD-THRMAX", "forecr,thrmax+p3834-0005", "nvidia,tegra264"),
        OF_JP72 | THOR | {"module": "p3834-0005"},
        {"onnxruntime-missing"},
    ),
    "xavier nx": Machine(
        JP5 + XAVIER_NX, XAVIER | {"jetpack": "5.1.2", "module": "p3668-0001", "tensorrt": "8.5.2.2"}, TOO_OLD, None
    ),
    "agx xavier, whose tree names the kit alone": Machine(
        JP5 + AGX_XAVIER, XAVIER | {"module": None, "board": "Jetson-AGX"}, TOO_OLD, None
    ),
    "nano": Machine(
        JP4 + NANO,
        {
            "soc": "tegra210",
            "compute_capability": "5.3",
            "module": "p3448-0000",
            "jetpack": "4.6.4",
            "tensorrt": "8.2.1.8",
            "cuda": "10.2.300",
        },
        ANCIENT,
        None,
        {"tensorrt-too-old": NEWER},
    ),
    "tx2": Machine(
        JP4 + TX2,
        {"soc": "tegra186", "compute_capability": "6.2", "module": "p3310-1000"},
        ANCIENT,
        None,
        {"tensorrt-too-old": NEWER},
    ),
    "igx orin with a second gpu": Machine(
        JP62 + ORT + IGX + driver("535.161.08", "UNIX Kernel Module for aarch64"),
        {"module": "p3701-0008", "soc": "tegra234", "compute_capability": None, "integrated": None},
    ),
}

CARRIERS = {
    "seeed": carrier("Seeed reComputer J4012", "nvidia,p3768-0000+p3767-0000", "nvidia,tegra234", module="p3767-0000"),
    "connect tech": carrier(
        "Connect Tech Boson for Orin NX", "nvidia,p3509-0000+p3767-0000", "nvidia,tegra234", module="p3767-0000"
    ),
    "auvidea": carrier("Auvidea JNX30", "auvidea,jnx30", "nvidia,p3767-0001", "nvidia,tegra234", module="p3767-0001"),
    "advantech": carrier(
        "Advantech MIC-711-OX", "nvidia,p3768-0000+p3767-0003-super", "nvidia,tegra234", module="p3767-0003"
    ),
    "aetina": carrier("Aetina AIE-KN32", "aetina,aie-kn32+p3767-0001", "nvidia,tegra234", module="p3767-0001"),
    "forecr": carrier("Forecr DSBOARD-ORNXS", "nvidia,p3767-0000", "nvidia,tegra234", module="p3767-0000"),
    "plink, with other chips in the list": carrier(
        "Plink Y-C18", "plink,y-c18", "nvidia,p3701-0005", "nvidia,tegra23x", "nvidia,tegra234", module="p3701-0005"
    ),
}

NO_RUNTIME = {"onnxruntime-missing", "tensorrt-missing"}
HELD = "hold ok installed"
REMOVED = "deinstall ok config-files"
APT = "sudo apt install tensorrt python3-libnvinfer"
SYSTEMS = {
    "without the package nvidia-jetpack": Machine(
        L4T62 + ORT + cuda("12.6.11", "12.6.68") + tensorrt("10.3.0.30", "12.5", "3.10") + orin(), OF_JP62 | ORIN
    ),
    "nothing but the BSP": Machine(
        L4T62 + ORT + orin(),
        ORIN | {"jetpack": "6.2.1", "cuda": None, "tensorrt": None},
        {"tensorrt-missing"},
        "onnxruntime",
        {"tensorrt-missing": APT},
    ),
    "yocto": Machine(
        release("36.4.4")
        + POKY
        + orin()
        + library("10.3.0.30", "usr/lib")
        + python("3.12", "10.3.0", "site-packages")
        + cuda("12.6.11", link=False),
        ORIN | {"l4t": "36.4.4", "jetpack": "6.2.1", "tensorrt": "10.3.0.30", "cuda": "12.6", "python": "3.12"},
        {"onnxruntime-missing"},
    ),
    "yocto without bindings": Machine(
        POKY + orin() + library("10.3.0.30", "usr/lib") + python("3.12"),
        ORIN | {"l4t": None, "jetpack": None, "tensorrt": "10.3.0.30"},
        {"onnxruntime-missing", "tensorrt-bindings-missing"},
        None,
        {"tensorrt-bindings-missing": "add TensorRT with its Python bindings to the image (Poky"},
    ),
    "yocto with opkg and no TensorRT": Machine(
        release("36.4.4") + POKY + orin() + python("3.12") + Part({"var/lib/opkg/status": b""}),
        {"packaging": "opkg", "jetpack": "6.2.1", "tensorrt": None},
        NO_RUNTIME,
        None,
        {"tensorrt-missing": "to the image (Poky"},
    ),
    "nixos": Machine(
        system("NixOS 25.05 (Warbler)")
        + orin()
        + library("10.3.0.30", "run/current-system/sw/lib")
        + Part({"nix/store/x/y": b""}),
        ORIN | {"l4t": None, "jetpack": None, "tensorrt": "10.3.0.30", "packaging": "nix"},
        {"onnxruntime-missing", "tensorrt-bindings-missing"},
        None,
        {"tensorrt-bindings-missing": "to the image (NixOS"},
    ),
    "a release file with CRLF": Machine(JP62 + ORT + release("36.4.7", "\r\n") + orin(), OF_JP62 | ORIN),
    "a release file with a byte order mark": Machine(
        release("36.4.7", start="\ufeff"), {"l4t": "36.4.7", "jetpack": "6.2.1"}, NO_RUNTIME, None
    ),
    "a release file with a comment before it": Machine(
        release("36.4.7", start="# made by us\n"), {"l4t": "36.4.7"}, NO_RUNTIME, None
    ),
    "a release still to come": Machine(
        JP72 + core("40.1.0") + release("40.1.0") + debs(nvidia_jetpack="8.0-b10") + orin(),
        ORIN | {"l4t": "40.1.0", "jetpack": "8.0", "tensorrt": "10.16.2.10"},
        {"onnxruntime-missing"},
    ),
    "a release still to come, without nvidia-jetpack": Machine(
        core("39.3.0") + release("39.3.0") + orin() + python("3.12"),
        ORIN | {"l4t": "39.3.0", "jetpack": None},
        {"onnxruntime-missing", "tensorrt-missing", "l4t-unknown"},
        None,
        {"tensorrt-missing": APT},
    ),
    "a developer preview, whose package does not say so": Machine(
        core("36.2.0") + release("36.2.0") + debs(nvidia_jetpack="6.0-b52") + tensorrt("8.6.2.3", "12.2", "3.10"),
        {"jetpack": "6.0 DP", "l4t": "36.2.0"},
        {"onnxruntime-missing"},
    ),
    "L4T upgraded over the air, JetPack's package not": Machine(
        JP62 + ORT + debs(nvidia_jetpack="6.2+b77") + orin(),
        {"l4t": "36.4.7", "jetpack": "6.2"},
        {"sources-disagree"},
        remedies={"sources-disagree": "the first is used"},
    ),
    "packages upgraded, the release file not": Machine(
        JP62 + ORT + release("36.4.3") + orin(), {"l4t": "36.4.3", "jetpack": "6.2.1"}, {"sources-disagree"}
    ),
    "held packages": Machine(
        JP62 + ORT + core("36.4.7", HELD) + debs(HELD, nvidia_jetpack="6.2.1+b38"), OF_JP62
    ),
    "packages that wait for triggers": Machine(JP62 + ORT + core("36.4.7", "install ok triggers-pending"), OF_JP62),
    "removed packages that left files": Machine(
        JP62 + ORT + debs(REMOVED, nvidia_jetpack="6.2+b77", libnvinfer8="8.6.2.3-1+cuda12.2"), OF_JP62
    ),
    "an upgrade that was broken off": Machine(
        JP62 + ORT + core("36.5.0", "install ok half-configured") + debs("install ok unpacked", vim="9") + orin(),
        OF_JP62 | {"unfinished": "nvidia-l4t-core 36.5.0-20250918154033 (half-configured)"},
        {"upgrade-unfinished"},
        remedies={"upgrade-unfinished": "dpkg --configure -a"},
    ),
    "two toolkits side by side": Machine(
        JP62 + ORT + debs(cuda_toolkit_12_2="12.2.140-1", cuda_toolkit_12_6="12.6.11-1"), {"cuda": "12.6.11"}
    ),
    "TensorRT of two majors": Machine(
        JP62 + ORT + debs(libnvinfer8="8.6.2.3-1+cuda12.2") + library("8.6.2.3"),
        {"tensorrt": "10.3.0.30"},
        {"sources-disagree"},
    ),
}  # fmt: skip

NO_GPU = "on Jetson: --runtime nvidia"
CONTAINERS = {
    "l4t-jetpack with the release file mounted": Machine(
        DOCKER + tensorrt("10.3.0.30", "12.5", "3.10") + debs(dpkg="1.21.1") + release("36.4.7") + soc0(35),
        ORIN | {"l4t": "36.4.7", "jetpack": "6.2.1", "container": True, "board": None},
        {"onnxruntime-missing"},
    ),
    "l4t-jetpack with nothing mounted": Machine(
        DOCKER + tensorrt("10.3.0.30", "12.5", "3.10") + debs(dpkg="1.21.1") + soc0(35, "NVIDIA Jetson Orin NX"),
        ORIN | {"l4t": None, "jetpack": None, "board": "NVIDIA Jetson Orin NX"},
        {"onnxruntime-missing"},
    ),
    "l4t-tensorrt on no Jetson": Machine(
        DOCKER + tensorrt("10.3.0.30", "12.5", "3.10") + ORT,
        NOTHING_OF_A_TEGRA | {"tensorrt": "10.3.0.30"},
        {"no-gpu"},
        "onnxruntime",
        {"no-gpu": NO_GPU},
        is_jetson=False,
    ),
    "files of the host that are not mounted": Machine(
        DOCKER + release("35.4.1") + python("3.10", "8.5.2") + ORT + Part({f"{ARM}/libnvinfer.so.8.5.2": b""}),
        {"tensorrt": "8.5.2", "l4t": "35.4.1"},
        {"unreadable"},
    ),
    "dustynv, with TensorRT from pip and Xavier below it": Machine(
        DOCKER + soc0(25) + system("Ubuntu 22.04.5 LTS") + python("3.10")
        + library("8.5.2.2", "usr/src/tensorrt/lib")
        + Part({"usr/local/lib/python3.10/dist-packages/tensorrt/__init__.py": b""}),
        XAVIER | {"tensorrt": "8.5.2.2", "l4t": None},
        {"onnxruntime-missing"},
    ),
    "a pod of Kubernetes": Machine(
        Part({"run/secrets/kubernetes.io/serviceaccount/token": b"x"}) + ORT + python("3.10"),
        NOTHING_OF_A_TEGRA | {"container": True},
        {"no-gpu"},
        "onnxruntime",
        is_jetson=False,
    ),
}  # fmt: skip

SERVER = debs(dpkg="1.22.6") + system("Ubuntu 24.04.3 LTS") + python("3.12") + ORT
ORT312 = Part({"usr/local/lib/python3.12/dist-packages/onnxruntime-1.23.0.dist-info/METADATA": b""})
OTHERS = {
    "dgx spark": Machine(
        SERVER + ORT312 + driver("580.95.05"),
        NOTHING_OF_A_TEGRA | {"driver": "580.95.05", "arch": "aarch64", "compute_capability": None},
        {"tensorrt-missing"},
        "onnxruntime",
        {"tensorrt-missing": "pip install tensorrt-cu13"},
        is_jetson=False,
    ),
    "grace hopper with TensorRT": Machine(
        SERVER + ORT312 + driver("580.65.06") + tensorrt("10.16.2.10", "13.0", "3.12"),
        NOTHING_OF_A_TEGRA | {"tensorrt": "10.16.2.10"},
        is_jetson=False,
    ),
    "grace hopper with an old driver": Machine(
        SERVER + ORT312 + driver("550.54.15"),
        NOTHING_OF_A_TEGRA,
        {"tensorrt-missing"},
        "onnxruntime",
        {"tensorrt-missing": "update the driver to 580 or newer"},
        is_jetson=False,
    ),
    "grace hopper with the library of CUDA 12": Machine(
        SERVER + ORT312 + driver("550.54.15") + library("10.3.0.30"),
        NOTHING_OF_A_TEGRA | {"tensorrt": "10.3.0.30"},
        {"tensorrt-bindings-missing"},
        "onnxruntime",
        {"tensorrt-bindings-missing": "sudo apt install python3-libnvinfer"},
        is_jetson=False,
    ),
    "drive os": Machine(
        DRIVE + python("3.10") + ORT,
        {"soc": "tegra234", "l4t": None, "jetpack": None, "module": None, "compute_capability": None},
        {"tensorrt-missing"},
        "onnxruntime",
        {"tensorrt-missing": "come with DRIVE OS"},
        is_jetson=False,
    ),
    "drive os without bindings": Machine(
        DRIVE + python("3.10") + ORT + library("8.6.12.4"),
        {"tensorrt": "8.6.12.4"},
        {"tensorrt-bindings-missing"},
        "onnxruntime",
        {"tensorrt-bindings-missing": "come with DRIVE OS"},
        is_jetson=False,
    ),
    "another maker's chip": Machine(
        device_tree("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b", "brcm,bcm2712")
        + Part({"sys/devices/soc0/family": b"Freescale i.MX\n", "sys/devices/soc0/soc_id": b"35\n"})
        + python("3.11"),
        NOTHING_OF_A_TEGRA | {"board": "Raspberry Pi 5 Model B Rev 1.0", "compute_capability": None},
        {"no-gpu", "onnxruntime-missing"},
        None,
        is_jetson=False,
    ),
}

ALL = BOARDS | CARRIERS | SYSTEMS | CONTAINERS | OTHERS


@pytest.mark.parametrize("name", ALL)
def test_what_is_found(name: str, tmp_path: Path) -> None:
    machine = ALL[name]
    env = probe_tree(lay(tmp_path, machine.tree))
    found = values(env)
    assert {key: found[key] for key in machine.values} == machine.values
    problems = find_problems(env)
    assert {problem.code for problem in problems} == machine.codes, problems
    assert judge(env, problems).backend == machine.backend
    for code, words in machine.remedies.items():
        assert [words for problem in problems if problem.code == code and words in problem.remedy], problems
    assert env.is_jetson == machine.is_jetson
