"""Tables fit their schema exactly, appear whole, and have the same bytes every time."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmie import tables

ROW = {"row": 0, "doc_id": "a:en", "position": 1, "token": 7}


def test_round_trip_and_same_bytes(tmp_path):
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    tables.write([ROW], one, tables.TOKENS, code="abc")
    tables.write([dict(reversed(ROW.items()))], two, tables.TOKENS, code="abc")
    assert one.read_bytes() == two.read_bytes()
    assert tables.read(one, tables.TOKENS).to_dict("records") == [ROW]
    assert pq.read_schema(one).metadata[b"mmie"] == b'{"code": "abc"}'


@pytest.mark.parametrize("categories", [False, True])
def test_no_rows_keep_the_columns(tmp_path, categories):
    tables.write([], tmp_path / "x.parquet", tables.TOKENS)
    frame = tables.read(tmp_path / "x.parquet", tables.TOKENS, categories)
    assert list(frame.columns) == tables.TOKENS.names and len(frame) == 0


def test_text_as_categories_says_the_same(tmp_path):
    rows = [{**ROW, "row": i, "doc_id": f"{i % 7}:en"} for i in range(100)]
    tables.write(rows, tmp_path / "x.parquet", tables.TOKENS)
    frame = tables.read(tmp_path / "x.parquet", tables.TOKENS, categories=True)
    assert frame["doc_id"].dtype == "category" and frame["token"].dtype == "int64"
    assert frame.to_dict("records") == rows


@pytest.mark.parametrize(
    "row, message",
    [
        ({k: v for k, v in ROW.items() if k != "token"}, "missing columns.*token"),
        ({**ROW, "colour": 1}, "unknown columns.*colour"),
        ({**ROW, "token": "seven"}, "table tokens"),
        ({**ROW, "doc_id": None}, "doc_id"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_and_writes_nothing(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        tables.write([row], tmp_path / "x.parquet", tables.TOKENS)
    assert list(tmp_path.iterdir()) == []


def test_an_old_artifact_survives_a_failed_write(tmp_path):
    path = tmp_path / "x.parquet"
    tables.write([ROW], path, tables.TOKENS)
    before = path.read_bytes()
    with pytest.raises(ValueError):
        tables.write([{**ROW, "token": "seven"}], path, tables.TOKENS)
    assert path.read_bytes() == before


@pytest.mark.parametrize("categories", [False, True])
def test_missing_and_truncated_files_name_the_remedy(tmp_path, categories):
    path = tmp_path / "x.parquet"
    with pytest.raises(ValueError, match=r"x\.parquet is missing.*snakemake"):
        tables.read(path, tables.TOKENS, categories)
    tables.write([ROW] * 100, path, tables.TOKENS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"x\.parquet cannot be read.*delete it"):
        tables.read(path, tables.TOKENS, categories)


@pytest.mark.parametrize("categories", [False, True])
def test_a_table_of_another_version_is_refused(tmp_path, categories):
    tables.write([ROW], tmp_path / "x.parquet", tables.TOKENS)
    with pytest.raises(ValueError, match="another version"):
        tables.read(tmp_path / "x.parquet", tables.LAYERS, categories)


def test_every_column_of_every_table_has_a_meaning():
    assert len(tables.SCHEMAS) >= 14
    for schema in tables.SCHEMAS.values():
        assert schema.metadata[b"path"].startswith(b"results/")
        for field in schema:
            assert len(field.metadata[b"meaning"]) > 3, field.name


def test_nan_counts_as_missing(tmp_path):
    row = {name: 0.5 for name in tables.LAYERS.names} | {"layer": 1, "rank": 1, "score": np.nan}
    with pytest.raises(ValueError, match="score"):
        tables.write([row], tmp_path / "x.parquet", tables.LAYERS)
