"""What fails for want of a descriptor, memory or a process is tried again: it is not held to be missing."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator

import pytest

from edgeinfer.config import plugins
from edgeinfer.errors import TemporaryError, UnavailableError
from edgeinfer.sources import _gst_process, gst
from edgeinfer.sources._gst_process import find_python


@pytest.fixture
def no_descriptors() -> Iterator[None]:
    """Not one more file can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 1, hard))
    with contextlib.suppress(OSError):
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for descriptor in held:
        os.close(descriptor)


@pytest.mark.parametrize("name", ["rtsp", "nosuch", "demo"])
def test_without_a_descriptor_a_plugin_is_not_held_to_be_missing(no_descriptors: None, name: str) -> None:
    with pytest.raises(TemporaryError, match="too many open files"):
        plugins.load("sources", name)


def test_without_a_descriptor_gstreamer_is_not_held_to_be_missing(no_descriptors: None) -> None:
    find_python.cache_clear()
    with pytest.raises(TemporaryError, match="too many open files"):
        gst.open("gst:videotestsrc", gst.Options())


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EMFILE, TemporaryError), (errno.ENOMEM, TemporaryError), (errno.ENOENT, UnavailableError)],
)
def test_a_process_that_can_not_be_started_may_be_later(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_gst_process, "spawn", fail)
    with pytest.raises(kind):
        gst.open("gst:videotestsrc", gst.Options(python="python3"))
