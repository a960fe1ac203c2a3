import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobar.core.boxes import Box
from lobar.core.errors import InputError
from lobar.data.labels import read_groups, read_labels

HEADER = "patientId,x,y,width,height,Target\n"


def read(rows: str) -> tuple[dict[str, list[Box]], list[str]]:
    truth, rejected = read_labels((HEADER + rows).encode(), "labels.csv")
    return truth, [str(rejection) for rejection in rejected]


def test_rows_of_one_patient_are_its_boxes() -> None:
    truth, rejected = read("a,264.0,152.0,213.0,379.0,1\na,562.0,152.0,256.0,453.0,1\nb,,,,,0\n")
    assert truth == {"a": [Box(264, 152, 213, 379), Box(562, 152, 256, 453)], "b": []}
    assert not rejected


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,one,2,3,4,1", "a (labels.csv row 3): text where a number belongs: 'one' '2' '3' '4'"),
        ("a,nan,2,3,4,1", "a (labels.csv row 3): text where a number belongs: 'nan' '2' '3' '4'"),
        ("a,inf,2,3,4,1", "a (labels.csv row 3): text where a number belongs: 'inf' '2' '3' '4'"),
        ("a,1,2,0,4,1", "a (labels.csv row 3): a box without area: 0 x 4"),
        ("a,1,2,3,-4,1", "a (labels.csv row 3): a box without area: 3 x -4"),
        ("a,-1,2,3,4,1", "a (labels.csv row 3): a box outside the image: x -1, y 2"),
        ("a,,,,,1", "a (labels.csv row 3): Target 1 without a whole box: '' '' '' ''"),
        ("a,1,2,,4,1", "a (labels.csv row 3): Target 1 without a whole box: '1' '2' '' '4'"),
        ("a,1,2,3,4,0", "a (labels.csv row 3): Target 0 with a box: 1 2 3 4"),
        ("a,1,2,3,4,yes", "a (labels.csv row 3): Target is neither 0 nor 1: 'yes'"),
        ("a,,,,,0", "a (labels.csv row 3): rows of both Targets"),
    ],
)
def test_a_bad_row_rejects_its_whole_patient_by_row_and_reason(row: str, said: str) -> None:
    truth, rejected = read(f"a,1,2,3,4,1\n{row}\nb,5,6,7,8,1\n")
    assert rejected == [said]
    assert truth == {"b": [Box(5, 6, 7, 8)]}


def test_other_column_order_extra_columns_encodings_crlf_and_gzip() -> None:
    table = 'Target,note,patientId,height,width,y,x\r\n1,"a, b",p,4.0,3.0,2.0,1.0\r\n'
    encoded = [(table.encode(each), "t.csv") for each in ("utf-8", "utf-8-sig", "utf-16")]
    encoded += [("\ufeff".encode(each) + table.encode(each), "t.csv") for each in ("utf-16-le", "utf-16-be")]
    for data, name in [*encoded, *((gzip.compress(data), f"{name}.gz") for data, name in encoded)]:
        assert read_labels(data, name) == ({"p": [Box(1, 2, 3, 4)]}, [])


def test_repeated_rows_are_one_box_or_one_negative() -> None:
    truth, rejected = read("a,1,2,3,4,1\na,1.0,2.0,3.0,4.0,1\nb,,,,,0\nb,,,,,0\n")
    assert truth == {"a": [Box(1, 2, 3, 4)], "b": []}
    assert not rejected


def test_ids_that_a_spreadsheet_would_compute_are_texts() -> None:
    truth, rejected = read("=1+1,,,,,0\n@SUM(A1),,,,,0\n-5,,,,,0\n+5,,,,,0\n1e5,,,,,0\n007,,,,,0\n")
    assert [*truth] == ["=1+1", "@SUM(A1)", "-5", "+5", "1e5", "007"]
    assert not rejected


def test_a_missing_column_is_named_beside_those_found() -> None:
    with pytest.raises(
        InputError, match=r"t\.csv: no column height, Target; it has patientId, x, y, width, it needs"
    ):
        read_labels(b"patientId,x,y,width\n", "t.csv")


def test_a_table_that_is_no_text_is_named() -> None:
    for data in (
        b"\xff\xfe\x00",
        b"\x89PNG\r\n",
        HEADER.encode("utf-16-le"),
        HEADER.encode() + b"\xe9,,,,,0\n",
    ):
        with pytest.raises(
            InputError, match=r"t\.csv: (not a table in UTF-8, or UTF-16 with its mark|no column)"
        ):
            read_labels(data, "t.csv")


@pytest.mark.parametrize("rows", ['a,1,2,3,4,1\n"a,5,6,7,8,1\nb,,,,,0\n', 'a,1,2,3,4,1\n"b" c,,,,,0\n'])
def test_a_stray_quote_is_an_error_that_names_the_row(rows: str) -> None:
    with pytest.raises(InputError, match=r"labels\.csv row 3: not CSV .*; look for a stray quote"):
        read(rows)


def test_a_damaged_gzip_is_named() -> None:
    whole = bytearray(gzip.compress(HEADER.encode() * 50))
    whole[20] ^= 255
    with pytest.raises(InputError, match=r"t\.csv\.gz: not a table"):
        read_labels(bytes(whole), "t.csv.gz")


def test_an_empty_group_is_no_group() -> None:
    assert read_groups(b"patientId,group\na,1\nb,\nc,\n", "g.csv") == {"a": "1"}


def test_a_patient_in_two_groups_is_an_error() -> None:
    assert read_groups(b"patientId,group\na,1\nb,1\na,1\n", "g.csv") == {"a": "1", "b": "1"}
    with pytest.raises(InputError, match=r"g\.csv row 3: a is in group 1 and in 2; keep one"):
        read_groups(b"patientId,group\na,1\na,2\n", "g.csv")


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1)
        .map(str.strip)
        .filter(bool),
        st.lists(
            st.builds(Box, *[st.integers(0, 900)] * 2, *[st.integers(1, 900)] * 2), max_size=3, unique=True
        ),
        max_size=5,
    )
)
def test_any_table_of_good_rows_reads_back(truth: dict[str, list[Box]]) -> None:
    rows = []
    for patient, boxes in truth.items():
        quoted = '"' + patient.replace('"', '""') + '"'
        rows += [f"{quoted},{b.x}.0,{b.y}.0,{b.width}.0,{b.height}.0,1\n" for b in boxes] or [
            f"{quoted},,,,,0\n"
        ]
    assert read_labels((HEADER + "".join(rows)).encode(), "t.csv") == (truth, [])
