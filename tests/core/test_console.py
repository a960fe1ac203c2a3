"""How a job ends: its status, its last line, and what Kubernetes is told."""

from pathlib import Path

import pytest
import typer

from lobar.core import console
from lobar.core.errors import InputError, OutsideError

DEFECT = "internal error: ZeroDivisionError: division by zero"


def _ends(raised: Exception | None) -> typer.Typer:
    app = typer.Typer(add_completion=False)

    @app.command()
    def main(number: int = 0) -> None:
        if raised:
            raise raised

    return app


@pytest.mark.parametrize(
    ("raised", "arguments", "status", "said"),
    [
        (InputError("a.csv, row 3:\n no box"), [], 2, "a.csv, row 3: no box"),
        (OutsideError("the store does not answer"), [], 75, "the store does not answer"),
        (ZeroDivisionError("division by zero"), [], 1, DEFECT),
        (None, ["--nonsense"], 2, "No such option: --nonsense (job --help lists the options)"),
    ],
)
def test_the_last_line_is_the_pods_message(
    raised: Exception | None, arguments: list[str], status: int, said: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    message = tmp_path / "termination-log"
    message.touch()
    monkeypatch.setattr(console, "TERMINATION_MESSAGE", message)
    assert console.run_job(_ends(raised), "job", arguments) == status
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {said}"
    assert message.read_text() == f"error: {said}"


def test_outside_a_pod_no_file_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "TERMINATION_MESSAGE", tmp_path / "termination-log")
    assert console.run_job(_ends(InputError("wrong")), "job", []) == 2
    assert console.run_job(_ends(None), "job", []) == 0
    assert not list(tmp_path.iterdir())
