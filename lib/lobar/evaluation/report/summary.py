"""One page about a workflow that has ended: what failed and why, and what it stored."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta

from lobar.core.errors import AbsentError, LobarError
from lobar.evaluation import registry
from lobar.evaluation.record import Evaluation, verdict
from lobar.inference.record import Submission
from lobar.storage import records
from lobar.storage.layout import Model, Prediction, Registry

ADVICE = (
    ("(exit code 2)", "the input is wrong: fix what the message names, then submit again"),
    ("(exit code 75)", "external failure: submit again with the same dataset, model and prediction"),
    ("(exit code 1)", "an internal error: the log has the details"),
    ("OOMKilled", "out of memory: raise the template's memory limit"),
    ("timeout", "no node took the pod in time: check that the node pool and the container image exist"),
)
MESSAGE = 300


def ended(workflow: str, status: str, seconds: float, failures: str) -> list[str]:
    """How a workflow ended, and each node that failed with its message and what to do.

    `failures` is Argo's `workflow.failures`, a JSON list; anything else is shown unchanged.
    """
    lines = [f"{workflow}: {status} after {timedelta(seconds=round(seconds))}"]
    try:
        nodes = json.loads(failures or "[]")
        # Argo quotes the list once more
        nodes = (json.loads(nodes) if isinstance(nodes, str) else nodes) or []
        messages = {f"{node['displayName']}: {_reason(node['message'])}": node["message"] for node in nodes}
    except (ValueError, TypeError, KeyError):
        return [*lines, f"  failures: {_line(failures)}"]
    for line, message in messages.items():
        if not message or message.startswith("retryStrategy."):
            continue  # a node that failed because another did
        lines.append(f"  {line}")
        lines += [f"    -> {advice}" for mark, advice in ADVICE if mark in str(message)][:1]
    return lines


def stored(model: Model | None, prediction: Prediction | None, champions: Registry | None) -> list[str]:
    """What the workflow stored; a part that is missing or unreadable is reported, never raised."""
    parts: list[tuple[str, Callable[[], Iterator[str]]]] = []
    if model:
        parts.append((f"model {model.url}", lambda: _model(model)))
    if prediction:
        parts.append((f"submission {prediction.submission}", lambda: _submission(prediction)))
    if champions:
        parts.append((f"registry {champions.url}", lambda: _champion(champions)))
    return [line for name, part in parts for line in _lines(name, part)]


def _lines(name: str, part: Callable[[], Iterator[str]]) -> list[str]:
    try:
        return [name, *(f"  {line}" for line in part())]
    except AbsentError:
        return [f"{name}: not made"]
    except LobarError as error:
        return [f"{name}: cannot be read: {_line(error)}"]


def _model(model: Model) -> Iterator[str]:
    evaluation = records.read(model.evaluation, Evaluation)
    if evaluation.systems["tuned"].metric is not None:
        yield f"challenge metric {evaluation.systems['tuned']}"
    yield verdict(evaluation.systems)
    yield f"report: {model.report(evaluation.report)}"


def _submission(prediction: Prediction) -> Iterator[str]:
    submission = records.read(prediction.submission_record, Submission)
    yield (f"{submission.rows} rows, {submission.with_boxes} with boxes, {len(submission.rejected)} rejected")
    for rejection in submission.rejected[:3]:
        yield f"REJECTED {rejection.patient_id}: {rejection.reason}"


def _champion(place: Registry) -> Iterator[str]:
    decisions = registry.history(place)
    if not decisions:
        raise AbsentError(place.url)
    champion = decisions[-1].champion
    yield f"champion: {champion.model if champion else 'none yet'}"
    yield decisions[-1].reason


def _reason(message: str) -> str:
    """A node's message from Argo: the exit code, and the last line of its container's message."""
    code, separator, text = message.partition("): ")
    return _line(f"{code}{separator}{text.strip().rpartition(chr(10))[2]}")


def _line(text: object) -> str:
    """Text as one line of limited length."""
    line = " ".join(str(text).split())
    return line if len(line) <= MESSAGE else line[: MESSAGE - 1] + "…"
