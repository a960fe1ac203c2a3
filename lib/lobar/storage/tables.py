"""Tables as Parquet."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def encode(table: "pa.Table") -> bytes:
    """A table as Parquet; equal tables are equal bytes."""
    import pyarrow.parquet as pq

    body = io.BytesIO()
    pq.write_table(table, body, compression="zstd")
    return body.getvalue()


def decode(data: bytes) -> "pa.Table":
    """The table in a Parquet file."""
    import pyarrow.parquet as pq

    # pyarrow's reading threads sometimes outlive the interpreter, which then aborts at exit
    file = pq.ParquetFile(io.BytesIO(data), pre_buffer=False)
    return file.read(use_threads=False)
