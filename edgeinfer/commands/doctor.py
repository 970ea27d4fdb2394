"""`edgeinfer doctor`: what this machine is, which backend will be used, what is wrong and how to mend it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from edgeinfer.commands._doctor_page import show
from edgeinfer.commands._terminal import echo, echo_json
from edgeinfer.environment import bundle, probe
from edgeinfer.environment.diagnosis import judge
from edgeinfer.environment.report import as_object
from edgeinfer.environment.rules import find_problems
from edgeinfer.errors import UnavailableError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--root", type=click.Path(path_type=Path), default=Path("/"), help="Look at a captured tree.")
@click.option("--bundle", "bundle_file", type=click.Path(path_type=Path), help="Write a report without secrets.")
@click.option("--verbose", is_flag=True, help="Show every source of every value.")
def command(as_json: bool, root: Path, bundle_file: Path | None, verbose: bool) -> int:
    """Show what this machine is, which backend will be used, what is wrong and how to mend it.

    Exits with 0 if a backend can run, else with 69.
    """
    env = probe(root)
    problems = find_problems(env)
    verdict = judge(env, problems)
    report = as_object(env, problems, verdict)
    if bundle_file:
        bundle.write(bundle.make(report, root, os.environ), bundle_file)
        echo(f"wrote {bundle_file}", err=True)
    if as_json:
        echo_json(json.dumps(report, indent=2))
    else:
        show(env, problems, verdict, verbose=verbose)
    return 0 if verdict.backend else UnavailableError.exit_code
