import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobar.core.boxes import Box
from lobar.core.errors import InputError
from lobar.data.labels import CHUNK_ROWS, Labels, read_groups, read_labels

HEADER = "patientId,x,y,width,height,Target\n"
SIDES = ("x", "y", "width", "height")


def read(rows: str) -> tuple[Labels, list[str]]:
    labels = read_labels((HEADER + rows).encode(), "labels.csv")
    return labels, [str(rejection) for rejection in labels.rejected]


def test_rows_of_one_patient_are_its_boxes() -> None:
    labels, rejected = read("a,264.0,152.0,213.0,379.0,1\na,562.0,152.0,256.0,453.0,1\nb,,,,,0\n")
    assert labels == {"a": (Box(264, 152, 213, 379), Box(562, 152, 256, 453)), "b": ()}
    assert not rejected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,one,2,3,4,1", "a (labels.csv row 3): text where a number is expected: 'one' '2' '3' '4'"),
        ("a,nan,2,3,4,1", "a (labels.csv row 3): text where a number is expected: 'nan' '2' '3' '4'"),
        ("a,inf,2,3,4,1", "a (labels.csv row 3): text where a number is expected: 'inf' '2' '3' '4'"),
        ("a,1,2,0,4,1", "a (labels.csv row 3): a box without area: 0 x 4"),
        ("a,1,2,3,-4,1", "a (labels.csv row 3): a box without area: 3 x -4"),
        ("a,-1,2,3,4,1", "a (labels.csv row 3): a box outside the image: x -1, y 2"),
        ("a,,,,,1", "a (labels.csv row 3): Target 1 without a complete box: '' '' '' ''"),
        ("a,1,2,,4,1", "a (labels.csv row 3): Target 1 without a complete box: '1' '2' '' '4'"),
        ("a,1,2,3,4,0", "a (labels.csv row 3): Target 0 with a box: 1 2 3 4"),
        ("a,1,2,3,4,yes", "a (labels.csv row 3): Target is neither 0 nor 1: 'yes'"),
        ("a,,,,,0", "a (labels.csv row 3): rows with both Targets"),
    ],
)
def test_a_bad_row_rejects_its_whole_patient_by_row_and_reason(row: str, message: str) -> None:
    labels, rejected = read(f"a,1,2,3,4,1\n{row}\nb,5,6,7,8,1\n")
    assert rejected == [message]
    assert labels == {"b": (Box(5, 6, 7, 8),)}


def test_other_column_order_extra_columns_encodings_crlf_and_gzip() -> None:
    table = 'Target,note,patientId,height,width,y,x\r\n1,"a, b",p,4.0,3.0,2.0,1.0\r\n'
    encoded = [(table.encode(encoding), "t.csv") for encoding in ("utf-8", "utf-8-sig", "utf-16")]
    encoded += [
        ("\ufeff".encode(encoding) + table.encode(encoding), "t.csv")
        for encoding in ("utf-16-le", "utf-16-be")
    ]
    for data, name in [*encoded, *((gzip.compress(data), f"{name}.gz") for data, name in encoded)]:
        labels = read_labels(data, name)
        assert labels == {"p": (Box(1, 2, 3, 4),)}
        assert not labels.rejected


def test_repeated_rows_are_one_box_or_one_negative() -> None:
    labels, rejected = read("a,1,2,3,4,1\na,1.0,2.0,3.0,4.0,1\nb,,,,,0\nb,,,,,0\n")
    assert labels == {"a": (Box(1, 2, 3, 4),), "b": ()}
    assert not rejected


def test_ids_that_a_spreadsheet_would_compute_are_texts() -> None:
    labels, rejected = read("=1+1,,,,,0\n@SUM(A1),,,,,0\n-5,,,,,0\n+5,,,,,0\n1e5,,,,,0\n007,,,,,0\n")
    assert [*labels] == ["=1+1", "@SUM(A1)", "-5", "+5", "1e5", "007"]
    assert not rejected


def test_a_missing_column_is_named_with_those_present() -> None:
    with pytest.raises(
        InputError, match=r"t\.csv: no column height, Target; it has patientId, x, y, width, it needs"
    ):
        read_labels(b"patientId,x,y,width\n", "t.csv")


def test_a_table_that_is_not_text_is_named() -> None:
    for data in (
        b"\xff\xfe\x00",
        b"\x89PNG\r\n",
        HEADER.encode("utf-16-le"),
        HEADER.encode() + b"\xe9,,,,,0\n",
    ):
        with pytest.raises(
            InputError, match=r"t\.csv: (not a table in UTF-8, or UTF-16 with a BOM|no column)"
        ):
            read_labels(data, "t.csv")


@pytest.mark.parametrize("rows", ['a,1,2,3,4,1\n"a,5,6,7,8,1\nb,,,,,0\n', 'a,1,2,3,4,1\n"b" c,,,,,0\n'])
def test_a_stray_quote_is_an_error_that_names_the_row(rows: str) -> None:
    with pytest.raises(InputError, match=r"labels\.csv row 3: not CSV .*; look for a stray quote"):
        read(rows)


def test_a_stray_quote_far_down_a_large_table_is_an_error_that_names_the_row() -> None:
    rows = [f"p{number},,,,,0\n" for number in range(CHUNK_ROWS + 1000)]
    labels, _ = read("".join(rows))
    assert len(labels) == len(rows)
    rows[CHUNK_ROWS + 500] = '"p,1,2,3,4,1\n'
    with pytest.raises(
        InputError, match=rf"labels\.csv row {CHUNK_ROWS + 502}: not CSV .*; look for a stray"
    ):
        read("".join(rows))


def test_row_numbers_count_lines_across_blank_lines_and_line_breaks_in_fields() -> None:
    _, rejected = read('\n"a\nb",,,,,0\n\nc,,,,,2\n')
    assert rejected == ["c (labels.csv row 6): Target is neither 0 nor 1: '2'"]
    for rows in ('"a" b,,,,,0\n', '\n"a" b,,,,,0\n'):
        with pytest.raises(InputError, match=rf"labels\.csv row {2 + rows.count(chr(10)) - 1}: not CSV"):
            read(rows)


def test_a_table_without_rows_has_no_patients() -> None:
    for table in (HEADER, HEADER.strip(), HEADER + "\n"):
        assert read_labels(table.encode(), "t.csv") == {}
        assert read_groups(b"patientId,group" + table[len(HEADER) - 1 :].encode(), "g.csv") == {}
    with pytest.raises(InputError, match=r"t\.csv: no column patientId, .*; it has none"):
        read_labels(b"", "t.csv")


def test_a_damaged_gzip_is_named() -> None:
    whole = bytearray(gzip.compress(HEADER.encode() * 50))
    whole[20] ^= 255
    with pytest.raises(InputError, match=r"t\.csv\.gz: not a table"):
        read_labels(bytes(whole), "t.csv.gz")


def test_a_patient_with_an_empty_group_has_no_group() -> None:
    assert read_groups(b"patientId,group\na,1\nb,\nc,\n", "g.csv") == {"a": "1"}


def test_a_patient_in_two_groups_is_an_error() -> None:
    assert read_groups(b"patientId,group\na,1\nb,1\na,1\n", "g.csv") == {"a": "1", "b": "1"}
    with pytest.raises(InputError, match=r"g\.csv row 3: a is in group 1 and in 2; keep one"):
        read_groups(b"patientId,group\na,1\na,2\n", "g.csv")


@settings(deadline=None)
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
    labels = read_labels((HEADER + "".join(rows)).encode(), "t.csv")
    assert list(labels.items()) == [(patient, tuple(boxes)) for patient, boxes in truth.items()]
    assert not labels.rejected


@pytest.mark.parametrize(
    "empty", ["NaN", "nan", "NULL", "null", "None", "NA", "<NA>", "#N/A", "N/A", r"\N", "0", "0.0"]
)
def test_fields_that_other_programs_write_for_empty_are_a_negatives(empty: str) -> None:
    fields = f",{empty}" * 4
    assert read(f"a{fields},0\nb,1,2,3,4,1\n")[0] == {"a": (), "b": (Box(1, 2, 3, 4),)}
    labels, rejected = read(f"a{fields},1\nb,1,{empty},0,4,1\nc,1,{empty},3,4,0\n")
    assert not labels
    assert len(rejected) == 3


@pytest.mark.parametrize(
    ("target", "value"),
    [("1.0", 1), ("1.00", 1), (" 1 ", 1), ('"1,0"', 1), ("0.0", 0), ("0.00", 0), ('"0,0"', 0)]
    + [(text, None) for text in ("true", "TRUE", "True", "yes", "0.5", "1.5", "2", "-1", "nan", "")],
)
def test_a_target_is_a_number_equal_to_0_or_1(target: str, value: int | None) -> None:
    labels, rejected = read(f"a,1,2,3,4,{target}\nb,,,,,{target}\n")
    assert [*labels] == {1: ["a"], 0: ["b"], None: []}[value]
    if value is None:
        assert any("Target is neither 0 nor 1" in reason for reason in rejected)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_and_decimal_commas_of_spreadsheets_are_read(separator: str) -> None:
    table = "patientId,note,x,y,width,height,Target\na,1 - 2,264|0,152|25,213,379|0,1|0\nb,,,,,,0\n"
    table = table.replace(",", separator).replace("|", ",")
    assert read_labels(table.encode(), "t.csv") == {"a": (Box(264, 152, 213, 379),), "b": ()}
    # 1.024 or 1024
    labels = read_labels(table.replace("264,0", "1,024").encode(), "t.csv")
    assert [str(rejection) for rejection in labels.rejected] == [
        "a (t.csv row 2): text where a number is expected: '1,024' '152,25' '213' '379,0'"
    ]
    groups = f"patientId{separator}group\na{separator}1\n"
    assert read_groups(groups.encode(), "g.csv") == {"a": "1"}


@pytest.mark.parametrize(
    "header",
    [
        " patientId, x, y , width,height ,Target ",
        "\ufeff\ufeffpatientId,x,y,width,height,Target",
        '"patientId", "x", y ,width,height,Target',
        "PatientID,X,Y,Width,Height,target",
        "patientId,x,y,width,height,Target,target,TARGET",
    ],
)
def test_column_names_are_read_without_spaces_and_in_any_case(header: str) -> None:
    assert read_labels(f"{header}\na,1,2,3,4,1,0,0\n".encode(), "t.csv") == {"a": (Box(1, 2, 3, 4),)}


def test_a_column_that_two_names_may_mean_is_an_error() -> None:
    with pytest.raises(InputError, match=r"no column Target; it has .*, TARGET, target, it needs"):
        read_labels(b"patientId,x,y,width,height,TARGET,target\n", "t.csv")


def test_ids_with_the_suffix_of_a_file_are_those_of_the_images() -> None:
    labels, rejected = read(
        "a.dcm,1,2,3,4,1\na,5,6,7,8,1\nB.DCM,,,,,0\n1.2.3.dicom ,,,,,0\nd.dcm.dcm,,,,,0\n"
    )
    assert labels == {"a": (Box(1, 2, 3, 4), Box(5, 6, 7, 8)), "B": (), "1.2.3": (), "d": ()}
    assert not rejected
    assert read_groups(b"patientId,group\na.dcm,1.dcm\na,1.dcm\n", "g.csv") == {"a": "1.dcm"}


def test_rows_without_any_content_are_skipped_and_keep_the_numbers_of_the_others() -> None:
    for rows in ("a,,,,,0\n,,,,,\n , ,,,,\nb,,,,,2\n", '"a",,,,,0\n,,,,,\n , ,,,,\nb,,,,,2\n'):
        labels, rejected = read(rows)
        assert [*labels] == ["a"]
        assert rejected == ["b (labels.csv row 5): Target is neither 0 nor 1: '2'"]


def test_a_group_that_other_programs_write_for_empty_is_no_group() -> None:
    assert read_groups(b"patientId,group\na,1\nb,NaN\nc,NULL\nd,NA\n", "g.csv") == {"a": "1"}
