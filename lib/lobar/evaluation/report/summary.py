"""One page about a workflow that has ended: what failed and why, where the time went, what it stored."""

import json
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta

from lobar.core.errors import AbsentError, LobarError
from lobar.core.request import request
from lobar.evaluation import registry
from lobar.evaluation.record import Evaluation, verdict
from lobar.evaluation.report.failures import failures, one_line, retries
from lobar.evaluation.report.times import Prices, table
from lobar.inference.record import Submission
from lobar.storage import records
from lobar.storage.layout import Model, Prediction, Registry
from lobar.workflow import status

log = logging.getLogger(__name__)


def ended(workflow: str, phase: str, seconds: float) -> str:
    """How a workflow ended, in one line."""
    return f"{workflow}: {phase} after {timedelta(seconds=round(seconds))}"


def notify(webhook: str, text: str) -> list[str]:
    """Post a message to the URL of a webhook, if there is one; a failure is reported, never raised."""
    if not webhook:
        log.info("no message sent: LOBAR_WEBHOOK_URL is empty (key url of the secret in -p webhook-secret)")
        return []
    try:
        request(webhook, {"Content-Type": "application/json"}, json.dumps({"text": text}).encode())
    except LobarError as error:
        return [f"no message sent to the webhook: {error}"]
    log.info("message sent to the webhook")
    return []


def tasks(workflow: str, prices: Prices) -> list[str]:
    """What failed, and where the time went; what the cluster does not say is reported, never raised."""
    starts, unread = None, []
    try:
        nodes = status.nodes(workflow)
    except LobarError as error:
        return [f"tasks: cannot be read: {one_line(error)}; argo get {workflow} shows them"]
    try:
        starts = status.container_starts(workflow)
    except LobarError as error:
        unread.append(f"waiting times: cannot be read: {one_line(error)}")
    lines = [*failures(nodes), *retries(nodes)]
    if times := [*table(nodes, starts, prices)]:
        lines += ["where the time went", *(f"  {line}" for line in (*times, *unread))]
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
        return [f"{name}: cannot be read: {one_line(error)}"]


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
