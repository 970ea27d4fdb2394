"""The build child: reads one request from standard input, writes events to standard output, and dies with its parent.

python -c "from edgeinfer.engine.build.worker import main; main()"
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from edgeinfer.engine import toolkit
from edgeinfer.engine.build.construct import Construction, Emit
from edgeinfer.engine.build.protocol import BuildRequest, Event, Failed
from edgeinfer.errors import EdgeinferError, FatalError, OutOfMemoryError, UnavailableError


def main() -> None:
    """Entry point of the child."""
    emit = _event_writer()
    _be_the_first_to_go()
    line = sys.stdin.buffer.readline()
    if not line:  # the parent died before it could ask
        return
    request = msgspec.json.decode(line, type=BuildRequest)
    threading.Thread(target=_die_with_parent, args=(Path(request.workspace),), daemon=True).start()
    code = 0
    try:
        with ExitStack() as stack:
            emit(_construct(request, emit, stack).run())
    except EdgeinferError as error:
        emit(_foreseen(error))
        code = error.exit_code
    except BaseException as error:
        emit(_unforeseen(error))
        with suppress(OSError):  # standard error is a file on a disk that may be full
            traceback.print_exc()
        code = 70
    os._exit(code)  # a library's exit handlers may hang or crash after a CUDA error


def _construct(request: BuildRequest, emit: Emit, stack: ExitStack) -> Construction:
    found = toolkit.load(request.flavour)
    if found.version != request.tensorrt:
        wanted = ".".join(map(str, request.tensorrt))
        raise UnavailableError(
            f"{found} was found for the build, where {wanted} was expected", "restart after updating TensorRT"
        )
    return Construction(request, found, emit, stack)


def _foreseen(error: EdgeinferError) -> Failed:
    """A GPU that is lost to this process, or has no memory left for it, is not lost to the one that waits for it."""
    if isinstance(error, FatalError):
        return Failed("BuildError", f"the GPU failed in the build: {error.message}", "try another precision")
    if isinstance(error, OutOfMemoryError):
        return Failed("BuildKilledError", f"no GPU memory for the build: {error.message}", "stop what else runs")
    return Failed(type(error).__name__, error.message, error.hint)


def _unforeseen(error: BaseException) -> Failed:
    if isinstance(error, MemoryError):
        return Failed(
            "BuildKilledError", "the build ran out of memory", "stop what else runs, or add swap; then try again"
        )
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Failed(
            "CacheError", f"no space left for the plan ({error})", "make room, or run `edgeinfer engines prune`"
        )
    return Failed("", f"{type(error).__name__}: {error}")


def _event_writer() -> Emit:
    """Keeps standard output for events; what libraries print there goes to standard error."""
    pipe = os.dup(1)
    os.dup2(2, 1)
    lock = threading.Lock()

    def emit(event: Event) -> None:
        line = memoryview(msgspec.json.encode(event) + b"\n")
        with lock:
            try:
                while line:
                    line = line[os.write(pipe, line) :]
            except BrokenPipeError:
                threading.Event().wait()  # the parent is dead, and the thread that waits for that ends this process

    return emit


def _be_the_first_to_go() -> None:
    """Where memory runs out the build goes, not the daemon; and it gives way to whatever else wants the processor."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(OSError):
        os.nice(10)


def _die_with_parent(workspace: Path) -> None:
    """Standard input ends when the parent dies, however it died."""
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    trash = workspace.with_name(f"{workspace.name}.dead")
    with suppress(OSError):
        workspace.rename(trash)  # first, so that the build can't put anything into it any more
    shutil.rmtree(trash, ignore_errors=True)
    os._exit(75)
