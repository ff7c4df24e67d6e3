"""Ask a served detector what it finds in a table of bars. Needs pandas, and nothing of this project.

mlflow models serve -m models:/moola-detector@champion --env-manager local --port 5000
python examples/serve_client.py examples/bars.csv --url http://127.0.0.1:5000
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pandas as pd


def ask(url: str, payload: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the server's rows. Raises: SystemExit with the server's reason where it refuses."""
    body = json.dumps(payload).encode()
    request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)["predictions"]
    except urllib.error.HTTPError as refusal:
        message = json.load(refusal)["message"]  # MLflow repeats the data before the reason
        raise SystemExit(f"{refusal.code}: {message.rpartition('Error: ')[2]}") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bars", type=Path, help="CSV or parquet with a time column, open, high, low, close")
    parser.add_argument("--url", default="http://127.0.0.1:5000")
    parser.add_argument("--min_probability", type=float, default=0.8)
    arguments = parser.parse_args()
    read = pd.read_parquet if arguments.bars.suffix == ".parquet" else pd.read_csv
    bars = read(arguments.bars)
    bars = bars.reset_index() if isinstance(bars.index, pd.DatetimeIndex) else bars
    table = json.loads(bars.to_json(orient="split", date_format="iso", date_unit="ns", double_precision=15))
    hits = ask(arguments.url, {"dataframe_split": table, "params": {"min_probability": arguments.min_probability}})
    if not hits:
        sys.exit("no hit above the thresholds")
    columns = ["instrument", "start", "end", "label", "probability", "span_score"]
    print(pd.DataFrame(hits)[columns].to_string(index=False))


if __name__ == "__main__":
    main()
