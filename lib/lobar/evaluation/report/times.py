"""Where the time of a workflow went, and what it cost: a table of its tasks."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lobar.workflow.status import Node, attempts

COLUMNS = ("task", "retries", "took", "waited", "ran", "cost")
Row = dict[str, str]  # by column; cells may be missing


@dataclass(frozen=True, slots=True)
class Prices:
    """What one hour of a requested CPU and of a requested GPU costs, in any currency; 0: not known."""

    cpu_hour: float
    gpu_hour: float

    def cost(self, nodes: Iterable[Node]) -> float:
        """Of pods. Of the resources that our templates request, only a GPU's name has a domain."""
        total = 0.0
        for node in nodes:
            for name, seconds in node.resources_duration.items():
                price = self.cpu_hour if name == "cpu" else self.gpu_hour if "/" in name else 0
                total += seconds / 3600 * price
        return total


@dataclass(frozen=True, slots=True)
class Pod:
    """One attempt of a task; `started` is when its containers started, None if they did not."""

    node: Node
    created: datetime
    started: datetime | None
    ended: datetime

    def waited(self) -> timedelta:
        return max((self.started or self.ended) - self.created, timedelta())  # not by the same clock

    def ran(self) -> timedelta:
        return max(self.ended - (self.started or self.ended), timedelta())


def table(nodes: Mapping[str, Node], starts: Mapping[str, datetime] | None, prices: Prices) -> Iterator[str]:
    """The lines of the table. `starts` of the containers by node id; None: not known.

    The shards of a task share a line: it waited and ran as long as the shard for which that took longest.
    """
    tasks: dict[str, list[list[Pod]]] = defaultdict(list)
    for node in nodes.values():
        if pods := [_pod(nodes[key], (starts or {}).get(key)) for key in attempts(nodes, node)]:
            tasks[node.task].append(pods)
    if not tasks:
        return
    rows = [
        _row(f"{name} ({len(shards)})".removesuffix(" (1)"), shards, prices) for name, shards in tasks.items()
    ]
    if starts is not None:
        for row, shards in zip(rows, tasks.values(), strict=True):
            row |= {"waited": _longest(shards, Pod.waited), "ran": _longest(shards, Pod.ran)}
    rows.append(_row("total", [shard for shards in tasks.values() for shard in shards], prices))
    yield from _aligned(rows)
    pods = [pod for shards in tasks.values() for shard in shards for pod in shard]
    lost = [pod for pod in pods if (pod.started or starts is None) and not pod.node.resources_duration]
    if lost and "cost" in rows[0]:
        yield f"cost: without the pods whose end Kubernetes did not report: {len(lost)}"


def _pod(node: Node, started: datetime | None) -> Pod:
    now = datetime.now(UTC)  # if the controller has not written the end of the last pod yet
    return Pod(node, node.started_at or now, started, node.finished_at or now)


def _row(name: str, shards: list[list[Pod]], prices: Prices) -> Row:
    """What can be said of one shard and of several alike."""
    pods = [pod for shard in shards for pod in shard]
    took = max(pod.ended for pod in pods) - min(pod.created for pod in pods)
    row = {"task": name, "retries": str(len(pods) - len(shards)), "took": _duration(took)}
    if prices.cpu_hour or prices.gpu_hour:
        row["cost"] = f"{prices.cost(pod.node for pod in pods):.2f}"
    return row


def _longest(shards: list[list[Pod]], time: Callable[[Pod], timedelta]) -> str:
    """Of the slowest shard; "?" if a pod ran of which no start is known, as of those before `argo retry`."""
    pods = [pod for shard in shards for pod in shard]
    if any(pod.started is None and any(pod.node.resources_duration.values()) for pod in pods):
        return "?"
    return _duration(max(sum(map(time, shard), timedelta()) for shard in shards))


def _duration(time: timedelta) -> str:
    """As hours:minutes:seconds."""
    return str(timedelta(seconds=round(time.total_seconds())))


def _aligned(rows: list[Row]) -> Iterator[str]:
    columns = [[name, *(row.get(name, "") for row in rows)] for name in COLUMNS if name in rows[0]]
    widths = [max(len(cell) for cell in column) for column in columns]
    for first, *others in zip(*columns, strict=True):
        cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        yield "  ".join(cells).rstrip()
