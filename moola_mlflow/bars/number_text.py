"""Read numbers that a vendor wrote as text: 1.2K, 1,200, 1.234,50, or a dash for nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

EMPTY = frozenset(("", "-", "--", "---", "nan", "none", "null", "n/a", "na", "#n/a", "<na>"))
SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "bn": 1e9, "t": 1e12}
THOUSANDS = r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?"
DECIMAL = r"[+-]?\d*(?:\.\d{3})*,\d+"
SURE_THOUSANDS = r"[+-]?\d{1,3}(?:,\d{3}){2,}(?:\.\d*)?|[+-]?\d{1,3}(?:,\d{3})+\.\d*"
SURE_DECIMAL = r"[+-]?\d+,(?:\d{1,2}|\d{4,})|[+-]?\d{1,3}(?:\.\d{3})+,\d+"


def numbers_of(
    column: pa.ChunkedArray, small: bool = True, decimal_comma: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of a column, NaN for a cell that is none, and which cells are empty.

    ``small`` says whether 1,234 may be a little more than 1, as a price may be. A volume is then 1234, and a price is
    read only if another cell of its column tells what the comma means. In a file with ``decimal_comma`` 1.234 is 1234.

    Shapes: float64 [N], bool [N].
    """
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        values = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)
        return values, np.isnan(values)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return np.full(len(column), np.nan), np.zeros(len(column), bool)
    cells = column.to_pandas()
    if decimal_comma:
        cells = cells.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    values = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    odd = np.flatnonzero(np.isnan(values))
    empty = np.zeros(len(values), bool)
    if len(odd):
        text = cells.iloc[odd].fillna("").astype(str).str.strip()
        empty[odd] = text.str.lower().isin(EMPTY).to_numpy(bool)
        values = values.copy()
        values[odd] = _from_text(text, small)
    return values, empty


def _from_text(text: pd.Series, small: bool) -> np.ndarray:
    """Return the numbers of cells that are no plain numbers. Shapes: float64 [N]."""
    parts = text.str.replace("[\\s'\u00a0\u202f_]", "", regex=True).str.extract(r"^(.*?\d\.?)([A-Za-z]{0,2})$")
    body, factor = parts[0].fillna(""), parts[1].fillna("").str.lower().map({"": 1.0, **SUFFIXES})
    decimal = body.str.fullmatch(SURE_DECIMAL).to_numpy(bool)
    sure = body.str.fullmatch(SURE_THOUSANDS).to_numpy(bool)
    if decimal.any() and not sure.any():
        fits = body.str.fullmatch(DECIMAL + r"|[+-]?\d+").to_numpy(bool)
        plain = body.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    else:
        fits = body.str.fullmatch(THOUSANDS).to_numpy(bool) if sure.any() or not small else np.zeros(len(body), bool)
        fits = fits | (factor.to_numpy() > 1) & body.str.fullmatch(r"[+-]?\d+(\.\d*)?").to_numpy(bool)
        fits = fits | (text != body).to_numpy(bool) & body.str.fullmatch(r"[+-]?\d+(\.\d*)?").to_numpy(bool)
        plain = body.str.replace(",", "", regex=False)
    numbers = pd.to_numeric(plain.where(fits), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return numbers * factor.fillna(np.nan).to_numpy(np.float64)
