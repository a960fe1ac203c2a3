"""How a job ends: its exit status, its last line, and the termination message."""

from pathlib import Path

import pytest
import typer

from lobar.core import console
from lobar.core.errors import InputError, OutsideError

DEFECT = "internal error: ZeroDivisionError: division by zero"


def _job_that_raises(error: Exception | None) -> typer.Typer:
    app = typer.Typer(add_completion=False)

    @app.command()
    def main(number: int = 0) -> None:
        if error:
            raise error

    return app


@pytest.mark.parametrize(
    ("error", "arguments", "status", "message"),
    [
        (InputError("a.csv, row 3:\n no box"), [], 2, "a.csv, row 3: no box"),
        (InputError("too many", setting="max_rejected"), [], 2, "too many (option --max-rejected)"),
        (OutsideError("the store does not respond"), [], 75, "the store does not respond"),
        (ZeroDivisionError("division by zero"), [], 1, DEFECT),
        (None, ["--nonsense"], 2, "No such option: --nonsense (job --help lists the options)"),
    ],
)
def test_the_last_line_is_the_termination_message(
    error: Exception | None, arguments: list[str], status: int, message: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    termination_log = tmp_path / "termination-log"
    termination_log.touch()
    monkeypatch.setattr(console, "TERMINATION_MESSAGE", termination_log)
    assert console.run_job(_job_that_raises(error), "job", arguments) == status
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {message}"
    assert termination_log.read_text() == f"error: {message}"


def test_outside_a_pod_no_termination_message_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "TERMINATION_MESSAGE", tmp_path / "termination-log")
    assert console.run_job(_job_that_raises(InputError("wrong")), "job", []) == 2
    assert console.run_job(_job_that_raises(None), "job", []) == 0
    assert not list(tmp_path.iterdir())
