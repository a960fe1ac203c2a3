import pytest

from lobar.core.errors import InputError
from lobar.core.rejections import Rejection, check_share, counts

REJECTED = [
    Rejection("p1", "labels.csv row 3", "a box without area", "0 x 5"),
    Rejection("p2", "images/p2.dcm", "unreadable image"),
    Rejection("p3", "images/p3.dcm", "unreadable image"),
]


def test_reasons_are_counted_the_most_frequent_first() -> None:
    assert list(counts(REJECTED).items()) == [("unreadable image", 2), ("a box without area", 1)]


@pytest.mark.parametrize("total", [3, 30, 300])
def test_exactly_the_allowed_share_passes(total: int) -> None:
    check_share(REJECTED, total, 3 / total, "patients")
    with pytest.raises(InputError):
        check_share(REJECTED, total, 2.99 / total, "patients")


def test_the_error_has_counts_examples_and_the_setting() -> None:
    with pytest.raises(InputError) as error:
        check_share(REJECTED, 100, 0.01, "patients")
    assert str(error.value) == (
        "3 of 100 patients rejected (unreadable image 2, a box without area 1); the allowed share is 0.01; "
        "fix them or allow more. For example p1 (labels.csv row 3): a box without area: 0 x 5; "
        "p2 (images/p2.dcm): unreadable image; p3 (images/p3.dcm): unreadable image"
    )
    assert error.value.setting == "max_rejected"
