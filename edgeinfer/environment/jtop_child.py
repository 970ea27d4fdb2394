"""Asks jetson-stats in a process of its own: its import, its threads and its service's silence then harm nobody.

Run as a script with "once" or "stream", and the parent's `sys.path` as a line of JSON on stdin. Prints a line of JSON
for each answer of the service: {"version", "hardware": {name: text}, "power_mode", "gpu_load" 0 to 1, "gpu_hz",
"temperatures_c": {zone: °C}, "power_mw": {rail: mW}}, each left out where it is not known; or {"fault": message}.
"once" ends after the first, "stream" when stdin does.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any


def answer(board: Any) -> dict[str, Any]:
    """What a connected `jtop` says now. What it does not say as expected is left out: its interface may change."""
    found = {}
    for field, get in FIELDS.items():
        with contextlib.suppress(Exception):
            value = get(board)
            if value not in (None, "", {}):
                found[field] = value
    return found


def _hardware(board: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in board.board["hardware"].items() if value}


def _power_mode(board: Any) -> str:
    return "" if board.nvpmodel is None else str(board.nvpmodel)


def _gpu(board: Any) -> Any:
    return next(iter(board.gpu.values()))


def _temperatures(board: Any) -> dict[str, float]:
    return {str(name): float(zone["temp"]) for name, zone in board.temperature.items() if zone.get("online", True)}


def _power(board: Any) -> dict[str, int]:
    return {name: int(rail["power"]) for name, rail in _rails(board.power) if rail.get("online", True)}


def _rails(power: Any) -> Iterator[tuple[str, Any]]:
    yield from power["rail"].items()
    if "power" in power["tot"]:
        yield str(power["tot"].get("name") or "total"), power["tot"]


FIELDS: dict[str, Callable[[Any], Any]] = {
    "hardware": _hardware,
    "power_mode": _power_mode,
    "gpu_load": lambda board: round(float(_gpu(board)["status"]["load"]) / 100, 4),  # per cent
    "gpu_hz": lambda board: int(_gpu(board)["freq"]["cur"]) * 1000,  # kHz
    "temperatures_c": _temperatures,
    "power_mw": _power,
}


def main(mode: str) -> None:
    """Answers on the process's own stdout; what the library prints goes nowhere."""
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.path[:] = json.loads(sys.stdin.readline())

    def say(what: dict[str, Any]) -> None:
        os.write(answers, (json.dumps(what) + "\n").encode())

    if mode == "stream":
        threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        _ask(say, mode)
    except BaseException as error:
        say({"fault": " ".join(str(error).split()) or type(error).__name__})
    os._exit(0)  # its threads are not waited for


def _ask(say: Callable[[dict[str, Any]], None], mode: str) -> None:
    package: Any = __import__("jtop")
    with package.jtop() as board:
        while board.ok():
            say({"version": str(package.__version__), **answer(board)})
            if mode == "once":
                return
    say({"fault": "its service has ended"})


def _end_with_the_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
