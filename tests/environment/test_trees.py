"""What the probe finds in captured trees. Each tree's PROVENANCE says which of its contents are captures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeinfer.environment import Environment, probe
from edgeinfer.environment.diagnosis import judge
from edgeinfer.environment.rules import find_problems

TREES = Path(__file__).with_name("trees")
NAMES = sorted(path.name for path in TREES.iterdir())

EXPECTED: dict[str, dict[str, object]] = {
    "jetpack-5.1": {
        "jetpack": "5.1",
        "l4t": "35.2.1",
        "cuda": "11.4.19",
        "tensorrt": "8.5.2.2",
        "cudnn": "8.6.0.166",
        "board": "NVIDIA Jetson AGX Orin Developer Kit",
        "soc": "tegra234",
        "compute_capability": "8.7",
        "driver": "35.2.1",
        "python": "3.8",
        "integrated": True,
        "arch": "aarch64",
    },
    "jetpack-6.0": {
        "jetpack": "6.0",
        "l4t": "36.3.0",
        "cuda": "12.2.12",
        "cuda_runtime": "12.2.140",
        "tensorrt": "8.6.2.3",
        "cudnn": "8.9.4.25",
        "module": "p3701-0005",
        "driver": None,
    },
    "jetpack-6.1": {
        "jetpack": "6.1",
        "l4t": "36.4.0",
        "tensorrt": "10.3.0.30",
        "tensorrt_module": None,
    },
    "jetpack-6.2.1": {
        "jetpack": "6.2.1",
        "l4t": "36.4.7",
        "cuda": "12.6.11",
        "cuda_runtime": "12.6.68",
        "tensorrt": "10.3.0.30",
        "board": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "module": "p3767-0005",
        "power_mode": "25W",
        "python": "3.10.12",
        "onnxruntime": "1.23.0",
        "memory": 7802888 * 1024,
        "cudnn": "9.3.0.75",
        "gpu": None,
        "sm_count": None,
        "dla_cores": None,
    },
    "jetpack-7.0": {
        "jetpack": "7.0",
        "l4t": "38.2.0",
        "cuda": "13.0",
        "tensorrt": "10.13.2.6",
        "soc": "tegra264",
        "compute_capability": "11.0",
        "module": "p3834-0008",
    },
    "jetpack-7.2": {"jetpack": "7.2", "l4t": "39.2.0", "cuda": "13.2.1", "tensorrt": "10.16.2.10"},
    "jetpack-7.2.1": {
        "jetpack": "7.2.1",
        "l4t": "39.2.1",
        "cuda": "13.2.2",
        "cuda_runtime": "13.2.86",
        "cudnn": "9.20.0.46",
        "driver": None,  # version.json names the toolkit's driver, which need not be the one that runs
    },
    "l4t-future": {
        "jetpack": None,
        "l4t": "42.1.0",
        "soc": "tegra999",
        "compute_capability": None,
        "tensorrt": "13.1.0.5",
    },
    "container-on-jetson": {
        "jetpack": "6.2.1",
        "l4t": "36.4.7",
        "tensorrt": "10.3.0.30",
        "container": True,
        "board": None,
        "soc": None,
        "compute_capability": None,
        "integrated": None,
    },
    "x86-driver": {
        "jetpack": None,
        "l4t": None,
        "driver": "580.159.04",
        "cuda": "13.0",
        "cuda_runtime": "13.0.96",
        "tensorrt": None,
        "arch": "x86_64",
        "python": "3.12.3",
        "memory": 131981020 * 1024,
        "cudnn": None,
    },
    "x86-no-driver": {
        "driver": None,
        "cuda": None,
        "tensorrt": None,
        "python": "3.11.2",
        "onnxruntime": "1.30.0",
    },
}

VERDICTS = {
    "jetpack-5.1": (None, {"python-too-old", "onnxruntime-missing"}),
    "jetpack-6.0": ("tensorrt", {"onnxruntime-missing"}),
    "jetpack-6.1": (None, {"tensorrt-bindings-missing", "onnxruntime-missing"}),
    "jetpack-6.2.1": ("tensorrt", set()),
    "jetpack-7.0": ("tensorrt", {"onnxruntime-missing", "tensorrt-known-bad"}),
    "jetpack-7.2": ("tensorrt", {"onnxruntime-missing"}),
    "jetpack-7.2.1": ("tensorrt", {"onnxruntime-missing"}),
    "l4t-future": ("tensorrt", {"onnxruntime-missing", "l4t-unknown"}),
    "container-on-jetson": ("tensorrt", {"onnxruntime-missing"}),
    "x86-driver": ("onnxruntime", {"tensorrt-missing"}),
    "x86-no-driver": ("onnxruntime", {"no-gpu"}),
}


def no_process(command: list[str], stdin: str, timeout: float) -> object:
    raise AssertionError(f"a captured tree must not start {command}")


def probe_tree(root: Path) -> Environment:
    return probe(root, run=no_process)  # type: ignore[arg-type]


def values(env: Environment) -> dict[str, object]:
    return {name: fact.value for name, fact in env.facts().items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_value_and_nothing_of_this_machine(name: str) -> None:
    env = probe_tree(TREES / name)
    found = values(env)
    assert {key: found[key] for key in EXPECTED[name]} == EXPECTED[name]
    assert not env.live
    assert env.faults == ()
    assert not any(fact.disagreements for fact in env.facts().values())


@pytest.mark.parametrize("name", NAMES)
def test_every_known_value_has_a_source_and_unknown_has_none(name: str) -> None:
    for fact in probe_tree(TREES / name).facts().values():
        assert (fact.value is None) == (fact.source is None)
        assert fact.source != ""


@pytest.mark.parametrize("name", NAMES)
def test_verdict_and_problems(name: str) -> None:
    env = probe_tree(TREES / name)
    problems = find_problems(env)
    assert (judge(env, problems).backend, {problem.code for problem in problems}) == VERDICTS[name]
    assert all(problem.message and problem.remedy for problem in problems)


@pytest.mark.parametrize("name", NAMES)
def test_provenance_says_what_is_captured_and_what_is_not(name: str) -> None:
    text = (TREES / name / "PROVENANCE").read_text()
    assert "captured" in text
    assert "composed" in text


def test_an_empty_folder_is_a_machine_of_which_nothing_is_known(tmp_path: Path) -> None:
    assert set(values(probe_tree(tmp_path)).values()) == {None}


def test_two_sources_that_disagree_are_both_kept_and_reported(tmp_path: Path) -> None:
    shutil.copytree(TREES / "jetpack-6.2.1", tmp_path / "t", symlinks=True)
    release = tmp_path / "t/etc/nv_tegra_release"
    release.write_text(release.read_text().replace("REVISION: 4.7", "REVISION: 4.3"))
    env = probe_tree(tmp_path / "t")
    assert env.l4t.value == "36.4.3"
    assert [other.value for other in env.l4t.disagreements] == ["36.4.7"]
    assert (env.jetpack.value, [other.value for other in env.jetpack.disagreements]) == ("6.2.1", ["6.2"])
    told = [problem.message for problem in find_problems(env) if problem.code == "sources-disagree"]
    assert any("36.4.3 (/etc/nv_tegra_release)" in text and "36.4.7 (dpkg nvidia-l4t-core" in text for text in told)


def test_an_unlisted_point_release_has_no_jetpack_though_its_neighbours_have_one(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.5, GCID: 1, BOARD: generic\n")
    env = probe_tree(tmp_path)
    assert (env.l4t.value, env.jetpack.value) == ("36.4.5", None)


def test_absolute_links_lead_inside_the_tree(tmp_path: Path) -> None:
    """As /proc/device-tree does on a Jetson, and CUDA's folder, through /etc/alternatives."""
    (tmp_path / "sys/firmware/devicetree/base").mkdir(parents=True)
    (tmp_path / "sys/firmware/devicetree/base/model").write_bytes(b"NVIDIA Jetson AGX Orin Developer Kit\0")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/device-tree").symlink_to("/sys/firmware/devicetree/base")
    (tmp_path / "usr/local/cuda-13.0").mkdir(parents=True)
    (tmp_path / "etc/alternatives").mkdir(parents=True)
    (tmp_path / "etc/alternatives/cuda").symlink_to("/usr/local/cuda-13.0")
    (tmp_path / "usr/local/cuda").symlink_to("/etc/alternatives/cuda")
    env = probe_tree(tmp_path)
    assert (env.board.value, env.cuda.value) == ("NVIDIA Jetson AGX Orin Developer Kit", "13.0")


def test_no_link_leads_out_of_the_tree(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("# R36 (release), REVISION: 4.7, GCID: 1\n")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    for target in (str(outside), "../../outside", "../../../../../../../.." + str(outside)):
        link = root / "etc/nv_tegra_release"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        assert link.read_text().startswith("# R36")  # to the system, the link does lead out
        assert probe_tree(root).l4t.value is None


def test_the_device_tree_is_found_where_the_kernel_has_it(tmp_path: Path) -> None:
    """/proc/device-tree is a link to it, which not every container shows."""
    tree = tmp_path / "tree"
    shutil.copytree(TREES / "jetpack-6.2.1", tree, symlinks=True)
    (tree / "sys/firmware/devicetree").mkdir(parents=True)
    (tree / "proc/device-tree").rename(tree / "sys/firmware/devicetree/base")
    env = probe_tree(tree)
    assert env.soc.value == "tegra234"
    assert env.board.source == "/sys/firmware/devicetree/base/model"


def test_dla_cores_are_counted_in_sysfs(tmp_path: Path) -> None:
    for name in ("15880000.nvdla0", "158c0000.nvdla1", "13e00000.host1x"):
        (tmp_path / "sys/bus/platform/devices" / name).mkdir(parents=True)
    assert probe_tree(tmp_path).dla_cores.value == 2


def test_several_names_of_one_library_count_once(tmp_path: Path) -> None:
    shutil.copytree(TREES / "jetpack-6.0", tmp_path / "t", symlinks=True)
    readings = probe_tree(tmp_path / "t").tensorrt.readings
    assert [reading.source for reading in readings if "libnvinfer.so" in reading.source] == [
        "/usr/lib/aarch64-linux-gnu/libnvinfer.so.8"
    ]
