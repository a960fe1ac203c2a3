"""What was left out and why, and the one rule for how much may be left out."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lobar.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Rejection:
    """A patient (RSNA's patientId, an exam) that was left out: where it was found, why, what was there."""

    patient_id: str
    where: str
    reason: str
    found: str = ""

    def __str__(self) -> str:
        return f"{self.patient_id} ({self.where}): {self.reason}" + (f": {self.found}" if self.found else "")


def counts(rejected: Iterable[Rejection]) -> dict[str, int]:
    """How many were rejected for each reason, the most frequent reason first."""
    return dict(Counter(rejection.reason for rejection in rejected).most_common())


def check_share(
    rejected: Sequence[Rejection], total: int, allowed: float, what: str, setting: str = "max_rejected"
) -> None:
    """Raise InputError, with counts and examples, if more than the share `allowed` of `total` was rejected.

    `what` is the plural of what was counted: "patients", "images of shard 3"; `setting` sets the share.
    """
    if len(rejected) > allowed * total:
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts(rejected).items())
        more = " or allow more" if setting else ""
        examples = "; ".join(str(rejection) for rejection in rejected[:3])
        raise InputError(
            f"{len(rejected)} of {total} {what} rejected ({reasons}); the allowed share is {allowed:g}; "
            f"fix them{more}. For example {examples}",
            setting=setting,
        )
