"""A Jetson that boots: the real systemd on a throw-away copy of this machine, laid out as JetPack lays it out.

Real: systemd, Python of JetPack's version with its venv and pip, the packages that pip fetches, dpkg's database and
NVIDIA's release file as captured. Stand-ins: `sudo`, `apt` (installs what is offered here, and records all),
`nvpmodel`, the device nodes (null devices with a Jetson's names, groups and modes), CUDA and TensorRT (see libcuda.c
and tensorrt_stub.py). The processor is this machine's: what the kernel says is x86_64.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tests.jetpack import stubs, tensorrt_stub
from tests.jetpack.orin import THOR
from tests.systemd_machine import ROOT, Booted

TREES = ROOT / "tests" / "environment" / "trees"
LIBRARIES = "/usr/lib/aarch64-linux-gnu"
VENDOR = f"{LIBRARIES}/nvidia"
PASSED_ON = ("PIP_", "SSL_", "REQUESTS_", "HTTP", "NO_PROXY", "http", "no_proxy")
COPIED = ("edgeinfer", "systemd", "configs", "docs", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")
"""Of the repository: what its wheel is made of, and what the recipe names."""
USER, HOME = "jetson", "/home/jetson"
"""Who sets the board up; the first user of a Jetson is in group video."""
NODES = {"nvmap": 0o440, "nvhost-ctrl-gpu": 0o660, "nvhost-gpu": 0o660, "nvgpu/igpu0/ctrl": 0o660}
"""Of group video, with modes as they have been reported of an Orin: nvmap can be read, which is all that CUDA needs."""


@dataclass(frozen=True, slots=True)
class Release:
    """A JetPack. `changes` are made in dpkg's database: the tree's versions and those of this release.

    `nodes`: those of the ordinary driver, which JetPack 7 has in addition.
    """

    name: str
    python: str
    tree: str
    tensorrt: str
    cuda: str
    extra: str
    driver: dict[str, object] = field(default_factory=dict)
    changes: dict[str, str] = field(default_factory=dict)
    l4t: str = ""
    nodes: tuple[str, ...] = ()


JETPACK_6 = Release("6.2.1", "3.10", "jetpack-6.2.1", "10.3.0", "12.6", "jetpack6")
JETPACK_7 = Release(
    "7.1",
    "3.12",
    "jetpack-7.0",
    "10.13.3.9",
    "13.0",
    "jetpack7",
    THOR,
    {"38.2.0-20250821174705": "38.4.0-20251230160601", "10.13.2.6-1+cuda13.0": "10.13.3.9-1+cuda13.0"},
    "R38 (release), REVISION: 4.0",
    ("nvidiactl", "nvidia0"),
)


def pythons() -> dict[str, Path]:
    """Interpreters of other versions on this machine, as pyenv lays them out: version → prefix."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return {".".join(prefix.name.split(".")[:2]): prefix for prefix in sorted(root.glob("3.*"))}


def why_not(*releases: Release) -> str:
    """Why no such machine can be had here; empty where it can."""
    missing = [release.python for release in releases if release.python not in pythons()]
    return f"pyenv has no Python {' and '.join(missing)} here" if missing else stubs.why_not()


class Jetson(Booted):
    """Booted for these releases; `become` makes it one of them."""

    def __init__(self, share: Path, *releases: Release) -> None:
        variables = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        path = "/stand-ins:/usr/sbin:/usr/bin:/sbin:/bin"
        super().__init__(share, [], {**variables, "PATH": path, "PIP_ROOT_USER_ACTION": "ignore"})
        self.script(
            "mkdir /stand-ins; mount -t tmpfs tmpfs /usr/local; mount -t tmpfs tmpfs /sys/firmware; rm -rf /.dockerenv"
        )
        self._copy_source(share / "source")
        self.script(f"""
            useradd --create-home --home-dir {HOME} --groups video {USER}
            mkdir {HOME}/edgeinfer; mount --bind {share}/source {HOME}/edgeinfer""")
        for release in releases:
            self._lend(release.python, pythons()[release.python])

    def script(self, text: str, check: bool = True, timeout: float = 120) -> str:
        """Runs a shell script inside; its output."""
        return self.run("sh", "-ec", text, check=check, timeout=timeout)

    def typed(self, line: str, check: bool = True) -> str:
        """What a user types in the folder of the repository, sudo's part as root; what it prints."""
        if line.startswith("sudo "):
            return self.script(f"cd {HOME}/edgeinfer\n{line}", check, timeout=300)
        return self.as_user(USER, f"cd {HOME}/edgeinfer\n{line}", check)

    def as_user(self, user: str, text: str, check: bool = True) -> str:
        """Runs a shell script as somebody, in the groups that they are in."""
        return self.run("runuser", "-u", user, "--", "sh", "-ec", text, check=check, timeout=300)

    def set(self, **settings: object) -> None:
        """Changes the driver, also under running processes."""
        self.write(f"{VENDOR}/stub.conf", "".join(f"{name}={value}\n" for name, value in settings.items()))

    def become(self, release: Release) -> None:
        """A Jetson as it is after flashing: nothing of edgeinfer, and no TensorRT for Python."""
        offers = self.share / release.name
        for folder in ("dist-packages", "site-packages", "libraries"):
            (offers / folder).mkdir(parents=True)
        tensorrt_stub.write(offers / "dist-packages", release.tensorrt)
        stubs.libnvinfer(offers / "libraries", release.tensorrt)
        runtime = f"libcudart.so.{release.cuda.split('.')[0]}"
        for name in ("libcuda.so.1", runtime):
            shutil.copy(stubs.libraries() / name, offers)
        self._lay_out_files(release, offers)
        self.script(f"""
            rm -rf /usr/local/* {VENDOR} {LIBRARIES}/libnvinfer* /opt/edgeinfer
            mkdir -p {VENDOR} /usr/local/cuda-{release.cuda}/lib64
            ln -s cuda-{release.cuda} /usr/local/cuda
            cp {offers}/libcuda.so.1 {VENDOR}/
            cp {offers}/{runtime} /usr/local/cuda/lib64/
            cp {TREES / release.tree}/usr/local/cuda/version.json /usr/local/cuda/
            printf '%s\\n' {VENDOR} /usr/local/cuda/lib64 {LIBRARIES} >/etc/ld.so.conf.d/tegra.conf
            ldconfig""")
        self._choose_python(release.python, offers)
        self.set(nodes="/dev/nvmap:/dev/nvgpu/igpu0/ctrl", **release.driver)
        self._make_nodes(release)
        self._write_stand_ins(release, offers)

    def _lend(self, version: str, prefix: Path) -> None:
        """Its library as /usr/lib/python3.x, to be written to without touching the one that is lent."""
        self.script(f"""
            mkdir -p /run/{version}/upper /run/{version}/work /usr/lib/python{version}
            mount -t overlay overlay /usr/lib/python{version} \\
              -o lowerdir={prefix}/lib/python{version},upperdir=/run/{version}/upper,workdir=/run/{version}/work
            cp {prefix}/bin/python{version} /usr/bin/
            for library in {prefix}/lib/libpython{version}.so.1.0; do
              test ! -e $library || cp $library /usr/lib/x86_64-linux-gnu/
            done""")

    def _choose_python(self, version: str, offers: Path) -> None:
        """With the folders that Debian's Python looks into."""
        own = f"python{version}/dist-packages"
        lines = f"/usr/local/lib/{own}\n/usr/lib/python3/dist-packages\n/usr/lib/{own}\n"
        (offers / "site-packages" / "debian.pth").write_text(lines)
        self.script(f"""
            ln -sf python{version} /usr/bin/python3
            mountpoint -q /usr/lib/python{version}/site-packages ||
              mount --bind {offers}/site-packages /usr/lib/python{version}/site-packages
            rm -rf /usr/lib/python{version}/dist-packages
            mkdir -p /usr/local/lib/python{version}/dist-packages /usr/lib/python{version}/dist-packages""")

    def _lay_out_files(self, release: Release, offers: Path) -> None:
        """What says which Jetson this is."""
        tree = TREES / release.tree
        status = (tree / "var/lib/dpkg/status").read_text()
        for before, after in release.changes.items():
            assert before in status, before
            status = status.replace(before, after)
        (offers / "status").write_text(status)
        said = (tree / "etc/nv_tegra_release").read_text()
        (offers / "nv_tegra_release").write_text(f"# {release.l4t}\n" if release.l4t else said)
        self.script(f"""
            rm -rf /sys/firmware/devicetree; mkdir -p /sys/firmware/devicetree/base
            cp {tree}/proc/device-tree/* /sys/firmware/devicetree/base/
            cp {offers}/nv_tegra_release {tree}/etc/os-release /etc/
            cp {offers}/status /var/lib/dpkg/status""")

    def _make_nodes(self, release: Release) -> None:
        nodes = {**NODES, **dict.fromkeys(release.nodes, 0o660)}
        self.script(
            "".join(
                f"""
            mkdir -p $(dirname /dev/{name}); test -e /dev/{name} || mknod /dev/{name} c 1 3
            chown root:video /dev/{name}; chmod {mode:o} /dev/{name}"""
                for name, mode in nodes.items()
            )
        )

    def _write_stand_ins(self, release: Release, offers: Path) -> None:
        """`apt` fails for what nobody offers, as the real one does."""
        apt = f"""#!/bin/sh -e
            [ "$1" = install ] && shift
            for package; do
              case $package in
                -y) ;;
                python3-libnvinfer)
                  cp -r {offers}/dist-packages/. /usr/lib/python{release.python}/dist-packages/
                  cp {offers}/libraries/* {LIBRARIES}/; ldconfig ;;
                python3-venv|python3-systemd|python3-gi|gir1.2-gstreamer-1.0) ;;
                *) echo "E: Unable to locate package $package" >&2; exit 100 ;;
              esac
              echo "$package" >>/var/log/installed
            done
            """
        self.write("/stand-ins/sudo", '#!/bin/sh\nexec "$@"\n')
        self.write("/stand-ins/nvpmodel", "#!/bin/sh\nprintf 'NV Power Mode: 25W\\n1\\n'\n")
        self.write("/stand-ins/apt", apt)
        self.script("chmod 755 /stand-ins/*; : >/var/log/installed")

    def _copy_source(self, target: Path) -> None:
        """The repository, as a user has it after `git clone`."""
        target.mkdir()
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
            else:
                shutil.copy(ROOT / name, target / name)
