"""Rules about TensorRT and its Python bindings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgeinfer.environment.diagnosis import NOTHING, ONLY_TENSORRT, Problem, Rule, Severity, pip
from edgeinfer.environment.facts import Environment, Flavour
from edgeinfer.environment.gpu_rules import has_gpu, served_major
from edgeinfer.environment.releases import TENSORRT_OF_JETPACK
from edgeinfer.environment.versions import parts
from edgeinfer.models import conversion

OLDEST = (8, 5)
NAMES: dict[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}


def broken(env: Environment) -> Iterator[Problem]:
    """Bindings that are installed and can't be imported."""
    for fault in env.faults:
        module = fault.source.removeprefix("import ")
        if module in NAMES:
            name = NAMES[module]
            imported = (env.tensorrt_rtx_module if module == "tensorrt_rtx" else env.tensorrt_module).value
            what = f"{name} loads but then fails" if imported else f"{name} is installed but does not load"
            blocks = NOTHING if imported or _other_works(env, module) else ONLY_TENSORRT
            severity: Severity = "error" if blocks else "warning"
            yield Problem("tensorrt-broken", severity, f"{what}: {fault.message}", _mending(fault.message), blocks)


def _other_works(env: Environment, module: Flavour) -> bool:
    other = env.tensorrt_module if module == "tensorrt_rtx" else env.tensorrt_rtx_module
    return other.value is not None


def _mending(message: str) -> str:
    if "cannot open shared object file" in message:
        return "install the library that is named, or add its folder to LD_LIBRARY_PATH"
    if "np.bool" in message or "attribute 'bool'" in message:
        return "TensorRT 8.5 needs NumPy below 1.24, or 2.0 and newer"
    return "reinstall TensorRT and its Python bindings in one version"


def not_importable(env: Environment) -> Iterator[Problem]:
    """No bindings for this Python."""
    if env.tensorrt_module.value or env.tensorrt_rtx_module.value or _import_failed(env):
        return
    if not has_gpu(env) and env.flavour is None:
        return  # the missing GPU is the problem
    code, message, remedy = _why_not_importable(env)
    yield Problem(code, "error", message, remedy, ONLY_TENSORRT)


def _import_failed(env: Environment) -> bool:
    return any(fault.source in ("import tensorrt", "import tensorrt_rtx") for fault in env.faults)


def _why_not_importable(env: Environment) -> tuple[str, str, str]:
    there = env.tensorrt_system_module.value
    if there is not None:
        return _hidden(env, there)
    if env.flavour is not None:
        version = env.tensorrt_in_use.value
        message = f"the library of {NAMES[env.flavour]} {version} is here, but no Python bindings"
        return "tensorrt-bindings-missing", message, _install_bindings(env)
    return "tensorrt-missing", "TensorRT is not installed", _install_tensorrt(env)


def _hidden(env: Environment, there: str) -> tuple[str, str, str]:
    python = ".".join((env.python.value or "?").split(".")[:2])
    tag = re.search(r"python(3\.\d+)", there)
    theirs = tag[1] if tag else ".".join((env.system_python.value or "?").split(".")[:2])
    if theirs != python:
        message = f"TensorRT's bindings in {there} are for Python {theirs}, and this is Python {python}"
        return (
            "tensorrt-other-python",
            message,
            f"run edgeinfer with python{theirs} (in a venv: {_venv(theirs)})",
        )
    message = f"TensorRT's bindings in {there} can't be seen from this virtual environment"
    return "tensorrt-not-visible", message, f"make the venv anew: {_venv(theirs)}"


def _venv(python: str) -> str:
    return f"/usr/bin/python{python} -m venv --system-site-packages VENV"


def _install_bindings(env: Environment) -> str:
    if env.is_tegra and not env.is_jetson:
        return _OF_DRIVE_OS
    if env.is_jetson:
        how = "sudo apt install python3-libnvinfer" if env.has_apt else _no_apt(env)
        return f"{how}, then {_see_system_packages(env)}"
    if env.arch.value == "aarch64" and env.flavour == "tensorrt" and _cuda(env) < 13:  # PyPI has none
        return f"sudo apt install python3-libnvinfer, then {_see_system_packages(env)}"
    package = "tensorrt-rtx" if env.flavour == "tensorrt_rtx" else f"tensorrt-cu{_cuda(env)}"
    return pip(env, f"install {package}=={env.tensorrt_in_use.value}")


def _install_tensorrt(env: Environment) -> str:
    if env.is_tegra and not env.is_jetson:
        return _OF_DRIVE_OS
    if not env.is_jetson:
        return _install_wheel(env)
    how = "sudo apt install tensorrt python3-libnvinfer" if env.has_apt else _no_apt(env)
    apt = f"{how}, then {_see_system_packages(env)}"
    if parts(env.l4t.value or "")[:1] in ((35,), (36,)):
        return f"{apt}; pip won't do: PyPI has no TensorRT of CUDA 11 or 12 for aarch64"
    return apt


_OF_DRIVE_OS = "TensorRT and its bindings come with DRIVE OS, for its own Python; edgeinfer has not been tried there"


def _no_apt(env: Environment) -> str:
    """An image that is made elsewhere, such as Yocto's, has no apt to install with."""
    return f"add TensorRT with its Python bindings to the image ({env.os.value or env.packaging.value})"


def _install_wheel(env: Environment) -> str:
    if env.arch.value == "aarch64" and _cuda(env) < 13:
        wheel = pip(env, "install tensorrt-cu13")
        return f"update the driver to 580 or newer, then {wheel}: PyPI has no older one for aarch64"
    return pip(env, f"install tensorrt-cu{_cuda(env)}")


def _see_system_packages(env: Environment) -> str:
    python = ".".join((env.system_python.value or "3").split(".")[:2])
    return f"a venv that sees it: {_venv(python)}"


def _cuda(env: Environment) -> int:
    """The CUDA to take a wheel for: there are wheels for 12 and 13."""
    return 13 if (served_major(env) or 0) >= 13 else 12


def too_old(env: Environment) -> Iterator[Problem]:
    """A TensorRT without the API that edgeinfer uses."""
    version = env.tensorrt_in_use.value
    if version and env.flavour == "tensorrt" and parts(version)[:2] < OLDEST:
        message = f"TensorRT {version} is too old: edgeinfer needs 8.5 or newer"
        remedy = "install a newer JetPack or TensorRT"
        if env.soc.value in ("tegra210", "tegra186"):
            remedy = "there is no newer one for this module: use ONNX Runtime, in a container with Python 3.10 or newer"
        yield Problem("tensorrt-too-old", "error", message, remedy, ONLY_TENSORRT)


def rtx_on_jetson(env: Environment) -> Iterator[Problem]:
    """NVIDIA builds TensorRT-RTX for no GPU of a Jetson."""
    if env.is_jetson and env.flavour == "tensorrt_rtx":
        message = "TensorRT-RTX serves no GPU of a Jetson"
        yield Problem("rtx-on-jetson", "error", message, _install_tensorrt(env), ONLY_TENSORRT)


def not_of_this_jetpack(env: Environment) -> Iterator[Problem]:
    """A TensorRT other than the one that came with the JetPack; it may work, and is used."""
    version, shipped = env.tensorrt.value, TENSORRT_OF_JETPACK.get(env.jetpack.value or "")
    if version and shipped and not any(f"{known}.".startswith(f"{version}.") for known in shipped):
        message = f"JetPack {env.jetpack.value} came with TensorRT {' or '.join(shipped)}, not {version}"
        remedy = "nothing if it works; after an update, engines are built anew"
        yield Problem("tensorrt-unlisted", "note", message, remedy)


def known_bad(env: Environment) -> Iterator[Problem]:
    """Combinations that others found to give wrong results."""
    if env.soc.value == "tegra264" and parts(env.tensorrt.value or "")[:2] == (10, 13):
        message = "TensorRT 10.13 on Thor is reported to give wrong boxes with RT-DETR"
        remedy = "compare such a model with ONNX Runtime, or install TensorRT 10.15 or newer"
        yield Problem("tensorrt-known-bad", "warning", message, remedy)


def conversion_missing(env: Environment) -> Iterator[Problem]:
    """TensorRT 11 and TensorRT-RTX take a network's precision from its file, which is converted before."""
    version, flavour = env.tensorrt_in_use.value, env.flavour
    if not env.live or version is None or flavour is None or not parts(version):
        return
    installed = {"onnx": env.onnx.value, "onnxconverter-common": env.onnxconverter_common.value}
    needed = conversion.needs_conversion(parts(version), flavour, "fp16")
    lacking = conversion.missing(needed, lambda package: installed.get(package) is not None)
    if lacking:
        message = f"{NAMES[flavour]} {version} wants FP16 in the file, and converting it needs {' and '.join(lacking)}"
        yield Problem("conversion-missing", "warning", message, conversion.REMEDY)


TENSORRT_RULES: tuple[Rule, ...] = (
    broken,
    not_importable,
    too_old,
    rtx_on_jetson,
    not_of_this_jetpack,
    known_bad,
    conversion_missing,
)
