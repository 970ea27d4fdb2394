"""Who else may write a file: by its status alone."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Sequence

import pytest

from edgeinfer.guard.ownership import folder_writers, writers

US, OTHER, GROUP = 4001, 4002, 5001


def status(owner: int = US, group: int = GROUP, mode: int = 0o644, kind: int = stat.S_IFREG) -> os.stat_result:
    return os.stat_result((kind | mode, 1, 1, 1, owner, group, 0, 0, 0, 0))


@pytest.fixture(autouse=True)
def people(monkeypatch: pytest.MonkeyPatch) -> None:
    """We are `us` with a group of our own, 4001; group 5001 has members, 5002 has none but us."""
    monkeypatch.setattr(os, "geteuid", lambda: US)
    users = {US: ("us", US), 0: ("root", 0)}
    members: dict[int, Sequence[str]] = {US: (), GROUP: ("us", "them"), 5002: ("us",), 0: (), 5003: ("them",)}
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd((users[uid][0], "", uid, users[uid][1], *"xyz")))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("g", "", gid, list(members[gid]))))


@pytest.mark.parametrize("owner", [US, 0])
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o444])
def test_what_only_we_or_root_may_write(owner: int, mode: int) -> None:
    assert writers(status(owner, mode=mode)) == ""


@pytest.mark.parametrize(
    ("found", "who"),
    [
        (status(OTHER), "it belongs to user 4002"),
        (status(OTHER, mode=0o400), "it belongs to user 4002"),
        (status(mode=0o646), "everybody may write it (mode 0646)"),
        (status(mode=0o602), "everybody may write it (mode 0602)"),
        (status(mode=0o664), "group 5001 may write it (mode 0664)"),
        (status(group=5002, mode=0o664), "group 5002 may write it (mode 0664)"),
        (status(group=5003, mode=0o620), "group 5003 may write it (mode 0620)"),
        (status(group=9999, mode=0o664), "group 9999 may write it (mode 0664)"),
        (status(0, US, mode=0o664), "group 4001 may write it (mode 0664)"),
        (status(group=US, mode=0o664), ""),
        (status(0, 0, mode=0o664), ""),
        (status(group=US, mode=0o666), "everybody may write it (mode 0666)"),
    ],
)
def test_who_else_may(found: os.stat_result, who: str) -> None:
    assert writers(found) == who


def test_a_group_of_ones_own_that_somebody_else_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("us", "", gid, ["us", "them"])))
    assert writers(status(group=US, mode=0o664)) == "group 4001 may write it (mode 0664)"


def test_who_is_trusted_may_own_it_and_no_more() -> None:
    assert writers(status(OTHER), {OTHER}) == ""
    assert writers(status(OTHER, mode=0o666), {OTHER}) == "everybody may write it (mode 0666)"


class Folder:
    """A folder with this status."""

    def __init__(self, owner: int, mode: int) -> None:
        self._status = status(owner, mode=mode, kind=stat.S_IFDIR)

    def stat(self) -> os.stat_result:
        return self._status


@pytest.mark.parametrize(
    ("owner", "mode", "trusted", "who"),
    [
        (US, 0o755, (), ""),
        (US, 0o777, (), "everybody may write it (mode 0777)"),
        (US, 0o1777, (), ""),
        (OTHER, 0o1777, (), ""),
        (OTHER, 0o755, (), "it belongs to user 4002"),
        (OTHER, 0o755, (OTHER,), ""),
    ],
)
def test_in_a_sticky_folder_everybody_keeps_his_own(owner: int, mode: int, trusted: Sequence[int], who: str) -> None:
    assert folder_writers(Folder(owner, mode), set(trusted)) == who  # type: ignore[arg-type]
