"""What is missing now and may be there later: descriptors, memory, processes."""

from __future__ import annotations

import errno
import os

SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOBUFS})


def is_scarce(error: OSError) -> bool:
    """Whether the same call may succeed later, when others have let go of something."""
    return error.errno in SCARCE


def lack_of_descriptors() -> str:
    """Why not one more file can be opened, in words; empty where one can.

    Much of Python takes a folder that it can't open for an empty one: whatever is not found then may be there.
    """
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""
