"""Standard streams that are closed, or whose readers go away: for every command that is a normal end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from edgeinfer.commands._streams import Outlet
from edgeinfer.messages import DAEMON
from edgeinfer.sinks.zmq import Options
from edgeinfer.sinks.zmq import open as open_publisher
from tests.test_messages import example

GONE = -9
RUN = "run --source demo: --frames 3 --bind tcp://127.0.0.1:*"
COMMANDS = [
    "listen {endpoint} --count 3",
    "listen {endpoint} --jsonl --count 3",
    "status {endpoint}",
    "status {endpoint} --json",
    "top {endpoint} --once",
    "models ls",
    "engines ls",
    "doctor",
    "check c.yaml",
    "--help",
    RUN,
    f"{RUN} --jsonl -",
]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A publisher that goes on publishing everything."""
    sink = open_publisher(Options(bind=f"ipc://{tmp_path_factory.mktemp('ipc')}/s"))
    stop = threading.Event()
    daemon = structs.replace(example("status"), source=DAEMON)

    def serve() -> None:
        while not stop.wait(0.01):
            for message in (*map(example, ("info", "status", "detections")), daemon):
                sink.write(message, None)
            sink.service()

    thread = threading.Thread(target=serve)
    thread.start()
    yield sink.endpoint
    stop.set()
    thread.join()
    sink.close()


class Shell:
    """Runs `edgeinfer ARGS` with redirections."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder, self.endpoint = folder, endpoint
        (folder / "c.yaml").write_text("sources: {a: 'demo:'}\n")

    def __call__(
        self, command: str, closed: str = "", stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[str]:
        """`closed` is the rest of the shell's line; GONE is a pipe that nobody reads."""
        reader, writer = os.pipe()
        os.close(reader)
        line = f"{sys.executable} -m edgeinfer {command.format(endpoint=self.endpoint)} {closed}"
        try:
            return subprocess.run(
                ["/bin/sh", "-fc", line],
                cwd=self.folder,
                stdout=writer if stdout == GONE else stdout,
                stderr=writer if stderr == GONE else stderr,
                text=True,
                timeout=60,
                check=False,
                env={**os.environ, "HOME": str(self.folder)},
            )
        finally:
            os.close(writer)


@pytest.fixture
def shell(tmp_path: Path, endpoint: str) -> Shell:
    return Shell(tmp_path, endpoint)


def errors(process: subprocess.CompletedProcess[str]) -> list[str]:
    """What is on standard error and should not be; a run tells its story there."""
    lines = process.stderr.splitlines()
    tells = "run --source" in str(process.args)
    return [line for line in lines if "error" in line or "Traceback" in line] if tells else lines


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_whose_streams_nobody_reads(shell: Shell, command: str) -> None:
    expected = shell(command)
    gone = shell(command, stdout=GONE)
    assert (gone.returncode, errors(gone)) == (0, []), "a reader that has gone away is a normal end"
    closed = shell(command, ">&-")
    assert (closed.returncode, errors(closed)) == (expected.returncode, [])
    for process in (shell(command, stderr=GONE), shell(command, "2>&-")):
        assert process.returncode == expected.returncode
        assert len(process.stdout.splitlines()) == len(expected.stdout.splitlines()) > 0


@pytest.mark.slow
def test_an_exit_code_needs_no_reader(shell: Shell) -> None:
    assert shell("check none.yaml", stderr=GONE).returncode == 66
    assert shell("check none.yaml", stdout=GONE, stderr=GONE).returncode == 66
    assert shell("check none.yaml", ">&- 2>&-").returncode == 66


@pytest.mark.slow
def test_one_line_of_many(shell: Shell) -> None:
    process = shell("listen {endpoint}", "| head -1")
    assert len(process.stdout.splitlines()) == 1
    assert process.stderr == ""


def test_an_outlet_tells_of_its_reader_and_drops_what_it_may() -> None:
    reader, writer = os.pipe()
    outlet = Outlet(writer, drops=False)
    assert outlet.write(b"abc") == 3
    assert os.read(reader, 9) == b"abc"
    assert not outlet.gone
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        outlet.write(b"abc")
    assert outlet.gone
    outlet.drops = True
    assert outlet.write(memoryview(b"abcd")) == 4
    outlet.close()
    os.close(writer)  # it was left open
