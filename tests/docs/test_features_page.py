"""The page of features names every price-path feature, with the right bars and the right number."""

import re

from paths import ROOT

from moola_mlflow.features import PRICE_PATH_FEATURE_NAMES


def test_the_table_of_price_path_features_names_exactly_those_that_there_are() -> None:
    page = (ROOT / "docs" / "reference" / "features.md").read_text(encoding="utf-8")
    section = page.split("## The price-path features")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\w+[^|]*) \| [^|]* \| ([\d, ]*) ?\| (\d+) \|$", section, re.MULTILINE)
    named = []
    for names, bars, number in rows:
        found = [
            name.replace("*", k.strip())
            for name in names.split(", ")
            for k in (bars.split(",") if "*" in name else [""])
        ]
        assert len(found) == int(number), names
        named += found
    assert sorted(named) == sorted(PRICE_PATH_FEATURE_NAMES)
