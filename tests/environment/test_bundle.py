"""No secret leaves the machine in a bundle."""

from __future__ import annotations

import json
import os
import shutil
import socket
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeinfer.environment import Environment, Fault, bundle
from edgeinfer.environment.diagnosis import judge
from edgeinfer.environment.redact import Redactor, secrets_of
from edgeinfer.environment.report import as_object
from edgeinfer.environment.rules import find_problems
from edgeinfer.errors import UsageError
from tests.environment.test_trees import TREES

MARK = "Zq9"
"""Starts every made-up secret, so that none is a word of the report."""
secrets = st.text(string.ascii_letters + string.digits + "-_.!$%&'()*+,;=~ \"\\", min_size=5, max_size=30).map(
    lambda text: MARK + text.strip() + MARK
)
words = st.text(string.ascii_lowercase, min_size=1, max_size=8)


def bundle_text(told: str, environment: dict[str, str], root: Path = Path("/")) -> str:
    """A bundle of a machine on which a library failed with the message `told`, as it is written."""
    env = Environment(live=True, faults=(Fault("import tensorrt", told), Fault("/etc/os-release", told)))
    problems = find_problems(env)
    return json.dumps(bundle.make(as_object(env, problems, judge(env, problems)), root, environment))


def escaped(secret: str) -> str:
    return json.dumps(secret)[1:-1]


@given(secrets, words, words, st.sampled_from(["rtsp", "https", "http", "tcp", "postgres+ssl"]))
@pytest.mark.long
def test_credentials_in_urls(secret: str, user: str, host: str, scheme: str) -> None:
    for url in (
        f"{scheme}://{user}:{secret}@{host}.lan:80/x",
        f"{scheme}://{secret}@{host}",
        f"{scheme}://h/?k={secret}",
    ):
        assert MARK not in bundle_text(f"can't reach {url}", {})
        assert MARK not in bundle_text("", {"LD_LIBRARY_PATH": url, "https_proxy": url})


@given(
    secrets,
    st.sampled_from(["GITHUB_TOKEN", "HF_TOKEN", "DB_PASSWORD", "aws_secret_access_key", "NGC_API_KEY"]),
)
@pytest.mark.slow
def test_values_of_secret_variables_wherever_they_appear(secret: str, name: str) -> None:
    environment = {name: secret, "LD_LIBRARY_PATH": f"/opt/{secret}/lib"}
    text = bundle_text(f"OSError: no such folder: /opt/{secret}/lib", environment)
    assert escaped(secret) not in text
    assert MARK not in text


@given(
    secrets,
    st.sampled_from(["password=", "token: ", "Authorization: Bearer ", "api_key = ", "--secret ", "X-Api-Key:"]),
)
@pytest.mark.slow
def test_secrets_that_are_named_in_messages(secret: str, name: str) -> None:
    assert MARK not in bundle_text(f"ImportError: refused, {name}{secret}", {})


@given(words.map(lambda name: f"zq{name}zq"))
@pytest.mark.slow
def test_names_of_users_and_hosts(name: str) -> None:
    environment = {
        "USER": name,
        "HOME": f"/srv/{name}",
        "LD_LIBRARY_PATH": f"/data/{name}/lib:/home/other{name}/lib",
    }
    text = bundle_text(f"OSError: /srv/{name}/x and /home/{name}x/y by {name}@{name}.lan", environment)
    assert name not in text


def test_the_name_of_this_machine() -> None:
    host = socket.gethostname()
    text = bundle.redactor({}).text(f"Error on {host}: {host}.lan does not answer")
    assert host not in text


@given(
    st.recursive(st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(words, inner))
)
@pytest.mark.slow
def test_redaction_keeps_the_shape_and_is_stable(value: Any) -> None:
    redactor = Redactor(["hunter2-secret"], ["somebody"])
    once = redactor.data(value)
    assert redactor.data(once) == once
    assert json.dumps(once)
    assert type(once) is type(value)


def test_what_helps_is_kept() -> None:
    text = "libnvinfer.so.10: cannot open shared object file (CUDA 12.6, /usr/lib/aarch64-linux-gnu)"
    assert bundle.redactor({"USER": "nvidia", "HOME": "/home/nvidia"}).text(text) == text


def test_short_values_are_no_literals() -> None:
    assert secrets_of({"A_TOKEN": "a", "B_TOKEN": "long enough", "C": "http://bob:pw123@h"}) == {
        "long enough",
        "pw123",
    }


def test_a_tree_s_bundle_holds_what_the_diagnosis_rests_on_and_nothing_of_this_machine(
    tmp_path: Path,
) -> None:
    root = TREES / "jetpack-6.2.1"
    made = bundle.make({}, root, {"LD_LIBRARY_PATH": "/this/machine"})
    assert made["files"]["/etc/nv_tegra_release"] == (root / "etc/nv_tegra_release").read_text()
    assert made["packages"]["nvidia-jetpack"] == "6.2.1+b38"
    assert made["environment"] == {}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(secrets)
def test_secrets_in_files(tmp_path: Path, secret: str) -> None:
    shutil.rmtree(tmp_path / "t", ignore_errors=True)
    (tmp_path / "t/etc").mkdir(parents=True)
    (tmp_path / "t/etc/os-release").write_text(f'PRETTY_NAME="x"\nHOME_URL="https://u:{secret}@h/"\nTOKEN={secret}\n')
    text = json.dumps(bundle.make({}, tmp_path / "t", {}))
    assert "PRETTY_NAME" in text
    assert MARK not in text


def test_only_the_owner_can_read_the_file_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    path.touch()
    for number in (1, 2):
        made = {"edgeinfer_doctor_bundle": 1, "a": number}
        bundle.write(made, path)
        assert json.loads(path.read_text()) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing/b.json", tmp_path / "folder"):
        with pytest.raises(UsageError, match="can't write"):
            bundle.write({}, path)
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_a_file_that_is_no_bundle_is_not_overwritten(tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_text("dear")
    (tmp_path / "link").symlink_to(letter)
    os.mkfifo(tmp_path / "pipe")
    for name in ("letter", "link", "pipe"):
        with pytest.raises(UsageError, match=name):
            bundle.write({}, tmp_path / name)
    assert letter.read_text() == "dear"
    assert (tmp_path / "link").is_symlink()
