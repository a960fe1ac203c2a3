"""What failed in a workflow and why, what to do about it, and what was retried."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from lobar.workflow.status import Node, attempts

ADVICE = (
    ("wait: Error", "Argo could not store the outputs or the log: check the ConfigMap artifact-repositories"),
    ("(exit code 2)", "the input is wrong: fix what the message names, then submit again"),
    ("(exit code 75)", "external failure: submit again with the same dataset, model and prediction"),
    ("(exit code 1)", "an internal error: the log has the details"),
    ("OOMKilled", "out of memory: raise the template's memory limit"),
    ("workflow deadline", "if the pod never started: check that its node pool and the container image exist"),
)
LENGTH = 300
EXAMPLES = 3


def failures(nodes: Mapping[str, Node]) -> Iterator[str]:
    """Each reason why tasks failed, those tasks, and what to do. Of a task, the last attempt counts."""
    retried = {key for node in nodes.values() for key in attempts(nodes, node)}
    failed: dict[str, list[str]] = defaultdict(list)
    for key, node in nodes.items():
        if node.phase in ("Failed", "Error") and key not in retried:
            last = nodes[[key, *attempts(nodes, node)][-1]]
            failed[last.message or node.message].append(node.display_name)
    failed.pop("", None)  # nodes that failed because others did
    for message, tasks in failed.items():
        more = f" and {len(tasks) - EXAMPLES} more" if len(tasks) > EXAMPLES else ""
        yield f"{', '.join(tasks[:EXAMPLES])}{more}: {_reason(message)}"
        yield from [f"  -> {advice}" for mark, advice in ADVICE if mark in message][:1]


def retries(nodes: Mapping[str, Node]) -> Iterator[str]:
    """The most frequent reasons of retries, each with its task."""
    reasons = Counter(
        f"{node.task}: {_reason(nodes[key].message)}"
        for node in nodes.values()
        for key in attempts(nodes, node)[:-1]
    )
    for reason, count in reasons.most_common(EXAMPLES):
        yield f"retried {count} times: {reason}" if count > 1 else f"retried once: {reason}"
    if len(reasons) > EXAMPLES:
        yield f"retried for {len(reasons) - EXAMPLES} other reasons as well"


def one_line(text: object) -> str:
    """Text as one line of limited length."""
    line = " ".join(str(text).split())
    return line if len(line) <= LENGTH else line[: LENGTH - 1] + "…"


def _reason(message: str) -> str:
    """A node's message from Argo: the exit code, and the last line of its container's message."""
    code, separator, text = message.partition("): ")
    return one_line(f"{code}{separator}{text.strip().rpartition(chr(10))[2]}")
