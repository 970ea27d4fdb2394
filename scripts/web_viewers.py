"""Viewers of a page that draw everything at once: `web_viewers.py PORT COUNT WIDTH`, until SIGTERM.

Prints how many pictures each was shown.
"""

from __future__ import annotations

import asyncio
import json
import signal
import struct
import sys

from websockets.asyncio.client import connect


async def look(url: str, shown: list[int], number: int) -> None:
    """One of them."""
    async with connect(url, compression=None, max_size=None) as connection:
        async for data in connection:
            assert isinstance(data, bytes)
            if len(data) > 4 + struct.unpack_from("<I", data)[0]:
                shown[number] += 1
                await connection.send('{"drawn":1}')


async def main(port: int, count: int, width: int) -> None:
    """All of them."""
    ending, shown = asyncio.Event(), [0] * count
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    url = f"ws://127.0.0.1:{port}/live?width={width}"
    looking = [asyncio.ensure_future(look(url, shown, number)) for number in range(count)]
    await ending.wait()
    for task in looking:
        task.cancel()
    print(json.dumps(shown))


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:4])))
