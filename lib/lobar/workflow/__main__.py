"""python -m lobar.workflow WORKFLOW.yaml [-p NAME=VALUE …] [--parallel N] [--dry-run]"""

import sys

import typer

from lobar.core import console
from lobar.workflow.runner import main

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(main)
console.raise_on_signal()
sys.exit(console.run_job(app, "python -m lobar.workflow"))
