"""Rules about the GPU and its driver."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgeinfer.environment.diagnosis import ONLY_TENSORRT, Problem, Rule, pip
from edgeinfer.environment.facts import Environment
from edgeinfer.environment.releases import DRIVER_FOR_CUDA
from edgeinfer.environment.versions import parts


def has_gpu(env: Environment) -> bool:
    """Whether programs can reach a GPU; of a captured tree, whether it should be so."""
    if env.live:
        return env.sm_count.value is not None  # only the CUDA driver itself tells it
    return env.is_jetson or env.is_tegra or env.driver.value is not None


def gpu_hidden(env: Environment) -> Iterator[Problem]:
    """CUDA_VISIBLE_DEVICES leaves nothing."""
    visible = env.cuda_visible_devices.value
    if env.gpu_count.value == 0 and visible is not None:
        message = f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU"
        yield Problem("gpu-hidden", "error", message, "unset CUDA_VISIBLE_DEVICES", ONLY_TENSORRT)


def gpu_missing(env: Environment) -> Iterator[Problem]:
    """No GPU that programs can reach."""
    if has_gpu(env) or any(gpu_hidden(env)) or any(gpu_denied(env)):
        return
    if env.is_jetson or env.driver.value is not None:
        message = "the CUDA driver gives no access to the GPU"
        yield Problem("gpu-unreachable", "error", message, _access(env), ONLY_TENSORRT)
    else:
        message = "no NVIDIA driver was found"
        remedy = "if there is an NVIDIA GPU, install its driver"
        if env.container.value:
            remedy += ", and start the container with --gpus all (on Jetson: --runtime nvidia)"
        yield Problem("no-gpu", "note", message, remedy, ONLY_TENSORRT)


def gpu_denied(env: Environment) -> Iterator[Problem]:
    """The GPU's device nodes are there, and this user may not open them."""
    closed, group = env.closed_nodes.value, (env.closed_nodes.source or "").removeprefix("group ")
    if has_gpu(env) or not closed:
        return
    message = f"this user may not open {closed[0]}, the GPU's device, which belongs to group {group}"
    remedy = f"sudo usermod -aG {group} {env.user.value}, then log in again; a service: systemctl restart edgeinfer"
    if group == "root":
        remedy = "check udev's rules for it"
    yield Problem("gpu-denied", "error", message, remedy, ONLY_TENSORRT)


def _access(env: Environment) -> str:
    if env.container.value:
        how = "--runtime nvidia" if env.is_jetson else "--gpus all"
        return f"start the container with {how}"
    if env.is_jetson:
        return "check that the package nvidia-l4t-cuda is whole and that this user is in the group video"
    return "check with nvidia-smi; reinstall the driver, and restart after an update of it"


def driver_too_old(env: Environment) -> Iterator[Problem]:
    """The driver serves an older major version of CUDA than TensorRT was built for."""
    needed, served = cuda_major(env), served_major(env)
    if needed is None or served is None or served >= needed:
        return
    if env.is_jetson and "/site-packages" in (env.tensorrt_module.value or ""):
        message = (
            f"pip's TensorRT {env.tensorrt.value} in {env.tensorrt_module.value} is for CUDA {needed}, and this "
            f"JetPack's driver serves CUDA {served}"
        )
        remedy = pip(env, " ".join(["uninstall", *_wheels(needed)])) + "; JetPack's own is then found"
    else:
        number = f" {env.driver.value}" if env.driver.value else ""
        message = f"the driver{number} serves CUDA {served}, and TensorRT needs CUDA {needed}"
        remedy = f"update the driver, or install TensorRT for CUDA {served}"
        if env.is_jetson:
            remedy = "update JetPack as a whole: driver, CUDA and TensorRT of a Jetson belong together"
    yield Problem("driver-too-old", "error", message, remedy, ONLY_TENSORRT)


def _wheels(cuda: int) -> list[str]:
    """The packages that `pip install tensorrt` brings."""
    return ["tensorrt", *(f"tensorrt_cu{cuda}{part}" for part in ("", "_bindings", "_libs"))]


def served_major(env: Environment) -> int | None:
    """The newest major version of CUDA that the driver serves."""
    served = parts(env.cuda_driver.value or "")
    if served:
        return served[0]
    driver = parts(env.driver.value or "")
    if not driver or env.is_jetson:  # Jetson's drivers are numbered differently: JetPack 5's like L4T
        return None
    return next((cuda for cuda, oldest in DRIVER_FOR_CUDA.items() if driver[0] >= oldest), None)


def cuda_major(env: Environment) -> int | None:
    """The CUDA that TensorRT's package names ("+cuda12.5", "_cu13"), else the one that is installed."""
    for reading in env.tensorrt_in_use.readings:
        match = re.search(r"cu(?:da)?(\d{2})\b|cu(\d{2})_", reading.source)
        if match:
            return int(match[1] or match[2])
    if env.live:
        return None  # another toolkit may lie beside; whether it works is tried
    version = parts(env.cuda_runtime.value or env.cuda.value or "")
    return version[0] if version and env.flavour else None


GPU_RULES: tuple[Rule, ...] = (gpu_hidden, gpu_denied, gpu_missing, driver_too_old)
