"""Parquet rows to MosaicML's shards: ROWS.parquet FOLDER."""

import sys

import pyarrow.parquet
from mosaicml import MDSWriter

source, folder = sys.argv[1:]
columns = {"id": "int", "text": "str", "label": "str", "score": "float64", "tags": "json"}
with MDSWriter(out=folder, columns=columns) as sink:
    for batch in pyarrow.parquet.ParquetFile(source).iter_batches():
        for row in batch.to_pylist():
            sink.write(row)
