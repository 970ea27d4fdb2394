"""The command line itself: exit codes, the one line of an error, the short options and the keys that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from edgeinfer import __version__, cli
from edgeinfer.commands._options import build_config, config_reader, source_overrides
from edgeinfer.errors import ConfigError, EdgeinferError, InputError, TemporaryError, UnavailableError, UsageError
from edgeinfer.guard.redaction import remember


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str, str]]:
    """Runs `main` with a command that does what it is given; exit code, standard output and error."""

    def end(action: Callable[[], Any] | None, *args: str) -> tuple[Any, str, str]:
        if action is not None:
            monkeypatch.setattr(cli, "run", lambda _: action())
        with pytest.raises(SystemExit) as ended:
            cli.main(list(args))
        return ended.value.code, *capsys.readouterr()

    return end


def fails(error: BaseException) -> Callable[[], int]:
    def fail() -> int:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("a", "b"), 64, "a; b"),
        (InputError("a"), 66, "a"),
        (UnavailableError("a"), 69, "a"),
        (EdgeinferError("a"), 70, "a"),
        (TemporaryError("a"), 75, "a"),
        (ConfigError("rtsp://u:secret@h"), 78, "rtsp://***@h"),
        (ValueError("x\n y"), 70, "unexpected ValueError: x y; --verbose shows where"),
        (OSError("rtsp://u:secret@h"), 70, "unexpected OSError: rtsp://***@h; --verbose shows where"),
        (MemoryError("x"), 75, "unexpected MemoryError: x; stop what else runs, or give it more memory"),
        (BrokenPipeError("elsewhere"), 70, "unexpected BrokenPipeError: elsewhere; --verbose shows where"),
    ],
)
def test_every_error_is_one_line_and_a_code(ends: Any, error: Exception, code: int, line: str) -> None:
    assert ends(fails(error)) == (code, "", f"edgeinfer: error: {line}\n")


def test_an_unexpected_error_shows_no_password_that_is_known(ends: Any) -> None:
    remember("rtsp://u:hunter2@h")
    _, _, err = ends(fails(ValueError("no hunter2")), "--verbose")
    assert "Traceback" in err
    assert "hunter2" not in err


def test_a_traceback_only_where_it_is_asked_for(ends: Any) -> None:
    assert "Traceback" not in ends(fails(ConfigError("a")))[2]
    err = ends(fails(ConfigError("a")), "--verbose")[2]
    assert "Traceback" in err
    assert err.endswith("edgeinfer: error: a\n")


def test_other_ends(ends: Any) -> None:
    assert ends(lambda: 0)[0] == 0
    assert ends(lambda: 75)[0] == 75
    assert ends(fails(KeyboardInterrupt())) == (130, "", "")
    assert ends(fails(SystemExit(3)))[0] == 3


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["nonsense"], 64, "No such command 'nonsense'; see edgeinfer --help"),
        (["run", "--sauce"], 64, "see edgeinfer run --help"),
        (["listen", "--count", "0"], 64, "see edgeinfer listen --help"),
        (["keys", "allow"], 64, "see edgeinfer keys allow --help"),
        (["check", "none.yaml"], 66, "none.yaml: No such file or directory"),
    ],
)
def test_a_command_line_that_makes_no_sense(ends: Any, args: list[str], code: int, says: str) -> None:
    found, out, err = ends(None, *args)
    assert (found, out) == (code, "")
    assert says in err
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_help(ends: Any) -> None:
    code, out, err = ends(None, "--help")
    assert (code, err) == (0, "")
    for name in cli._command_names():
        (line,) = (line for line in out.splitlines() if line.split()[:1] == [name])
        assert len(line.split()) > 3, "each has a line of its own, from its docstring"
    assert not [name for name in cli._command_names() if name.startswith("_")]
    assert ends(None, "-h")[1] == out
    assert ends(None)[:2] == (64, out), "without a command it is help too, but an error"
    assert ends(None, "--version")[1] == f"edgeinfer, version {__version__}\n"


# --- options ---


def test_each_option_is_short_for_a_key(tmp_path: Path) -> None:
    config = build_config(
        None, [2], ["yard=demo:", "clip.mp4"], ["sources.yard.fps=5"],
        model="nanodet-g", backend="onnxruntime", bind="tcp://127.0.0.1:7", frames=3, jsonl="-", save="x.mp4",
    )  # fmt: skip
    assert config.model.path == "nanodet-g"
    assert config.backend.name == "onnxruntime"
    publish: Any = config.sinks["publish"].options
    jsonl: Any = config.sinks["sinks.jsonl"].options
    video: Any = config.sinks["sinks.video"].options
    demo: Any = config.sources["yard"].options
    assert (publish.bind, config.frames, jsonl.path, video.path, demo.fps) == ("tcp://127.0.0.1:7", 3, "-", "x.mp4", 5)
    assert {name: source.uri.text for name, source in config.sources.items()} == {
        "camera2": "v4l2:///dev/video2", "yard": "demo:", "clip": "clip.mp4"
    }  # fmt: skip
    assert not any(source.ladder.wait for source in config.sources.values()), "whoever types a source sits there"


def test_what_is_typed_stays_in_force_over_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("sources: {a: {uri: '0', fourcc: MJPG}, b: 'demo:'}\nframes: 2\n")
    read = config_reader(path, [], ["a=demo:"], ["frames=9"], model=None, frames=4)
    first = read()
    assert first.sources["a"].uri.plugin == "demo", "the whole source, not a key of it"
    assert first.sources["b"].ladder.wait
    assert first.frames == 9, "--set comes last"
    path.write_text("sources: {b: 'demo:'}\nframes: 3\n")
    assert set(read().sources) == {"a", "b"}
    assert read().frames == 9


@pytest.mark.parametrize(
    ("cameras", "sources", "in_file", "names"),
    [
        (["0", "3"], [], set(), ["camera0", "camera3"]),
        ([], ["0"], set(), ["camera0"]),
        ([], ["demo:", "demo:"], set(), ["demo", "demo-2"]),
        ([], ["demo:"], {"demo"}, ["demo-2"]),
        ([], ["demo=demo:"], {"demo"}, ["demo"]),
        ([], ["a/clip.mp4", "b/clip.mp4"], set(), ["clip", "clip-2"]),
        ([], ["rtsp://u:p@host/yard"], set(), ["yard"]),
    ],
)
def test_sources_without_a_name_get_one_that_is_free(
    cameras: list[str], sources: list[str], in_file: set[str], names: list[str]
) -> None:
    overrides = source_overrides(cameras, sources, in_file)
    assert [key for key, _ in overrides] == [f"sources.{name}{end}" for name in names for end in ("", ".wait")]
    assert [value for _, value in overrides][1::2] == [False] * len(names)


def test_two_sources_of_one_name() -> None:
    with pytest.raises(click.UsageError, match="two sources are called a"):
        source_overrides([], ["a=demo:", "a=clip.mp4"])
    with pytest.raises(click.UsageError, match="two sources are called camera0"):
        source_overrides(["0"], ["camera0=demo:"])


def every_command(group: click.Group = cli.edgeinfer, before: str = "") -> dict[str, click.Command]:
    """What is typed → the command, those of groups too."""
    found: dict[str, click.Command] = {}
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        found[f"{before}{name}"] = command
        found |= every_command(command, f"{before}{name} ") if isinstance(command, click.Group) else {}
    return found


@pytest.mark.parametrize(("name", "command"), every_command().items(), ids=str)
def test_a_help_page_can_be_read_in_eighty_columns(name: str, command: click.Command) -> None:
    lines = command.get_help(click.Context(command, info_name=f"edgeinfer {name}", terminal_width=80)).splitlines()
    assert max(len(line) for line in lines if "bash-completion/completions" not in line) <= 80
    assert not [line for line in lines if line.endswith("...") and "Usage" not in line], "nothing is cut"
    assert not [line for line in lines if "INTEGER" in line or " RANGE" in line]
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, f"{option.opts} says nothing"
