"""Tab in real shells: commands, options, names; and what the shells' scripts are told."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from edgeinfer import cli
from edgeinfer.commands import _completing, _shells
from edgeinfer.engine.store.cache import Cache
from edgeinfer.errors import UsageError
from tests.conftest import Cli

Complete = Callable[[str], list[str]]
LIMIT_S = 60.0


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Complete:
    """What bash is told for a line with the cursor at its end."""

    def ask(line: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_BREAKS", " \t\n\"'><=;|&(:")
        monkeypatch.setenv(_shells.VARIABLE, "bash_complete")
        assert cli.run([]) == 0
        return capfdbinary.readouterr().out.decode().split()

    return ask


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("edgeinfer comp", ["plain,completion"]),
        ("edgeinfer --ver", ["plain,--version"]),
        ("edgeinfer completion ", ["plain,bash", "plain,zsh", "plain,fish"]),
        ("edgeinfer run --sav", ["plain,--save"]),
        ("edgeinfer run --model nano", ["plain,nanodet-g"]),
        ("edgeinfer run --model=nano", ["plain,nanodet-g"]),
        ("edgeinfer run --model ./", ["file,./"]),
        ("edgeinfer run --backend onnx", ["plain,onnxruntime"]),
        ("edgeinfer run --source de", ["plain,demo:"]),
        ("edgeinfer run --source front=de", ["plain,demo:"]),
        ("edgeinfer run --source rtsp:", ["plain,//"]),
        ("edgeinfer run --source clip", ["file,clip"]),
        ("edgeinfer run --config x", ["file,x"]),
        ("edgeinfer run --save 'a b", ["file,a", "b"]),
        ("edgeinfer engines sh", ["plain,show"]),
        ("edgeinfer engines explain na", ["plain,nanodet-g"]),
        ("edgeinfer nothing x", []),
        ("edgeinfer check a b", []),
    ],
)
def test_what_a_line_may_become(complete: Complete, line: str, told: list[str]) -> None:
    assert complete(line) == told


def test_every_command_is_offered_without_being_imported(complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: pytest.fail("a command was imported"))
    assert complete("edgeinfer ") == [f"plain,{name}" for name in cli._command_names()]


@pytest.mark.slow
def test_tab_after_run_loads_nothing_that_runs(tmp_path: Path) -> None:
    heavy = {"cv2", "av", "onnxruntime", "zmq", "edgeinfer.daemon", "edgeinfer.flow"}
    code = "import sys; from edgeinfer.cli import run; run([]); "
    code += f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    env = {**os.environ, "COMP_WORDS": "edgeinfer run --sav", _shells.VARIABLE: "bash_complete"}
    argv = [sys.executable, "-c", code]
    process = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    assert (process.stdout, process.stderr) == ("plain,--save\n", "[]\n")


def test_networks_in_this_folder_are_offered_beside_ours(
    complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("net.onnx", "other.onnx", "n b.onnx", "n$(id).onnx", "net.txt"):
        (tmp_path / name).touch()
    assert complete("edgeinfer build n") == ["plain,nanodet-g", "plain,net.onnx"], "nothing that a shell would obey"


def test_the_keys_of_engines_are_offered(complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("ab" * 32, "cd" * 32):
        (Cache(tmp_path / "cache", writing=True).engines / key).mkdir()
    assert complete(f"edgeinfer engines show --cache-dir {tmp_path}/cache a") == ["plain," + "ab" * 6]
    assert complete(f"edgeinfer engines verify --cache-dir {tmp_path}/cache ") == [
        "plain," + "ab" * 6,
        "plain," + "cd" * 6,
    ]
    assert complete(f"edgeinfer engines show --cache-dir {tmp_path}/none ") == []
    assert complete(f"edgeinfer engines show --cache-dir {Path(__file__).parent} ") == [], "no cache, and no error"


@pytest.mark.parametrize("wish", ["tcsh_complete", "bash", "bash_", "x"])
def test_a_wish_that_no_shell_has(wish: str) -> None:
    with pytest.raises(UsageError, match="makes no sense"):
        _shells.answer(cli.edgeinfer, wish)


@pytest.mark.parametrize("shell", _shells.SHELLS)
def test_the_script_is_printed_as_it_is(cli: Cli, shell: str) -> None:
    process = cli("completion", shell)
    assert process.returncode == 0, process.stderr
    assert process.stdout == _shells.script(shell).rstrip("\n") + "\n"


def test_a_shell_that_is_not_known(cli: Cli) -> None:
    process = cli("completion", "tcsh")
    assert process.returncode == 64
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in process.stderr


def test_fish_and_zsh_are_told_what_things_are_for(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setenv("COMP_WORDS", "edgeinfer chec")
    for shell, word, told in (
        ("fish", "chec", b"plain,check\tValidate a configuration, opening nothing.\n"),
        ("zsh", "1", b"plain\ncheck\nValidate a configuration, opening nothing.\n"),
    ):
        monkeypatch.setenv("COMP_CWORD", word)
        _shells.answer(cli.edgeinfer, f"{shell}_complete")
        assert capfdbinary.readouterr().out == told


def test_values_that_a_shell_would_not_take_as_they_are_are_left_out() -> None:
    assert [item.value for item in _completing.fitting(["a b", "a;b", "a*", "a", "ab"], "a")] == ["a", "ab"]
    assert not isinstance(_completing.fitting([], ""), click.Command)


# --- real shells ---


class Terminal:
    """A shell in a pseudo-terminal, at its prompt."""

    def __init__(self, argv: list[str], folder: Path) -> None:
        self._seen = ""
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        program = bin_folder / "edgeinfer"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m edgeinfer "$@"\n')
        program.chmod(0o755)
        path = f"{bin_folder}:{os.environ['PATH']}"
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execvpe(argv[0], argv, {"PATH": path, "PS1": "% ", "TERM": "dumb", "HOME": str(folder)})  # noqa: S606

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, pattern: str) -> None:
        """Until the screen shows it, after what was waited for before."""
        deadline = time.monotonic() + LIMIT_S
        while not (found := re.search(pattern, self._seen)):
            assert time.monotonic() < deadline, self._seen
            if select.select([self._fd], [], [], 0.2)[0]:
                self._seen += os.read(self._fd, 65536).decode(errors="replace").replace("\x07", "")
        self._seen = self._seen[found.end() :]

    def close(self) -> None:
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)
        os.close(self._fd)


@pytest.fixture
def bash(tmp_path: Path) -> Iterator[Terminal]:
    """bash that has read our script."""
    terminal = Terminal(["bash", "--norc", "--noprofile", "-i"], tmp_path)
    terminal.type("source <(edgeinfer completion bash); echo rea''dy\n")
    terminal.wait_for("ready\r\n")
    yield terminal
    terminal.close()


@pytest.mark.slow
def test_tab_in_bash(bash: Terminal, tmp_path: Path) -> None:
    (tmp_path / "street.mp4").touch()
    bash.type("edgeinfer comp\t")
    bash.wait_for("edgeinfer completion ")
    bash.type("ba\t")
    bash.wait_for("bash ")
    bash.type("\x15edgeinfer run --mod\t")
    bash.wait_for("run --model ")
    bash.type("nan\t--sou\t")
    bash.wait_for("nanodet-g --source ")
    bash.type("front=dem\t#")
    bash.wait_for("front=demo:#")
    bash.type("\x15edgeinfer run --source str\t#")
    bash.wait_for(r"--source street\.mp4 #")
    bash.type("\x15edgeinfer run --source front=rtsp:\t#")
    bash.wait_for("front=rtsp://#")


@pytest.mark.slow
def test_tab_in_zsh(tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    zsh = Terminal(["zsh", "-f", "-i"], tmp_path)
    zsh.type("autoload -U compinit; compinit -u -D; source <(edgeinfer completion zsh); echo rea''dy\n")
    zsh.wait_for("ready\r\n")
    zsh.type("edgeinfer comp\t")
    zsh.wait_for("edgeinfer completion ")
    zsh.type("ba\t")
    zsh.wait_for("bash")
    zsh.type("\x15edgeinfer run --mod\tnan\t#")
    zsh.wait_for("nanodet-g")
    zsh.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "offered"),
    [("edgeinfer comp", "completion"), ("edgeinfer run --model nan", "nanodet-g"), ("edgeinfer engines sh", "show")],
)
def test_fish_completes(tmp_path: Path, line: str, offered: str) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    program = tmp_path / "edgeinfer"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m edgeinfer "$@"\n')
    program.chmod(0o755)
    process = subprocess.run(
        ["fish", "--no-config", "-c", f"edgeinfer completion fish | source; complete -C {shlex.quote(line)}"],  # noqa: S607
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [each.split("\t")[0] for each in process.stdout.splitlines()] == [offered]
