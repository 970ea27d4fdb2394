"""A real RTSP server as a process of its own, so that it can be frozen and killed.

As a program: `python rtsp_server.py FOLDER PORT` serves the folder's clips, prints the port, and runs until its end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class RtspServer:
    """Serves `folder`'s clips, again and again, at `url(name)`; on the same port after `kill` and `start`."""

    folder: Path
    port: int = 0
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self) -> None:
        command = [sys.executable, __file__, str(self.folder), str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def url(self, name: str = "clip.mp4", port: int | None = None, credentials: str = "") -> str:
        return f"rtsp://{credentials}127.0.0.1:{port or self.port}/{name}/play_count_0"

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.communicate()
            self._process = None

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


async def serve(folder: str, port: int) -> None:
    import aio_sockets  # noqa: PLC0415 (only the server's process needs it)
    from aio_rtsp_toolkit import server as toolkit  # noqa: PLC0415

    quiet = aio_sockets.StdoutLogger()
    quiet.info = quiet.warning = quiet.error = quiet.debug = lambda *_, **__: None
    toolkit.logger = quiet
    server = await toolkit.RtspServer(folder, host="127.0.0.1", port=port).start()
    print(server._server.sockets[0].getsockname()[1], flush=True)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    serving, parent = asyncio.ensure_future(server.serve_forever()), os.getppid()
    while os.getppid() == parent:  # whoever started us may be killed without a chance to end us
        await asyncio.wait([serving], timeout=1)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
