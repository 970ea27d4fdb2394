"""A real systemd on a throw-away copy of this machine or of another system's root, with edgeinfer in an environment
that its user can read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
SYSTEMD = Path("/lib/systemd/systemd")
NSENTER = shutil.which("nsenter") or "nsenter"
PYTHON = "/opt/edgeinfer/bin/python"


def why_not() -> str:
    """Why it can't be booted here; empty where it can."""
    if os.geteuid() != 0:
        return "only root can boot systemd in a namespace"
    if not SYSTEMD.exists() or not shutil.which("unshare") or not shutil.which("nsenter"):
        return "systemd, unshare or nsenter is not installed"
    namespaces = ("--pid", "--mount", "--uts", "--ipc", "--cgroup", "--fork")
    probe = """
        cd "$1"; mount -t tmpfs tmpfs .; mkdir u w r; mount -t overlay overlay -o lowerdir=/,upperdir=u,workdir=w r
        mount -t proc proc r/proc; mount -t sysfs sysfs r/sys; mount -t cgroup2 cgroup2 r/sys/fs/cgroup"""
    with tempfile.TemporaryDirectory() as folder:
        argv = ["unshare", *namespaces, "bash", "-euc", probe, "probe", folder]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"no namespaces or no overlay here: {done.stderr.strip()}"


class Booted:
    """Booted by the constructor, from the system at `root`; `close` ends everything in it.

    `share` is seen on both sides. `mounts` are of the form FROM:TO: what a path of this machine is called inside.
    `variables` are what programs get.
    """

    def __init__(
        self, share: Path, mounts: Sequence[str], variables: Mapping[str, str] | None = None, root: Path = Path("/")
    ) -> None:
        self.share = share
        self._variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "SYSTEMD_PAGER": ""}
        self._variables.update(variables or {})
        self._unshare = subprocess.Popen([str(ROOT / "tests" / "systemd_boot.sh"), str(root), str(share), *mounts])
        try:
            self._pid = self._wait_for_pid_1()
            self.wait(
                lambda: self.systemctl("is-system-running").strip() in ("running", "degraded"), "systemd to be up"
            )
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        """What a kind of machine has beside the system."""

    def _wait_for_pid_1(self) -> int:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            for child in psutil.Process(self._unshare.pid).children():
                if child.name() == "systemd":
                    return child.pid
            time.sleep(0.02)
        raise AssertionError((self.share / "boot.log").read_text())

    def run(self, *argv: str, check: bool = True, timeout: float = 120) -> str:
        """Runs a program inside; its output, both streams."""
        done = subprocess.run(
            [NSENTER, "--target", str(self._pid), "--all", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout,
            env=self._variables,
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def systemctl(self, *arguments: str) -> str:
        """What systemctl says, whatever its exit code."""
        return self.run("systemctl", *arguments, check=False)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", f"--property={name}", "--value", unit).strip()

    def journal(self, *arguments: str) -> str:
        """The messages of the journal."""
        return self.run("journalctl", "--no-pager", "-o", "cat", *arguments, check=False)

    def write(self, path: str, text: str) -> None:
        """A file inside, with its folder."""
        (self.share / "file").write_text(text)
        self.run("sh", "-c", f"mkdir -p $(dirname {path}) && cp {self.share}/file {path}")

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float = 60) -> float:
        """Waits for the condition; how long it took, in seconds."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < timeout_s, f"waited {timeout_s} s for {what}"
            time.sleep(0.05)
        return time.monotonic() - started

    def close(self) -> None:
        """Ends PID 1 and with it everything inside."""
        self._unshare.kill()
        self._unshare.wait()


class Machine(Booted):
    """With edgeinfer as it is here, in an environment that the service's user can read.

    On another system's root it is this machine's Python that runs it.
    """

    def __init__(self, share: Path, root: Path = Path("/")) -> None:
        base = Path(sys.base_prefix)
        mounts = [f"{sysconfig.get_path('purelib')}:/opt/site", f"{ROOT}:/opt/src"]
        if base != Path("/usr"):
            mounts.append(f"{base}:/opt/base")
        super().__init__(share, mounts, root=root)

    def _set_up(self) -> None:
        base = Path(sys.base_prefix)
        python = "/usr/bin/python3" if base == Path("/usr") else f"/opt/base/bin/{Path(sys.executable).resolve().name}"
        if base != Path("/usr"):  # the interpreter may look for its library where it came from
            self.run("sh", "-c", "echo /opt/base/lib >/etc/ld.so.conf.d/base.conf; ldconfig")
        self.run(python, "-m", "venv", "--without-pip", "/opt/edgeinfer")
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        lines = "/opt/src\n/opt/site\n"
        self.run("sh", "-c", f"printf '{lines}' >/opt/edgeinfer/lib/{version}/site-packages/here.pth")

    def edgeinfer(self, *arguments: str, check: bool = True) -> str:
        """Runs the program inside, as root."""
        return self.run(PYTHON, "-m", "edgeinfer", *arguments, check=check)
