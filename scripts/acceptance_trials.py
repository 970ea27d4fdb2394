"""The assumptions that edgeinfer makes of a Jetson, each with the way to try it."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from acceptance_bench import LONG_S, Bench, Trial, Verdict, judged

STREAM = """
import sys
from edgeinfer.cuda import access
if {blocked}:
    sys.modules.update(dict.fromkeys((*access.RUNTIME_MODULES, *access.DRIVER_MODULES)))
found = access.find()
access.try_out(found)
print(found.name, "made a stream;", found.instead or "nothing was passed over")
"""


def cuda_python(bench: Bench) -> Verdict:
    """CUDA's minor-version compatibility says yes; reports of error 35 exist."""
    done = bench.python("cuda-python", STREAM.format(blocked=False))
    return judged(done.code == 0 and done.last.startswith("cuda-python"), done.last)


def own_library(bench: Bench) -> Verdict:
    """The way that is taken where cuda-python is missing or too new."""
    done = bench.python("cuda-library", STREAM.format(blocked=True))
    return judged(done.code == 0 and done.last.startswith("libcudart"), done.last)


def known_release(bench: Bench) -> Verdict:
    """Every fact that decides something has a value, and no two sources contradict each other."""
    names = ("jetpack", "l4t", "board", "module", "soc", "cuda", "cuda_driver", "tensorrt", "compute_capability", "gpu")
    unknown = [name for name in names if bench.fact(name) is None]
    differ = sorted(bench.doctor.get("disagreements", {}))
    seen = ", ".join(f"{name} {bench.fact(name)}" for name in names if bench.fact(name) is not None)
    trouble = "".join(
        f"; {text}: {', '.join(found)}" for text, found in (("unknown", unknown), ("contradicted", differ)) if found
    )
    return judged(not unknown and not differ, f"{seen}{trouble}")


def chosen_backend(bench: Bench) -> Verdict:
    """The recipe's outcome."""
    verdict = bench.doctor.get("verdict") or {}
    return judged(verdict.get("backend") == "tensorrt", f"{verdict.get('backend')}: {verdict.get('reason')}")


def serves(bench: Bench) -> Verdict:
    """The whole way: an engine is built, and frames go through it."""
    began = time.monotonic()
    done = bench.edgeinfer("demo", "run", "--source", "demo:", "--backend", "tensorrt", "--frames", "300",
                           "--set", "publish=null", timeout_s=3600)  # fmt: skip
    line = next((line for line in done.output.splitlines() if " on tensorrt" in line), done.last)
    return judged(
        done.code == 0 and " on tensorrt" in line, f"{line.strip()}; {time.monotonic() - began:.0f} s with the build"
    )


def gpu_tests(bench: Bench) -> Verdict:
    """Kernels, memory, graphs, engines against ONNX Runtime, a lost GPU."""
    return bench.tests("gpu-tests", "tests/gpu")


def dla(bench: Bench) -> Verdict:
    """On the boards that have one."""
    cores = bench.fact("dla_cores")
    if not cores:
        return Verdict("not tested", f"doctor counts {cores} DLA cores here")
    done = bench.edgeinfer("dla", "build", "nanodet-g", "--dla", "0", timeout_s=3600)
    line = next((line for line in done.output.splitlines() if "DLA" in line), done.last)
    taken = re.search(r"(\d+) of \d+ layers on DLA", done.output)
    return judged(done.code == 0 and taken is not None and taken[1] != "0", line.strip())


def csi(bench: Bench) -> Verdict:
    """A camera that is opened and closed again and again is not refused by nvargus-daemon."""
    if not any(Path("/proc/device-tree").glob("tegra-camera-platform*")):
        return Verdict("not tested", "the device tree has no CSI camera")
    times = 5 if bench.quick else 50
    for number in range(times):
        quiet = ("--backend", "onnxruntime", "--set", "publish=null")
        done = bench.edgeinfer(f"csi-{number}", "run", "--source", "csi://0", "--frames", "10", *quiet, timeout_s=120)
        if done.code != 0:
            return judged(False, f"opening {number + 1} of {times}: {done.last}")
    return judged(True, f"opened and closed {times} times")


def raw_sensor(bench: Bench) -> Verdict:
    """`--camera 0` on a CSI sensor says csi://N."""
    name = Path("/sys/class/video4linux/video0/name")
    if not name.exists() or not name.read_text().startswith("vi-output"):
        return Verdict("not tested", "there is no /dev/video0 of a CSI sensor")
    done = bench.edgeinfer("raw-sensor", "run", "--camera", "0", "--frames", "3", "--set", "publish=null", timeout_s=60)
    return judged("csi://" in done.output, done.last)


def cameras(bench: Bench) -> Verdict:
    """Those that were named."""
    if not bench.cameras:
        return Verdict("not tested", "no --camera was named")
    for number, uri in enumerate(bench.cameras):
        done = bench.edgeinfer(
            f"camera-{number + 1}", "run", "--source", uri, "--frames", "300", "--set", "publish=null"
        )
        if done.code != 0:
            return judged(False, f"camera {number + 1}: {done.last}")
    return judged(True, f"300 frames of each of {len(bench.cameras)}")


def sensors(bench: Bench) -> Verdict:
    """What a daemon's `status` says of the machine, whatever it has read it from."""
    told = bench.folder / "status.jsonl"
    sinks = f"sinks={{jsonl: {{path: {told}, kinds: [status]}}}}"
    done = bench.edgeinfer("sensors", "run", "--source", "demo:", "--backend", "onnxruntime", "--frames", "300",
                           "--set", "publish=null", "--set", sinks)  # fmt: skip
    if done.code != 0:
        return Verdict("not tested", done.last)
    messages = [json.loads(line) for line in told.read_text().splitlines()]
    machines = [message["vitals"]["machine"] for message in messages if (message.get("vitals") or {}).get("machine")]
    seen = machines[-1] if machines else {}
    lacking = [name for name in ("temperatures_c", "gpu_load", "gpu_hz", "power_mode") if seen.get(name) is None]
    return judged(not lacking, f"{'lacking: ' + ', '.join(lacking) + '; ' if lacking else ''}{json.dumps(seen)[:400]}")


def power_modes(bench: Bench) -> Verdict:
    """Nothing is switched: some modes want a restart."""
    done = bench.run("power-mode", "nvpmodel", "-q")
    return judged(
        done.code == 0 and bench.fact("power_mode") is not None, f"doctor: {bench.fact('power_mode')}; {done.last}"
    )


def nvml(bench: Bench) -> Verdict:
    """It answers in part up to JetPack 6; doctor makes nothing of that."""
    if not bench.doctor:
        return Verdict("not tested", "doctor gave no report")
    told = [found["message"] for found in bench.doctor.get("problems", []) if "NVML" in found["message"]]
    return judged(not told, "; ".join(told) or "no problem is made of NVML")


def service(bench: Bench) -> Verdict:
    """As the user edgeinfer, in its sandbox: it runs on TensorRT, and is taken away again."""
    if shutil.which("systemctl") is None or bench.run("sudo", "sudo", "-n", "true").code != 0:
        return Verdict("not tested", "no systemd, or sudo wants a password: run `sudo -v` before")
    if Path("/etc/edgeinfer").exists():
        return Verdict("not tested", "edgeinfer is installed here as a service: its configuration is left alone")
    return ServiceTrial(bench).verdict()


@dataclass(frozen=True, slots=True)
class ServiceTrial:
    """Installs the service from where its user can read it."""

    bench: Bench

    def verdict(self) -> Verdict:
        """Installs, waits for TensorRT, uninstalls."""
        place, bench = "/opt/edgeinfer-acceptance", self.bench
        extra = "jetpack7" if str(bench.fact("cuda_driver") or "").startswith("13") else "jetpack6"
        steps = {
            "service-venv": ["sudo", "/usr/bin/python3", "-m", "venv", "--system-site-packages", place],
            "service-pip": ["sudo", f"{place}/bin/pip", "install", "--quiet", f".[cpu,rtsp,{extra}]"],
            "service-install": [
                "sudo",
                f"{place}/bin/edgeinfer",
                "service",
                "install",
                "--config",
                "configs/demo.yaml",
            ],
        }
        try:
            for name, argv in steps.items():
                done = bench.run(name, *argv, timeout_s=1800)
                if done.code != 0:
                    return judged(False, f"{name}: {done.last}")
            return self._running(f"{place}/bin/edgeinfer")
        finally:
            bench.run("service-journal", "sudo", "journalctl", "--no-pager", "-u", "edgeinfer")
            bench.run("service-uninstall", "sudo", f"{place}/bin/edgeinfer", "service", "uninstall", "--purge")
            bench.run("service-remove", "sudo", "rm", "-r", place)

    def _running(self, program: str) -> Verdict:
        until = time.monotonic() + 3600
        while time.monotonic() < until:
            done = self.bench.run("service-status", "sudo", program, "service", "status")
            says = next((line for line in done.output.splitlines() if line.startswith("says")), done.last)
            if says.removeprefix("says").strip().startswith("tensorrt-"):
                return judged(True, says)
            time.sleep(10)
        return judged(False, says)


def figures(bench: Bench) -> Verdict:
    """Beside the bare engine. The figures are for docs/performance.md, and nobody judges them here."""
    if bench.quick:
        return Verdict("not tested", "--quick")
    amount = ("--sources", "1,4,8", "--frames", "2000", "--rounds", "3", "--plot", str(bench.folder / "bench.png"))
    done = bench.edgeinfer("bench", "bench", "--backend", "tensorrt", *amount, timeout_s=LONG_S)
    return judged(done.code == 0, "see bench.txt" if done.code == 0 else done.last)


def soak(bench: Bench) -> Verdict:
    """Faults at random, for an hour."""
    if bench.quick:
        return Verdict("not tested", "--quick")
    done = bench.run("soak", sys.executable, "scripts/soak.py", "3600", "120", "1", timeout_s=LONG_S)
    line = next((line for line in done.output.splitlines() if line.startswith("starts:")), done.last)
    return judged(done.code == 0, line)


TRIALS = (
    Trial("cuda-python of this JetPack's extra works with its driver", cuda_python),
    Trial("JetPack's own libcudart does the same without cuda-python", own_library),
    Trial("every version and the board are known, and no two sources contradict each other", known_release),
    Trial("after the README's recipe doctor chooses TensorRT", chosen_backend),
    Trial("an engine is built here and serves", serves),
    Trial("kernels, memory, graphs and engines do what ONNX Runtime and the CPU do", gpu_tests),
    Trial("a DLA takes layers of the default network", dla),
    Trial("a CSI camera can be opened and closed fifty times", csi),
    Trial("/dev/video0 of a CSI sensor is told to be csi://N", raw_sensor),
    Trial("the cameras that were named give frames", cameras),
    Trial("temperatures, GPU load and clock, power mode and memory are read", sensors),
    Trial("nvpmodel's mode is read", power_modes),
    Trial("NVML's silence is no problem", nvml),
    Trial("the service reaches the GPU in its sandbox", service),
    Trial("edgeinfer bench runs to its end (its figures are in bench.txt, and not judged)", figures),
    Trial("it stands an hour of faults", soak),
)
