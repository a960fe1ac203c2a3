"""The command line of every container: `python -m jobs JOB OPTIONS`."""

import importlib
import sys

import typer

from lobar.core import console, runtime

JOBS = {
    "demo-data": "create a synthetic dataset in RSNA's format",
    "label-index": "map images to boxes, groups and a split",
    "train": "fit a segmentation network on a dataset",
    "evaluate": "score a model, tune its operating point, release it",
    "plan": "list the images to predict and cut them into shards",
    "predict": "find boxes on the images of one shard",
    "merge-submission": "join the shards of a plan into one submission",
    "promote": "compare a model with the champion, and record who is champion",
    "explain": "trace a row of a submission back to image, model and data; compute it again",
    "summary": "report on one page how a workflow ended and what it stored",
}


def command(name: str) -> typer.Typer:
    """The command line of one job; its module alone is imported, so that `--help` answers at once."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, help=JOBS[name])(importlib.import_module("jobs." + name.replace("-", "_")).main)
    return app


def main(arguments: list[str]) -> int:
    """Run the job named by the first argument and return its exit status."""
    if arguments and arguments[0] in JOBS:
        runtime.prepare()
        app = command(arguments[0])
        return console.run_job(app, f"python -m jobs {arguments[0]}", arguments[1:])
    help_requested = not arguments or arguments[0] in ("-h", "--help")
    lines = ["usage: python -m jobs JOB [OPTIONS]; --help after a job lists its options", ""]
    lines += [f"  {name:18}{what}" for name, what in JOBS.items()]
    if not help_requested:
        lines += ["", f"error: there is no job {arguments[0]!r}; choose one of {', '.join(JOBS)}"]
    print("\n".join(lines), file=sys.stdout if help_requested else sys.stderr)
    return 0 if help_requested else 2


if __name__ == "__main__":
    console.exit_on_signal()
    console.exit_process(main(sys.argv[1:]))
