"""The parsers, on real lines and on anything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.environment import formats
from edgeinfer.environment.elf import tensorrt_version
from edgeinfer.environment.libraries import distributions
from edgeinfer.environment.versions import parts
from tests.environment.make_elf import make_elf

numbers = st.lists(st.integers(0, 99999), min_size=1, max_size=5).map(lambda parts: ".".join(map(str, parts)))


@pytest.mark.parametrize(
    ("line", "release"),
    [
        (
            "# R32 (release), REVISION: 7.1, GCID: 29689809, BOARD: t186ref, EABI: aarch64, DATE: Wed Feb  2",
            "32.7.1",
        ),
        (
            "# R34 (release), REVISION: 1.1, GCID: 30414990, BOARD: t186ref, EABI: aarch64, DATE: Tue May 17",
            "34.1.1",
        ),
        ("# R39 (release), REVISION: 2.1, GCID: 46758480, DATE: Fri Aug  7 05:54:22 AM UTC 2026", "39.2.1"),
        ("# R36 (release), REVISION: 4, GCID: 1", "36.4"),
        ("# R36 (prerelease), REVISION: 4.7", None),
        ("KERNEL_VARIANT: oot", None),
        ("", None),
    ],
)
def test_l4t_release(line: str, release: str | None) -> None:
    assert formats.l4t_release(line + "\n# KERNEL_VARIANT: oot\n") == release


@pytest.mark.parametrize(
    ("debian", "upstream"),
    [
        ("10.3.0.30-1+cuda12.5", "10.3.0.30"),
        ("36.4.7-20250918154033", "36.4.7"),
        ("6.2.1+b38", "6.2.1"),
        ("7.2-b184", "7.2"),
        ("1:2.3~rc1-4", "2.3"),
        ("unknown", None),
    ],
)
def test_upstream_version(debian: str, upstream: str | None) -> None:
    assert formats.upstream_version(debian) == upstream


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.216.03  Thu Apr  3 01:14:19 UTC 2025",
            "535.216.03",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  35.3.1  Release Build  (b@m-u64-6289)",
            "35.3.1",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (nixbld@)  ",
            "580.159.04",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64 malformed", None),
    ],
)
def test_driver_version(line: str, version: str | None) -> None:
    assert formats.driver_version(line + "\nGCC version:  gcc version 9.3.0 (Buildroot 2020.08) \n") == version


def test_dpkg_knows_only_what_is_installed() -> None:
    text = (
        "Package: a\nStatus: install ok installed\nArchitecture: arm64\nVersion: 1.2-3\n Version: 9\n\n"
        "Package: b\nStatus: deinstall ok config-files\nVersion: 2\n\n"
        "Package: c\nStatus: hold ok installed\nVersion: 3\n\n"
        "Package: d\nStatus: install ok half-installed\nVersion: 4\n"
    )
    assert formats.dpkg_status(text) == {
        "a": formats.Package("1.2-3", "arm64"),
        "c": formats.Package("3", ""),
    }


def test_cuda_components_skip_what_is_no_version() -> None:
    data = {"cuda": {"version": "12.6.11"}, "a": {"version": 3}, "b": [], "c": {}, "d": {"version": "new"}}
    assert formats.cuda_components(json.dumps(data)) == {"cuda": "12.6.11"}


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000])
def test_cuda_components_of_no_version_file(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting|nested"):
        formats.cuda_components(text)


def test_device_tree_of_a_super_kit() -> None:
    entries = formats.tree_strings("nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005-super\0nvidia,tegra234\0")
    assert (formats.module_of(entries), formats.soc_of(entries)) == ("p3767-0005", "tegra234")


@pytest.mark.parametrize(
    ("status", "mode"), [("pmode:0002", "MAXN_SUPER"), ("pmode:0007\n", "mode 7"), ("fmode:quiet", None)]
)
def test_power_mode(status: str, mode: str | None) -> None:
    config = "# comment\n< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"
    assert formats.power_mode(status, config) == mode


@pytest.mark.parametrize(
    ("text", "mode"),
    [("NV Power Mode: 25W\n1\n", "25W"), ("NV Fan Mode:cool\nNV Power Mode: MAXN\n0\n", "MAXN")],
)
def test_power_query(text: str, mode: str) -> None:
    assert formats.power_query(text) == mode


def test_cudnn_header() -> None:
    header = "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 3\n#define CUDNN_PATCHLEVEL 0\n\n"
    assert formats.cudnn_header(header) == "9.3.0"
    assert formats.cudnn_header(header.replace("MINOR", "OTHER")) is None


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tensorrt-10.3.0.dist-info", ("tensorrt", "10.3.0", False)),
        ("tensorrt_cu13_libs-10.16.1.11.dist-info", ("tensorrt", "10.16.1.11", True)),
        ("tensorrt_rtx_cu13_bindings-1.7.1.116.dist-info", ("tensorrt_rtx", "1.7.1.116", True)),
        ("onnxruntime_gpu-1.23.0.dist-info", ("onnxruntime", "1.23.0", True)),
        ("jetson_stats-4.3.2.egg-info", ("jetson_stats", "4.3.2", True)),
        ("jetson_stats-4.3.2-py3.10.egg-info", ("jetson_stats", "4.3.2", True)),
        ("rapidocr_onnxruntime-1.4.4.dist-info", None),
        ("tensorrt", None),
    ],
)
def test_python_metadata(name: str, found: tuple[str, str, bool] | None) -> None:
    notes = [(note.field, note.value, note.exact) for note in distributions([name], "/x")]
    assert notes == ([found] if found else [])


def elf_version(data: bytes) -> str | None:
    return tensorrt_version(lambda offset, size: data[offset : offset + size])


@given(st.tuples(*[st.integers(0, 99999)] * 4))
def test_a_library_tells_its_four_parts(numbers: tuple[int, int, int, int]) -> None:
    name = "tensorrt_version_" + "_".join(map(str, numbers))
    assert elf_version(make_elf("createInferBuilder_INTERNAL", name, "getPluginRegistry")) == ".".join(
        map(str, numbers)
    )


def test_a_library_of_something_else_has_no_version() -> None:
    assert elf_version(make_elf("cudaMalloc")) is None
    assert elf_version(make_elf("my_tensorrt_version_1_2_3_4")) is None


@given(st.binary(max_size=300), st.integers(0, 250), st.binary(max_size=16))
def test_a_damaged_library_never_raises(junk: bytes, at: int, patch: bytes) -> None:
    whole = make_elf("tensorrt_version_1_2_3_4")
    elf_version(junk)
    elf_version(b"\x7fELF\x02\x01" + junk)
    assert elf_version(whole[:at] + patch + whole[at + len(patch) :]) in (None, "1.2.3.4") or at > 220


@given(st.text())
def test_any_text_gives_none_or_a_value_and_never_raises(text: str) -> None:
    for parse in (formats.l4t_release, formats.driver_version, formats.cuda_text, formats.cudnn_header):
        value = parse(text)
        assert value is None or parts(value)
    formats.mem_total(text)
    formats.os_name(text)
    formats.power_mode(text, text)
    formats.module_of(formats.tree_strings(text))
    assert all(name for name in formats.dpkg_status(text))


@given(numbers, st.sampled_from(["-1+cuda12.5", "+b38", "-b184", "~rc1", ""]))
def test_upstream_version_keeps_all_numbers(version: str, suffix: str) -> None:
    assert formats.upstream_version(version + suffix) == version


@given(st.integers(0, 99), numbers, st.text())
def test_l4t_round_trip(major: int, revision: str, rest: str) -> None:
    assert formats.l4t_release(f"# R{major} (release), REVISION: {revision}, {rest}") == f"{major}.{revision}"


@given(numbers)
def test_parts(version: str) -> None:
    assert parts(version + ".post1") == tuple(int(part) for part in version.split("."))
