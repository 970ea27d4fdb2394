"""docs/api.md: its examples are what a daemon answers, its client sees pictures, its paths are all there are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.web.site.openapi import OPERATIONS
from tests.test_docs import python_blocks
from tests.test_zmq import Start, wait_for
from tests.web.serving import ask
from tests.web.test_api import GETS, Remote, page_of, valid

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
EXAMPLES = {
    path: json.loads(text)
    for path, text in re.findall(r"^`GET (/[\w/]+)`[^\n]*\n\n```json\n(.*?)^```", PAGE.read_text(), re.M | re.S)
}


def test_there_is_an_example_of_everything_that_is_made_for_the_page() -> None:
    assert set(EXAMPLES) == {f"/api/v1/{name}" for name in GETS} - {"/api/v1/info", "/api/v1/config"}


@pytest.mark.parametrize("path", EXAMPLES)
def test_examples_are_what_the_description_says(path: str) -> None:
    assert valid(EXAMPLES[path], GETS[path.rpartition("/")[2]])


def test_the_error_is_one() -> None:
    (error,) = re.findall(r'^```json\n(\{"error".*?)^```', PAGE.read_text(), re.M | re.S)
    assert valid(json.loads(error), "Error")


def test_every_path_is_told_of() -> None:
    told = {
        (method.lower(), path.partition("?")[0].replace("NAME", "{name}"))
        for line in PAGE.read_text().splitlines()
        if line.startswith("| `")
        for method, path in re.findall(r"`(GET|POST|DELETE) (/[^`]*)`", line)
    }
    assert told == {(one.method, one.path) for one in OPERATIONS}


def keys(value: Any) -> Any:
    """The shape of an answer: its keys, and of lists the shape of what is in them. Names and numbers may be others."""
    if isinstance(value, dict):
        return {key: keys(item) for key, item in value.items()}
    if isinstance(value, list):
        return keys(value[0]) if value and isinstance(value[0], dict) else "list"
    return "value"


@pytest.mark.slow
def test_examples_are_what_a_daemon_answers_and_the_client_sees_pictures(
    daemon_process: Start, ipc: str, tmp_path: Path
) -> None:
    daemon = daemon_process(
        *("run", "--source", "front=demo:", "--web", "--bind", ipc),
        *("--set", "sources.front.max_fps=5", "--set", "http.bind=127.0.0.1:0"),
    )
    port = page_of(daemon)
    site: Any = Remote(port)
    (client,) = python_blocks(PAGE)
    reader = subprocess.Popen(
        [sys.executable, "-u", "-c", client.replace("9108", port)], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert reader.stdout is not None
    lines = [reader.stdout.readline() for _ in range(5)]
    reader.kill()
    reader.communicate()
    assert all(line.startswith("front ") for line in lines)
    wait_for(lambda: len(ask(site, "/api/v1/history").json["t_ns"]) > 2, "samples")
    machine, sinks = ("daemon", "machine"), ("daemon", "sinks")
    for path, example in EXAMPLES.items():
        answer = ask(site, path).json
        for outer, inner in (machine, sinks):  # what there is of these, the machine and the run decide
            for one in (answer, example):
                one.get(outer, {}).pop(inner, None)
        for one in (answer, example):
            one.get("daemon", {}).pop("dropped_by_reason", None)
            one.get("sources", {}).get("front", {}).pop("dropped_by_reason", None)
            one.pop("dropped", None) if path.endswith("history") else None
            one.pop("temperature_c", None)
            one.pop("last_crash", None)  # of a daemon that another test has killed
        assert keys(answer) == keys(example), path
