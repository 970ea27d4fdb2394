"""Ten ways to come to a Jetson on which TensorRT is not used, or almost so, and the line that says what to do about it.

The commands are a Jetson's: whoever has one can type them there, as root, and look for the lines in the same places.
`driver` is what only a stub can be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SITE = "/opt/edgeinfer/lib/python3.10/site-packages"
DIST = "/usr/lib/python3.10/dist-packages"
RUNTIME = "/usr/local/cuda/lib64/libcudart.so.12"
LIBRARIES = "/usr/lib/aarch64-linux-gnu"
UNBIND = f"mv {SITE}/cuda {SITE}/cuda_bindings-* {SITE}/cuda_python-* {SITE}/_cuda_bindings_* /opt/aside/"
BIND = f"mv /opt/aside/cuda /opt/aside/cuda_* /opt/aside/_cuda_bindings_* {SITE}/"
"""As pip would uninstall and install it."""
HIDE, SHOW = f"mv {RUNTIME} /opt/aside/; ldconfig", f"mv /opt/aside/libcudart.so.12 {RUNTIME}; ldconfig"
PIP = "sudo /opt/edgeinfer/bin/pip"
JETPACK6 = f"{PIP} install 'edgeinfer[jetpack6]'"


@dataclass(frozen=True, slots=True)
class Way:
    """`breaks` and `mends` are typed as root. `message` and `remedy` are the line that run, status, doctor and the
    journal have to show; where `works`, TensorRT is used nonetheless, and doctor alone has the line; what is `of_now`
    doctor can't know. `wrong` says what the product shows instead so far.
    """

    name: str
    breaks: str
    mends: str
    message: str
    remedy: str
    driver: Mapping[str, object] = field(default_factory=dict)
    works: bool = False
    of_now: bool = False
    wrong: str = ""


def cuda_python(version: str) -> str:
    """Installs another cuda-python than the environment's: only its files, found before it."""
    return f"""
        /opt/edgeinfer/bin/pip install --quiet --no-deps --target /opt/other \\
          'cuda-python{version}' 'cuda-bindings{version}'
        echo 'import sys; sys.path.insert(0, "/opt/other")' >{SITE}/000.pth"""


WAYS = (
    Way(
        "no-cuda-python",
        UNBIND,
        BIND,
        "",
        "",
        works=True,
    ),
    Way(
        "no-cuda-python-and-no-runtime",
        f"{UNBIND}; {HIDE}",
        f"{BIND}; {SHOW}",
        "cuda-python is not installed, and there is no libcudart.so.12 to use instead",
        JETPACK6,
    ),
    Way(
        "cuda-python-of-jetpack-7",
        cuda_python(">=13,<14"),
        f"rm -r /opt/other {SITE}/000.pth",
        "needs a newer driver: this one serves CUDA 12.6; libcudart.so.12 is used instead",
        "nothing has to be done: it does the same",
        works=True,
    ),
    Way(
        "cuda-python-of-jetpack-7-and-no-runtime",
        f"{cuda_python('>=13,<14')}\n{HIDE}",
        f"rm -r /opt/other {SITE}/000.pth; {SHOW}",
        "needs a newer driver: this one serves CUDA 12.6, and there is no libcudart.so.12 to use instead",
        JETPACK6,
    ),
    Way(
        "venv-without-system-packages",
        f"""
        sed -i s/true/false/ /opt/edgeinfer/pyvenv.cfg
        echo /usr/lib/python3/dist-packages >{SITE}/debian.pth""",  # pip counted on what lies there
        f"sed -i s/false/true/ /opt/edgeinfer/pyvenv.cfg; rm {SITE}/debian.pth",
        f"TensorRT's bindings in {DIST}/tensorrt can't be seen from this virtual environment",
        "make the venv anew: /usr/bin/python3.10 -m venv --system-site-packages VENV",
    ),
    Way(
        "tensorrt-of-pip",
        f"cp -r /opt/aside/wheels/. {SITE}/",  # pip install tensorrt
        f"rm -r {SITE}/tensorrt*",
        f"pip's TensorRT 10.13.3.9 in {SITE}/tensorrt is for CUDA 13, and this JetPack's driver serves CUDA 12",
        f"{PIP} uninstall tensorrt tensorrt_cu13 tensorrt_cu13_bindings tensorrt_cu13_libs; "
        "JetPack's own is then found",
    ),
    Way(
        "not-in-group-video",
        "gpasswd --delete edgeinfer video; gpasswd --delete edgeinfer render || true",
        "gpasswd --add edgeinfer video; gpasswd --add edgeinfer render || true",
        "this user may not open /dev/nvgpu/igpu0/ctrl, the GPU's device, which belongs to group video",
        "sudo usermod -aG video edgeinfer, then log in again; a service: systemctl restart edgeinfer",
    ),
    Way(
        "container-without-runtime",
        f"touch /.dockerenv; mv {LIBRARIES}/nvidia /dev/nvmap /dev/nvgpu /dev/nvhost-* /opt/aside/; ldconfig",
        f"rm /.dockerenv; cd /opt/aside; mv nvidia {LIBRARIES}/; mv nvmap nvgpu nvhost-* /dev/; ldconfig",
        "the CUDA driver gives no access to the GPU",
        "start the container with --runtime nvidia",
    ),
    Way(
        "driver-that-fails",
        "true",
        "true",
        "the CUDA driver gives no access to the GPU",
        "check that the package nvidia-l4t-cuda is whole and that this user is in the group video",
        driver={"cuInit": 999},
    ),
    Way(
        "driver-too-old",
        "true",
        "true",
        "the driver serves CUDA 11, and TensorRT needs CUDA 12",
        "update JetPack as a whole: driver, CUDA and TensorRT of a Jetson belong together",
        driver={"driver": 11040},
    ),
    Way(
        "tensorrt-without-its-library",
        f"mv {LIBRARIES}/libnvinfer.so.10 /opt/aside/; ldconfig",
        f"mv /opt/aside/libnvinfer.so.10 {LIBRARIES}/; ldconfig",
        "TensorRT is installed but does not load: ImportError: libnvinfer.so.10: cannot open shared object file: "
        "No such file or directory",
        "install the library that is named, or add its folder to LD_LIBRARY_PATH",
    ),
    Way(
        "no-gpu-memory",
        "true",
        "true",
        "the GPU has no memory left: CUDA can't make a stream (error 2, cudaErrorMemoryAllocation)",
        "end what else uses it; a Jetson's GPU and its programs share one memory: see free -m",
        driver={"cuStreamCreate": 2},
    ),
    Way(
        "too-little-gpu-memory",
        "true",
        "true",
        "the GPU has no memory left: cudaMalloc: CUDA error 2 (cudaErrorMemoryAllocation)",
        "end what else uses it; a Jetson's GPU and its programs share one memory: see free -m",
        driver={"memory": 1_000_000},
        of_now=True,
    ),
    Way(
        "unknown-l4t",
        "cp /etc/nv_tegra_release /opt/aside/; echo '# R37 (release), REVISION: 1.0' >/etc/nv_tegra_release"
        "; sed -i.known 's/36\\.4\\.7-/37.1.0-/; s/^Package: nvidia-jetpack$/Package: another/' /var/lib/dpkg/status",
        "mv /opt/aside/nv_tegra_release /etc/; mv /var/lib/dpkg/status.known /var/lib/dpkg/status",
        "L4T 37.1.0 is not a release that this edgeinfer knows, so its JetPack is unknown",
        "nothing has to be done: what is used is probed; report the release so that it can be added",
        works=True,
    ),
)
