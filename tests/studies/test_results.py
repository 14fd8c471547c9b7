"""Results as files that other programs read."""

from __future__ import annotations

import pytest

from trainscope.studies.results import write_parquet


def test_parquet_holds_what_the_rows_do(tmp_path):
    read_table = pytest.importorskip("pyarrow.parquet", reason="no pyarrow").read_table
    path = tmp_path / "rows.parquet"
    rows = [
        {"whole": 1, "empty": None, "text": "x", "mixed": 2, "truth": True},
        {"whole": 2.5, "empty": None, "text": "y", "mixed": "z", "truth": None},
    ]
    write_parquet(rows, path)
    assert read_table(path).to_pylist() == [row | {"mixed": str(row["mixed"])} for row in rows]
    write_parquet([], path)
    assert read_table(path).to_pylist() == []
