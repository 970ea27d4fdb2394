"""What a shell is told when Tab is pressed: through click's classes, with a script of our own for bash.

bash takes `:` and `=` for ends of words, in `demo:` and `front=demo:` too; click's script would lose what stands before
them. And what ends in one of them, or in `/`, is not done: no space may follow.
"""

from __future__ import annotations

import contextlib
import os
from typing import TypeAlias

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)

from edgeinfer.errors import EdgeinferError, UsageError

PROGRAM = "edgeinfer"
VARIABLE = "_EDGEINFER_COMPLETE"
"""Environment variable in which a shell's script says what it wants, as click's scripts do."""
Items: TypeAlias = "list[CompletionItem[str]]"


class Bash(BashComplete):
    """See the module."""

    source_template = """\
%(complete_func)s() {
    local type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                COMPREPLY+=("$value")
                [[ $value == *[:/=] ]] && compopt -o nospace
                ;;
        esac
    done < <(COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_BREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def source(self) -> str:
        """The script; the shell's version is its own affair."""
        return self.source_template % self.source_vars()

    def get_completion_args(self) -> tuple[list[str], str]:
        """The whole words before the cursor, and the one that is being typed."""
        line = os.environ.get("COMP_WORDS", "")
        words = split_arg_string(line)
        incomplete = "" if line[-1:].isspace() or len(words) < 2 else words.pop()
        return words[1:], incomplete

    def get_completions(self, args: list[str], incomplete: str) -> Items:
        """Without what bash takes for words of their own."""
        breaks = [letter for letter in ":=" if letter in os.environ.get("COMP_BREAKS", ":=")]
        typed = incomplete[: max((incomplete.rfind(letter) for letter in breaks), default=-1) + 1]
        found = super().get_completions(args, incomplete)
        return [CompletionItem(item.value.removeprefix(typed), item.type, item.help) for item in found]


SHELLS: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": ZshComplete, "fish": FishComplete}


def script(shell: str) -> str:
    """What makes a shell ask us when Tab is pressed after `edgeinfer`."""
    return SHELLS[shell](click.Command(PROGRAM), {}, PROGRAM, VARIABLE).source()


def answer(cli: click.Command, wish: str) -> None:
    """Prints what a shell's script asks for: `bash_complete`, or `bash_source` for the script itself.

    Where what is on the line so far is wrong, nothing is offered. Raises UsageError for another wish.
    """
    shell, _, wanted = wish.partition("_")
    if shell not in SHELLS or wanted not in ("complete", "source"):
        raise UsageError(f"{VARIABLE}={wish} makes no sense", f"it is set by what `{PROGRAM} completion` prints")
    if wanted == "source":
        click.echo(script(shell).encode(), nl=False)
        return
    with contextlib.suppress(EdgeinferError, OSError, click.ClickException):
        click.echo(SHELLS[shell](cli, {}, PROGRAM, VARIABLE).complete().encode())
