"""The command line: a module in `commands/` per command, and one place that turns errors into exit codes."""

from __future__ import annotations

import ast
import contextlib
import importlib
import logging
import os
import pkgutil
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from edgeinfer import __version__, commands
from edgeinfer.commands import _arguments, _shells, _streams
from edgeinfer.commands._terminal import echo, echo_lines
from edgeinfer.errors import EdgeinferError, UsageError, unexpected
from edgeinfer.guard.printable import indented
from edgeinfer.watchdog import early


def _command_names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(commands.__path__) if module.name[0] != "_")


class LazyGroup(click.Group):
    """Finds commands by file name and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return _command_names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _command_names():
            return None
        module = importlib.import_module(f"edgeinfer.commands.{cmd_name}")
        command = module.command
        assert isinstance(command, click.Command)  # noqa: S101 (our own modules)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Commands and options that begin so; no module is imported for it either."""
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=_summary(name)) for name in names] + options

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview takes each command's line from its module's docstring, so that no module is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(name)) for name in self.list_commands(ctx)])


def _summary(name: str) -> str:
    source = (Path(commands.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    summary = docstring.partition(": ")[2].partition("\n")[0]
    return summary[:1].upper() + summary[1:]


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgeinfer")
def edgeinfer() -> None:
    """Cameras in, detections out over ZeroMQ."""


def main(args: list[str] | None = None) -> None:
    """Entry point: runs a command and exits with its code. Every error is one line on stderr."""
    args = sys.argv[1:] if args is None else args
    before = set(threading.enumerate())
    outlet = _streams.prepare()
    try:
        if args[:1] != ["run"]:
            early.release()
        code = run(_arguments.taken(args))
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except (BrokenPipeError, SystemExit) as error:  # click and rich exit where a reader of ours has gone
        if outlet is not None and outlet.gone:
            code = 0
        elif isinstance(error, SystemExit):
            raise
        else:  # another pipe
            code = _tell(error, args)
    except Exception as error:
        code = _tell(error, args)
    if outlet is not None:
        outlet.drops = True  # the interpreter flushes once more, and there is nobody left to tell
    _leave(code, set(threading.enumerate()) - before)


def _leave(code: int, at_work: set[threading.Thread]) -> NoReturn:
    """Ends the process, at once while threads are at work that nothing waits for any more, in a decoder for instance.

    The interpreter's own end would unwind their stacks where they next ask for it, and C++ that is not made for that
    calls abort.
    """
    if not at_work:
        sys.exit(code)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _tell(error: Exception, args: list[str]) -> int:
    if "--verbose" in args:
        echo_lines("\n".join(indented(error)), err=True)
    known = error if isinstance(error, EdgeinferError) else unexpected("unexpected ", error, "--verbose shows where")
    echo(f"edgeinfer: error: {known}", err=True)
    return known.exit_code


def run(args: list[str]) -> int:
    """Runs one command and returns its exit code. Raises EdgeinferError."""
    if wish := os.environ.get(_shells.VARIABLE):
        _shells.answer(edgeinfer, wish)
        return 0
    try:
        result: Any = edgeinfer.main(args, prog_name="edgeinfer", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return UsageError.exit_code
    except click.ClickException as error:
        raise UsageError(error.format_message().rstrip("."), _usage_hint(error)) from error
    except click.Abort:
        return 130
    return result if isinstance(result, int) else 0


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see {context.command_path} --help" if context else "see edgeinfer --help"
