"""Every form of a vendor's file is read right or refused in words; none is misread without a word."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from bar_forms import FORMS
from bar_makers import Form

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig, UserError


@pytest.mark.parametrize("form", FORMS, ids=[f"{form.kind}: {form.what}" for form in FORMS])
def test_a_form_is_read_right_or_refused_in_words(form: Form, tmp_path: Path) -> None:
    config = BarsConfig(path=str(form.make(tmp_path)), **form.keys)
    if form.refused:
        with pytest.raises(UserError) as e:
            read_bars(config, 1)
        assert re.search(form.refused, str(e.value)), str(e.value)
        return
    bars = read_bars(config, 1)
    first = str(np.datetime64(int(bars.time_ns[0]), "ns"))[:16]
    assert (len(bars), first, bars.ohlc[-1, 3]) == (form.num, form.first, pytest.approx(form.close))
    assert bars.volume.sum() == pytest.approx(form.volume)
    if form.says:
        assert re.search(form.says, "\n".join(bars.notes)), bars.notes
    assert form.first in "".join(bars.understood)


def test_there_are_more_than_eighty_forms_of_every_kind() -> None:
    assert len(FORMS) >= 80
    assert len({(form.kind, form.what) for form in FORMS}) == len(FORMS)
