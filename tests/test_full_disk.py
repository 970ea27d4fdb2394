"""Sinks on a disk that is full, fails, or changes under them: what is lost is told, and what is there is whole."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from msgspec import structs

from edgeinfer.errors import InputError
from edgeinfer.guard.outputs import open_output
from edgeinfer.messages import DetectionsMessage, Message, encode
from edgeinfer.sinks import _recording, jsonl, video
from edgeinfer.sinks._recovery import CALM_S, FIRST_S, LONGEST_S, Recovery
from tests.conftest import Cli
from tests.test_messages import example
from tests.test_sinks import Picture, write

MOUNT, UMOUNT = shutil.which("mount") or "", shutil.which("umount") or ""
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir(mode=0o700)
    mount = [MOUNT, "-t", "tmpfs", "-o", "size=1m,mode=700", "edgeinfer-test", str(folder)]
    if os.geteuid() != 0 or not MOUNT or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs root, to mount a small file system")
    yield folder
    subprocess.run([UMOUNT, "-l", str(folder)], check=True)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the waiting between tries, but where a test is about that."""
    monkeypatch.setattr(Recovery, "due", property(lambda _: True))


def fill(folder: Path) -> Path:
    """Leaves no room."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return ballast


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """A write beyond it is cut short, and the next is EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def numbered(number: int, text: str = "x") -> Message:
    message = example("detections", text=text)
    assert isinstance(message, DetectionsMessage)
    return structs.replace(message, seq=number)


def opened(path: Path) -> jsonl.JsonLines:
    return jsonl.open(jsonl.Options(path=str(path)))


def numbers(path: Path) -> list[int]:
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line)["seq"] for line in text.splitlines()]


# JSON lines


def test_half_a_line_is_taken_back_though_the_sink_after_it_is_open_already(tmp_path: Path) -> None:
    """A reload opens a sink that has failed again while the old one still writes."""
    path = tmp_path / "out.jsonl"
    old = opened(path)
    old.write(numbered(0), None)
    new = opened(path)
    with no_file_beyond(path.stat().st_size + 100):
        old.write(numbered(1), None)
    assert numbers(path) == [0]
    old.close()
    new.write(numbered(2), None)
    new.close()
    assert numbers(path) == [0, 2]


def test_lines_on_a_full_disk_are_lost_whole_and_it_goes_on_when_there_is_room(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = small_disk / "out.jsonl"
    sink = opened(path)
    sink.write(numbered(0), None)
    ballast = fill(small_disk)
    for number in range(1, 40):
        sink.write(numbered(number, "long" * 700), None)
    assert sink.trouble == "No space left on device"
    assert numbers(path) == list(range(40 - sink.lost))
    ballast.unlink()
    lost = sink.lost
    sink.write(numbered(99), None)
    sink.close()
    assert (sink.trouble, sink.reason, sink.lost) == ("", "No space left on device", lost)
    assert numbers(path) == [*range(40 - lost), 99]
    assert [record.message.partition(": ")[2].partition(": ")[2] for record in caplog.records] == [
        "No space left on device; what comes is lost until it can be written again",
        f"is written again; {lost} messages were lost",
    ]


def test_half_a_line_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = opened(path)
    sink.write(numbered(0), None)
    whole = path.stat().st_size
    for beyond in (1, 10, 300):
        with no_file_beyond(whole + beyond):
            sink.write(numbered(1), None)
        assert path.stat().st_size == whole
        assert sink.trouble == "File too large"
    sink.write(numbered(2), None)
    sink.close()
    assert numbers(path) == [0, 2]


@pytest.mark.slow
def test_half_a_line_on_standard_output_is_taken_back(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "from edgeinfer.sinks import jsonl\n"
        "from tests.test_full_disk import no_file_beyond, numbered\n"
        "sink = jsonl.open(jsonl.Options(path='-'))\n"
        "sink.write(numbered(0), None)\n"
        "with no_file_beyond(os.fstat(1).st_size + 100):\n"
        "    sink.write(numbered(1), None)\n"
        "assert sink.lost == 1, sink.lost\n"
        "sink._recovery.succeed()\n"
        "sink.write(numbered(2), None)\n"
    )
    for mode in ("wb", "ab"):
        with (tmp_path / "out").open(mode) as out:
            subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
        assert numbers(tmp_path / "out")[-2:] == [0, 2]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b"whole\n", b"whole\n"),
        (b'whole\n{"kind":"detections","sour', b"whole\n"),
        (b'{"kind":"status"', b""),
        (b'{"kind":"status"}', b'{"kind":"status"}\n'),
        (b"notes of somebody", b"notes of somebody\n"),
        (b'a\n{"other": 1', b'a\n{"other": 1\n'),
    ],
)
def test_half_a_line_of_a_killed_process_is_cut_off_and_nothing_else(
    tmp_path: Path, before: bytes, after: bytes
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(before)
    sink = opened(path)
    sink.write(numbered(5), None)
    sink.close()
    assert path.read_bytes() == after + encode(numbered(5)) + b"\n"


def test_what_another_process_writes_at_this_moment_is_not_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    other = opened(path)
    other.write(numbered(0), None)
    with path.open("ab") as file:
        file.write(b'{"kind":"detections"')
    ours = opened(path)
    ours.write(numbered(1), None)
    for sink in (ours, other):
        sink.close()
    assert path.read_bytes() == encode(numbered(0)) + b'\n{"kind":"detections"\n' + encode(numbered(1)) + b"\n"


def test_a_file_that_is_moved_away_or_removed_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = opened(path)
    sink.write(numbered(0), None)
    path.rename(tmp_path / "out.1")
    sink.write(numbered(1), None)
    path.unlink()
    sink.write(numbered(2), None)
    (tmp_path / "gone").mkdir()
    moved = tmp_path / "gone/out.jsonl"
    other = opened(moved)
    shutil.rmtree(moved.parent)
    other.write(numbered(3), None)
    assert (other.trouble, other.lost) == ("No such file or directory", 1)
    moved.parent.mkdir()
    other.write(numbered(4), None)
    for each in (sink, other):
        each.close()
    assert (numbers(tmp_path / "out.1"), numbers(path), numbers(moved)) == ([0], [2], [4])
    assert (sink.lost, other.trouble) == (0, "")


def test_a_disk_that_becomes_read_only(small_disk: Path) -> None:
    path = small_disk / "out.jsonl"
    sink = opened(path)
    sink.write(numbered(0), None)
    sink.close()
    subprocess.run([MOUNT, "-o", "remount,ro", str(small_disk)], check=True)
    sink.write(numbered(1), None)
    assert (sink.trouble, sink.lost) == ("Read-only file system", 1)
    subprocess.run([MOUNT, "-o", "remount,rw", str(small_disk)], check=True)
    sink.write(numbered(2), None)
    sink.close()
    assert numbers(path) == [0, 2]


def test_a_pipe_whose_reader_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = opened(path)
    sink.write(numbered(0), None)
    os.close(reader)
    for number in (1, 2):
        sink.write(numbered(number), None)
    assert (sink.trouble, sink.lost) == ("No such device or address", 2)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink.write(numbered(3), None)
    sink.close()
    assert json.loads(os.read(reader, 1 << 16))["seq"] == 3
    os.close(reader)


def test_an_error_is_waited_on_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    now = [0.0]
    recovery = Recovery("x", lambda: now[0])
    waits: list[float] = []
    for _ in range(10):
        assert recovery.due
        recovery.fail(OSError(28, "full"))
        begun = now[0]
        while not recovery.due:
            recovery.skip()
            now[0] += FIRST_S / 2
        waits.append(now[0] - begun)
    assert waits[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert waits[-1] == max(waits) == LONGEST_S
    assert recovery.lost > 10
    recovery.succeed()
    now[0] += CALM_S
    recovery.fail(OSError(28, "full"))
    now[0] += FIRST_S
    assert recovery.due


def test_a_trouble_that_comes_and_goes_is_told_once_a_minute_and_tried_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()
    now = [0.0]
    recovery = Recovery("x", lambda: now[0])
    tries = 0
    while now[0] < 5 * CALM_S:
        if recovery.due:
            tries += 1
            recovery.fail(OSError(28, "full"))
            while not recovery.due:
                now[0] += FIRST_S
            recovery.succeed()
    assert tries < 5 * CALM_S / LONGEST_S + 10
    assert len(caplog.records) <= 2 * 6


# What somebody else has put there


@root_only
def test_nothing_is_written_through_what_others_put_into_a_shared_folder(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    precious = tmp_path / "precious"
    precious.write_text("x")
    (shared / "link").symlink_to(precious)
    os.chown(shared / "link", 12345, -1, follow_symlinks=False)
    (shared / "file").write_text("theirs")
    os.chown(shared / "file", 12345, -1)
    os.link(precious, shared / "second")
    os.mkfifo(shared / "pipe")
    os.chown(shared / "pipe", 12345, -1)
    reader = os.open(shared / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for name in ("link", "file", "second", "pipe"):
        with pytest.raises(InputError, match="belongs to somebody else"):
            opened(shared / name)
    (shared / "mine").symlink_to(precious)
    for name in ("mine", "new"):
        os.close(open_output(shared / name, os.O_WRONLY))
    os.close(reader)
    assert precious.read_text() == "x"


def test_what_can_be_no_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/full")
    for name in ("pipe.mp4", "device.mp4"):
        with pytest.raises(InputError, match="can't be written"):
            video.open(video.Options(path=str(tmp_path / name)))


# Video


def frames(path: Path) -> int:
    """How many pictures OpenCV and FFmpeg both find."""
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    capture.release()
    with av.open(str(path)) as file:
        assert sum(1 for _ in file.decode(video=0)) == count
    return count


def recording(path: Path, fps: float = 10.0) -> Any:
    return video.open(video.Options(path=str(path), fps=fps))


def noise(number: int) -> Any:
    picture: Any = Picture(320, 240)
    picture.image = np.random.default_rng(number).integers(0, 255, (240, 320, 3), np.uint8)
    return picture


@pytest.mark.slow
def test_a_video_on_a_full_disk_loses_whole_seconds_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    path = small_disk / "out.mp4"
    sink = recording(path)
    for number in range(100):
        write(sink, "a", noise(number))
    assert sink.trouble == "No space left on device"
    lost = sink.lost
    assert 0 < lost < 100
    assert lost % 10 == 0
    assert frames(path) == 100 - lost
    kept = path.stat().st_size
    subprocess.run([MOUNT, "-o", "remount,size=8m", str(small_disk)], check=True)
    for number in range(25):
        write(sink, "a", noise(number))
    sink.close()
    assert (sink.trouble, sink.reason, sink.lost) == ("", "No space left on device", lost)
    assert path.stat().st_size > kept
    assert frames(path) == 100 - lost + 25


def test_half_a_fragment_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = recording(path)
    for number in range(10):
        write(sink, "a", Picture(64, 48, number))
    whole = path.stat().st_size
    with no_file_beyond(whole + 50):
        for number in range(10):
            write(sink, "a", Picture(64, 48, number))
    assert path.stat().st_size == whole
    assert (sink.trouble, sink.lost) == ("File too large", 10)
    sink.close()
    assert frames(path) == 10


def test_a_disk_that_is_full_from_the_start(small_disk: Path) -> None:
    ballast = fill(small_disk)
    sink = recording(small_disk / "out.mp4")
    for number in range(10):
        write(sink, "a", noise(number))
    assert (sink.trouble, sink.lost) == ("No space left on device", 10)
    ballast.unlink()
    write(sink, "a", noise(1))
    sink.close()
    assert frames(small_disk / "out.mp4") == 1


def test_where_nothing_can_be_encoded_for_now_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = recording(tmp_path / "out.mp4")
    with monkeypatch.context() as patched:
        patched.setattr(_recording, "MEMORY", str(tmp_path / "none"))
        patched.setattr("tempfile.tempdir", str(tmp_path / "none"))
        write(sink, "a", noise(1))
    assert (sink.trouble, sink.lost) == ("No such file or directory", 1)
    write(sink, "a", noise(1))
    sink.close()
    assert frames(tmp_path / "out.mp4") == 1


def test_a_second_that_takes_longer_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that gives two frames a second, or has stopped: whatever message comes, status too."""
    sink = recording(tmp_path / "out.mp4", fps=30)
    write(sink, "a", noise(1))
    sink.write(example("status"), None)
    assert not (tmp_path / "out.mp4").exists()
    monkeypatch.setattr(_recording, "FRAGMENT_S", 0.0)
    sink.write(example("status"), None)
    assert frames(tmp_path / "out.mp4") == 1
    sink.close()


@pytest.mark.slow
def test_a_video_of_a_killed_process_can_be_played_to_its_last_whole_second(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from tests.test_full_disk import noise, recording, write\n"
        "sink = recording(Path(sys.argv[1]))\n"
        "for number in range(35):\n    write(sink, 'a', noise(number))\n"
        "print('there', flush=True)\ntime.sleep(60)\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "out.mp4")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGKILL)
    assert frames(tmp_path / "out.mp4") == 30


def test_a_video_that_was_cut_anywhere_can_be_played_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = recording(path)
    ends = []
    for number in range(30):
        write(sink, "a", Picture(64, 48, number * 8))
        if number % 10 == 9:
            ends.append(path.stat().st_size)
    sink.close()
    data = path.read_bytes()
    for count, end in enumerate(ends, 1):
        (tmp_path / "cut.mp4").write_bytes(data[: end + 20])
        capture, found = cv2.VideoCapture(str(tmp_path / "cut.mp4")), 0
        while capture.read()[0]:
            found += 1
        capture.release()
        assert found == 10 * count


def test_a_video_that_is_there_already_is_kept_under_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"holiday")
    for count in (1, 2):
        sink = recording(path)
        for _ in range(count):
            write(sink, "a", noise(count))
        sink.close()
    assert (tmp_path / "out.1.mp4").read_bytes() == b"holiday"
    assert (frames(tmp_path / "out.2.mp4"), frames(path)) == (1, 2)
    monkeypatch.setattr(_recording, "MAX_SET_ASIDE", 2)
    sink = recording(path)
    write(sink, "a", noise(0))
    sink.close()
    assert (sink.trouble, sink.lost) == ("there are 2 earlier videos of that name already", 1)
    assert frames(path) == 2


def test_a_video_that_is_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = recording(path)
    for number in range(10):
        write(sink, "a", noise(number))
    path.rename(tmp_path / "first.mp4")
    for number in range(12):
        write(sink, "a", noise(number))
    sink.close()
    assert (frames(tmp_path / "first.mp4"), frames(path)) == (10, 12)


def test_the_container_is_read_strictly() -> None:
    from edgeinfer.sinks._mp4 import read_track  # noqa: PLC0415

    for data in (b"", b"\0" * 40, b"\0\0\0\x08mdat", b"\0\0\0\xffmoov", b"\0\0\0\x01moov"):
        with pytest.raises(ValueError, match=r"MP4|box"):
            read_track(data)


def test_times_go_on_over_fragments(tmp_path: Path) -> None:
    sink = recording(tmp_path / "out.mp4", fps=29.97)
    for number in range(65):
        write(sink, "a", Picture(64, 48, number))
    sink.close()
    with av.open(str(tmp_path / "out.mp4")) as file:
        times = [frame.time for frame in file.decode(video=0)]
        assert file.streams.video[0].average_rate == pytest.approx(29.97)
    assert times == pytest.approx([number / 29.97 for number in range(65)])


# The whole program


def test_a_run_that_saves_to_a_full_disk_says_so_in_its_exit_code(cli: Cli, clip: Path, small_disk: Path) -> None:
    fill(small_disk)
    process = cli("run", "--source", f"v={clip}", "--save", str(small_disk / "out.mp4"), "--set", "publish=null")
    assert process.returncode == 75, process.stderr
    assert "messages were not written: No space left on device" in process.stderr


def test_a_run_whose_video_has_no_room_for_its_end_keeps_what_there_was(cli: Cli, clip: Path, small_disk: Path) -> None:
    subprocess.run([MOUNT, "-o", "remount,size=560k", str(small_disk)], check=True)
    path = small_disk / "out.mp4"
    process = cli("run", "--source", f"v={clip}", "--save", str(path), "--set", "publish=null")
    assert process.returncode == 75, process.stderr
    assert 0 < frames(path) < 60
