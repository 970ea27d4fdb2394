"""`edgeinfer completion`: Tab completes commands, options and names in bash, zsh and fish."""

from __future__ import annotations

import click

from edgeinfer.commands._options import verbose
from edgeinfer.commands._shells import SHELLS, script
from edgeinfer.commands._terminal import echo_lines


@click.command("completion")
@click.argument("shell", type=click.Choice(list(SHELLS)))
@verbose
def command(shell: str) -> None:
    """Prints a script that makes SHELL complete edgeinfer's commands, options, models and sources.

    \b
    For one session:  source <(edgeinfer completion bash)
    For good, with bash-completion:
      edgeinfer completion bash > ~/.local/share/bash-completion/completions/edgeinfer
    For zsh, into a folder of its $fpath:
      edgeinfer completion zsh > ~/.zfunc/_edgeinfer
    For fish:
      edgeinfer completion fish > ~/.config/fish/completions/edgeinfer.fish
    """
    echo_lines(script(shell).rstrip("\n"))
