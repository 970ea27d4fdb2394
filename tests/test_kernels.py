"""The CUDA kernels without a GPU: that they are current, that they are chosen rightly, and what the letterbox computes.

`tests/gpu` runs them on a real one.
"""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeinfer.config.card import InputCard, load_model
from edgeinfer.gpu import forms
from edgeinfer.gpu import kernel_code as cuda
from edgeinfer.gpu.forms import Forms
from edgeinfer.pictures.host import HostSurface, Layout, Shape
from edgeinfer.preprocess.letterbox import Preprocessor, geometry
from edgeinfer.types import Colour, Float32
from tests.drawn import Drawn, Lying, levels_of, network_input

ROOT = Path(__file__).parent.parent

# What a C++ compiler needs to take the source for its own: a loop over all threads calls the kernel.
PRELUDE = """
#include <cmath>
#include <cstddef>
#include <algorithm>
#define __device__
#define __global__
#define __restrict__
#define asm(...) half.bits = 0
using std::min;
struct float3 { float x, y, z; };
struct Index { unsigned x, y, z; };
static Index blockIdx, blockDim{1, 1, 1}, threadIdx;
static float __shfl_xor_sync(unsigned, float value, int) { return value; }
static int __shfl_xor_sync(unsigned, int value, int) { return value; }
static bool __all_sync(unsigned, bool value) { return value; }
static int atomicAdd(int* at, int by) { int before = *at; *at += by; return before; }
"""
CALL = """
extern "C" void run(const Picture* pictures, float* out, int rows, int width, int height, float fill, int swap,
                    const float* scale, const float* bias) {
    for (blockIdx.z = 0; blockIdx.z < rows; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < height; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < width; blockIdx.x++)
                letterbox_float(pictures, out, width, height, fill, swap, float3{scale[0], scale[1], scale[2]},
                                float3{bias[0], bias[1], bias[2]});
}
"""


@pytest.fixture(scope="session")
def letterbox(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    folder = tmp_path_factory.mktemp("kernels")
    source = folder / "frames.cpp"
    source.write_text(PRELUDE + (cuda.KERNELS / "frames.cu").read_text() + CALL)
    library = folder / "frames.so"
    command = [compiler, "-O1", "-w", "-shared", "-fPIC", "-std=c++17", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize("color", ["bgr", "rgb"])
@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
@pytest.mark.parametrize(("height", "width"), [(720, 1280), (480, 640), (607, 300), (33, 1000), (416, 416), (5, 3)])
def test_the_kernel_computes_what_the_cpu_computes(
    letterbox: ctypes.CDLL,
    color: Literal["bgr", "rgb"],
    resize: Literal["letterbox", "stretch"],
    height: int,
    width: int,
) -> None:
    """Within one level of 255, before the normalisation; a place in the batch without a picture is padding."""
    card = msgspec.structs.replace(load_model("nanodet-g").card.input, color=color, resize=resize)
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    form = Forms(card).of_image(image)
    out = computed(letterbox, card, cuda.PLACES.pack(image.ctypes.data, 0, 0) + form.packed, bytes(cuda.PICTURE_BYTES))
    wanted = np.empty(out.shape[1:], np.float32)
    assert Preprocessor(card)(image, wanted) == form.box
    assert difference(out[0], wanted, card) <= 1.0
    blank = (card.fill - np.array(card.mean)) / np.array(card.std)
    assert np.allclose(out[1], blank[:, None, None], atol=1e-5)


def computed(letterbox: ctypes.CDLL, card: InputCard, *pictures: bytes) -> Float32:
    """What the kernel makes of `Picture`s."""
    out = np.full((len(pictures), 3, card.height, card.width), np.nan, np.float32)
    known, three = cuda.constants(card), ctypes.c_float * 3
    letterbox.run(
        b"".join(pictures),
        out.ctypes.data_as(ctypes.c_void_p),
        len(pictures),
        card.width,
        card.height,
        ctypes.c_float(known.fill),
        int(known.swap),
        three(*known.scale),
        three(*known.bias),
    )
    return out


def difference(found: Float32, wanted: Float32, card: InputCard) -> float:
    """The largest, in levels of 255 before the normalisation."""
    return float(np.abs((found - wanted) * np.array(card.std, np.float32)[:, None, None]).max())


SIDES, MATRICES = st.integers(1, 90), st.sampled_from(["bt601", "bt709", "bt2020"])
DRAWN = st.builds(
    Drawn,
    width=SIDES,
    height=SIDES,
    interleaved=st.booleans(),
    depth=st.sampled_from([1, 2]),
    gap=st.sampled_from([0, 2, 30]),
    swapped=st.booleans(),
    colour=st.builds(Colour, MATRICES, st.booleans()),
    seed=st.integers(0, 1 << 30),
)
CARDS = st.builds(
    InputCard,
    name=st.just("images"),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    color=st.sampled_from(["bgr", "rgb"]),
    resize=st.sampled_from(["letterbox", "stretch"]),
    mean=st.just([10.0, 20.0, 30.0]),
    std=st.just([2.0, 4.0, 8.0]),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(DRAWN, CARDS)
def test_any_yuv_picture_is_read_as_the_formula_says(letterbox: ctypes.CDLL, drawn: Drawn, card: InputCard) -> None:
    memory = drawn.memory()
    surface = Lying(drawn, memory.ctypes.data, memory)
    planes, form = surface.planes, Forms(card).of_planes(surface, surface.planes)
    (found,) = computed(letterbox, card, cuda.PLACES.pack(planes.luma, planes.u, planes.v) + form.packed)
    assert form.box == geometry(drawn.width, drawn.height, card)
    assert difference(found, network_input(drawn.levels(memory), drawn.colour, card), card) <= 0.1


@pytest.mark.parametrize("layout", ["nv12", "i420", "p010"])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (33, 21), (1, 1)])
def test_a_surface_in_a_block_is_read_wherever_the_block_was_copied_to(
    letterbox: ctypes.CDLL, layout: Layout, width: int, height: int
) -> None:
    card = msgspec.structs.replace(load_model("nanodet-g").card.input, width=40, height=30)
    shape = Shape(layout, width, height)
    surface = HostSurface(np.random.default_rng(1).integers(0, 256, shape.size, np.uint8), shape, Colour("bt709"))
    form, copy = Forms(card).of_block(surface), surface.memory.copy()
    address = copy.ctypes.data
    picture = cuda.PLACES.pack(address, address + form.u, address + form.v) + form.packed
    (found,) = computed(letterbox, card, picture)
    assert difference(found, network_input(levels_of(surface), surface.colour, card), card) <= 0.1


def test_what_is_known_of_a_form_ends_with_the_threshold_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "_REMEMBERED", 2)
    known = Forms(load_model("nanodet-g").card.input)
    images = [np.zeros((side, 4, 3), np.uint8) for side in (1, 2, 3)]
    first = known.of_image(images[0])
    assert known.of_image(images[0]) is first
    known.expect(0.5)
    assert known.of_image(images[0]).packed != first.packed
    assert [known.of_image(image).box.frame_height for image in images] == [1, 2, 3]
    assert len(known._known) <= 2


@pytest.mark.parametrize(
    ("capability", "file"),
    [
        ((7, 2), "sm_72"),  # Xavier
        ((7, 5), "sm_75"),
        ((8, 0), "sm_80"),
        ((8, 6), "sm_80"),
        ((8, 7), "sm_87"),  # Orin
        ((8, 9), "sm_89"),
        ((9, 0), "sm_90"),
        ((10, 1), "sm_101"),  # Thor, as CUDA 12 counts
        ((10, 2), "sm_100"),
        ((10, 3), "sm_103"),
        ((11, 0), "sm_110"),  # Thor, as CUDA 13 counts
        ((12, 1), "sm_120"),
    ],
)
def test_a_gpu_gets_its_own_code_or_that_of_the_nearest_card_before_it(capability: tuple[int, int], file: str) -> None:
    assert cuda.code(*capability) == (cuda.KERNELS / f"{file}.cubin").read_bytes()


@pytest.mark.parametrize(("capability", "compiled"), [((8, 7), 86), ((8, 9), 87), ((10, 1), 100), ((10, 3), 101)])
def test_a_tegra_runs_no_code_but_its_own_and_no_card_runs_a_tegras(
    tmp_path: Path, capability: tuple[int, int], compiled: int
) -> None:
    (tmp_path / f"sm_{compiled}.cubin").write_bytes(b"code")
    assert cuda.code(*capability, tmp_path) is None
    assert cuda.code(*divmod(compiled, 10), tmp_path) == b"code"


@pytest.mark.parametrize("capability", [(5, 3), (7, 0), (11, 1), (13, 0)])
def test_a_gpu_that_nothing_was_compiled_for_gets_nothing(capability: tuple[int, int]) -> None:
    assert cuda.code(*capability) is None


def test_the_structs_are_laid_out_as_in_c() -> None:
    """Three pointers, ten ints and seven floats, filled up to whole pointers; eight words of four bytes."""
    assert struct.calcsize("3P10i7f0P") == cuda.PICTURE_BYTES
    assert cuda.CANDIDATE.itemsize == 32


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """scripts/kernels.py with a folder of its own and a compiler that needs no NVRTC."""
    spec = importlib.util.spec_from_file_location("kernels_script", ROOT / "scripts/kernels.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    monkeypatch.setattr(made, "FOLDER", tmp_path)
    monkeypatch.setattr(made, "find", lambda package: package)
    monkeypatch.setattr(made, "loaded", lambda library: library)
    monkeypatch.setattr(made, "compiled", lambda nvrtc, architecture: f"{nvrtc} {architecture}".encode())
    return made


def test_the_script_writes_what_is_stale_and_only_checks_when_asked_to(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(check=True) == 1
    assert list(tmp_path.iterdir()) == []
    assert "stale: sm_72.cubin" in capsys.readouterr().out
    assert script.main(check=False) == 0
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in cuda.KERNELS.glob("*.cubin")}
    assert (tmp_path / "sm_110.cubin").read_bytes() == b"nvidia-cuda-nvrtc==13.0.88 110"
    assert (tmp_path / "sm_87.cubin").read_bytes() == b"nvidia-cuda-nvrtc-cu12==12.0.140 87"
    assert script.main(check=True) == 0
    (tmp_path / "sm_87.cubin").write_bytes(b"old")
    assert script.main(check=True) == 1
    assert capsys.readouterr().out.endswith("stale: sm_87.cubin\n")


def test_the_script_ends_where_nvrtc_fails(script: Any) -> None:
    script.ask(0)
    with pytest.raises(SystemExit, match="NVRTC error 6"):
        script.ask(6)


@pytest.mark.slow
def test_the_compiled_kernels_are_those_of_the_source() -> None:
    """Compiled again where NVRTC is installed: `scripts/kernels` installs it, as CI does."""
    process = subprocess.run(
        [sys.executable, "scripts/kernels.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if "is missing" in process.stderr:
        pytest.skip("needs NVRTC: ./scripts/kernels --check")
    assert process.returncode == 0, process.stdout + process.stderr
