"""The command line of every container: `python -m jobs JOB OPTIONS`."""

import importlib
import sys

import typer

from lobar.core import console, runtime

JOBS = {
    "demo-data": "generate synthetic images, labels and groups in RSNA's format",
    "label-index": "join label table, images and groups into an index with a split",
    "train": "train a segmentation network on a dataset",
    "evaluate": "score a model, tune its operating point, write report and card, release it",
    "plan": "list the new images and divide them into shards",
    "predict": "predict the boxes of one shard",
    "merge-submission": "merge all shards into one submission CSV",
    "export": "write a shard of a merged prediction as DICOM structured reports",
    "promote": "compare a model with the champion, and record which one is champion",
    "explain": "trace a row of a submission to its image, model and data, or compute it again",
    "summary": "write a one-page summary of a finished workflow",
}


def command(name: str) -> typer.Typer:
    """The command line of one job; only its module is imported, so that `--help` is fast."""
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
    lines = [
        "Usage: python -m jobs JOB [OPTIONS]",
        "",
        "python -m jobs JOB --help lists the options of a job.",
        "",
    ]
    lines += [f"  {name:18}{what}" for name, what in JOBS.items()]
    if not help_requested:
        lines += ["", f"error: there is no job {arguments[0]!r}; choose one of {', '.join(JOBS)}"]
    print("\n".join(lines), file=sys.stdout if help_requested else sys.stderr)
    return 0 if help_requested else 2


if __name__ == "__main__":
    console.exit_on_signal()
    console.exit_process(main(sys.argv[1:]))
