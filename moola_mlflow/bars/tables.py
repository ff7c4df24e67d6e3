"""Read whole tables that are neither parquet nor text: Arrow IPC files (also called Feather), and Excel workbooks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.ipc

from moola_mlflow.bars.size_limits import check_dictionaries, check_unpacked
from moola_mlflow.core import UserError

ARROW_MAGIC = b"ARROW1"
OLD_FEATHER = b"FEA1"


def read_arrow(path: Path) -> pa.Table:
    """Return the table of an Arrow IPC file or stream, read batch by batch and no larger than it may unpack to.

    Raises: UserError for a file of Feather's first version; pyarrow's own errors for a damaged file.
    """
    with path.open("rb") as f:
        magic = f.read(6)
    if magic.startswith(OLD_FEATHER):
        raise UserError(f"{path}: is Feather of version 1; write it again with pandas.DataFrame.to_feather")
    with pa.OSFile(str(path)) as source:
        is_file = magic == ARROW_MAGIC
        reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
        batches = (reader.get_batch(k) for k in range(reader.num_record_batches)) if is_file else iter(reader)
        kept, num_bytes = [], 0
        for batch in batches:
            batch.validate(full=True)
            num_bytes += batch.nbytes
            check_unpacked(path, num_bytes)
            kept.append(batch)
        table = pa.Table.from_batches(kept, reader.schema)
    check_dictionaries(table)
    return table


def read_excel(path: Path) -> pa.Table:
    """Return the first sheet of a workbook.

    Raises: UserError if the package that reads workbooks is not installed, or if the file is none.
    """
    try:
        frame = pd.read_excel(path)
    except ImportError:
        raise UserError(
            f"{path}: workbooks need the package openpyxl: pip install -e '.[excel]'; or save the sheet as CSV"
        ) from None
    except Exception as e:  # openpyxl's errors have no common base: zipfile's, ElementTree's, KeyError
        first = " ".join(str(e).split())[:200]
        raise UserError(f"{path}: cannot be read as a workbook ({first}); save the sheet as CSV") from None
    arrays = {}
    for name in frame.columns:
        column = frame[name]
        try:
            arrays[str(name)] = pa.array(column)
        except (pa.ArrowException, TypeError, ValueError):  # cells of several kinds, such as times and a footer
            arrays[str(name)] = pa.array([None if pd.isna(cell) else str(cell) for cell in column], pa.string())
    return pa.table(arrays)
