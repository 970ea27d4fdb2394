"""Opening what may be anything: nothing waits, and nothing stays open."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.commands.service import checked_config
from edgeinfer.config.card import file_sha256, load_card
from edgeinfer.config.settings import load_config, source_names
from edgeinfer.engine.store.trust import read_private
from edgeinfer.environment.tree import Tree
from edgeinfer.errors import EdgeinferError, TemporaryError, unexpected, unreadable
from edgeinfer.guard import files
from edgeinfer.guard.files import in_time, open_anything, read_small
from edgeinfer.guard.limits import MAX_HANGING_READS
from edgeinfer.models.onnxfile import open_regular
from edgeinfer.sources._credentials import account
from edgeinfer.transport import guarded, keys
from edgeinfer.transport.keys import read_list, read_pair, read_public


def descriptors() -> int:
    """Those of this process that are on files of the tests: threads that other tests have left may open others."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the listing's own
            target = str(link.readlink())
            count += "/pytest-of-" in target or target == "/dev/zero"
    return count


def test_a_file_is_read_and_not_inherited(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    with open_anything(tmp_path / "x") as file:
        assert file.read() == b"abc"
        assert not os.get_inheritable(file.fileno())


def test_a_pipe_is_opened_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    open_anything(tmp_path / "pipe").close()


def test_a_link_is_followed_or_not(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    with open_anything(tmp_path / "link") as file:
        assert file.read() == b"abc"
    with pytest.raises(OSError, match="symbolic links"):
        open_anything(tmp_path / "link", follow=False)


@pytest.mark.parametrize(
    "read",
    [open_anything, open_regular, read_private, lambda path: read_public(str(path))],
    ids=["any", "model", "plan", "key"],
)
def test_a_folder_in_place_of_a_file_leaves_nothing_open(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    before = descriptors()
    for _ in range(3):
        with pytest.raises(Exception, match=r"(?i)directory"):
            read(tmp_path)
    assert descriptors() == before


def test_a_folder_in_the_tree_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    before = descriptors()
    Tree(tmp_path).read("etc")
    assert descriptors() == before


READERS: dict[str, Callable[[Path], object]] = {
    "config": load_config,
    "service's config": checked_config,
    "card": load_card,
    "password": lambda path: account("rtsp://camera/x", "u", None, str(path)),
    "key": lambda path: read_public(str(path)),
    "allow list": read_list,
    "model": file_sha256,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("kind", ["pipe", "pipe with a writer", "socket", "device", "folder", "link to a pipe", "gone"])
def test_where_a_file_is_meant_nothing_else_is_read(tmp_path: Path, read: Callable[[Path], object], kind: str) -> None:
    path = tmp_path / "x"
    writer: int | None = None
    if "pipe" in kind:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
        if "writer" in kind:
            writer = os.open(tmp_path / "pipe", os.O_RDWR)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    before = descriptors()
    with pytest.raises(EdgeinferError) as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1
    assert descriptors() == before
    if writer is not None:
        os.close(writer)


def test_the_names_of_sources_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert source_names(tmp_path / "pipe") == set()


def test_a_small_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abcd")
    assert read_small(tmp_path / "x", 4) == b"abcd"
    with pytest.raises(OSError, match="larger than") as caught:
        read_small(tmp_path / "x", 3)
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(ValueError, match="null"):
        read_small(Path("a\0b"), 3)


def test_a_file_that_never_answers_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a network disk that is away: opening a file there does not return."""
    (tmp_path / "x").write_bytes(b"abcd")
    answers = threading.Event()
    there = files.open_anything

    def hangs(path: Path) -> object:
        answers.wait(60)
        return there(path)

    monkeypatch.setattr(files, "open_anything", hangs)
    for _ in range(MAX_HANGING_READS):
        with pytest.raises(OSError, match="not read within") as caught:
            read_small(tmp_path / "x", 4, seconds=0.01)
        assert isinstance(unreadable("x", caught.value), TemporaryError)
    threads = threading.active_count()
    with pytest.raises(OSError, match="still hang"):
        read_small(tmp_path / "x", 4, seconds=0.01)
    assert threading.active_count() == threads, "no more threads are left behind"
    answers.set()
    for thread in threading.enumerate():
        if thread.name == "file":
            thread.join(20)
    assert read_small(tmp_path / "x", 4, seconds=20) == b"abcd", "once they have come back all is as before"


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOMEM, 75), (errno.EMFILE, 75), (errno.ENOENT, 66), (errno.EACCES, 66)]
)
def test_what_is_not_the_files_fault_is_no_bad_input(number: int, code: int) -> None:
    assert unreadable("x", OSError(number, os.strerror(number))).exit_code == code


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOMEM, 75), (errno.EMFILE, 75), (errno.ENFILE, 75), (errno.ENOENT, 66)]
)
@pytest.mark.parametrize(
    "read", [read_list, read_pair, lambda path: read_public(str(path))], ids=["allow list", "pair", "public key"]
)
def test_a_key_file_is_not_to_blame_for_what_the_machine_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], number: int, code: int
) -> None:
    def fails(path: Path) -> object:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(guarded, "open_anything", fails)
    with pytest.raises(EdgeinferError) as caught:
        read(tmp_path / "x")
    assert caught.value.exit_code == code
    assert ("try again" if code == 75 else "makes a pair of keys") in str(caught.value)


def test_a_key_file_whose_disk_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the start of a daemon, and of every client."""
    answers = threading.Event()
    monkeypatch.setattr(guarded, "open_anything", lambda path: answers.wait(60) and open_anything(path))
    monkeypatch.setattr(keys, "in_time", lambda call: in_time(call, 0.01))
    with pytest.raises(TemporaryError, match="not read within"):
        read_list(tmp_path / "x")
    answers.set()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        *((number, 75) for number in (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)),
        *((number, 70) for number in (errno.ENOENT, errno.EACCES, errno.EBADF)),
    ],
)
def test_what_may_work_later_says_so_though_nobody_foresaw_it(number: int, code: int) -> None:
    error = unexpected("unexpected ", OSError(number, os.strerror(number)), "hint")
    assert error.exit_code == code
    assert (error.hint == "hint") == (code == 70)
