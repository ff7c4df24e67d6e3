"""The five verbs: pretrain, label, finetune, evaluate, detect. Each runs the command of its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moola_mlflow.api.calls import Call
from moola_mlflow.api.inputs import (
    BarsLike,
    DetectorLike,
    EncoderLike,
    LabelsLike,
    bars_path,
    detector_name,
    encoder_name,
    labels_path,
)
from moola_mlflow.core import UserError
from moola_mlflow.reports import DetectResult, EvaluateResult, FinetuneResult, LabelResult, PretrainResult


def pretrain(
    bars: BarsLike = "sample",
    config: str | Path = "rules",
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    track: bool = True,
    verbose: bool = False,
    **keys: Any,
) -> PretrainResult:
    """Train an encoder on bars without labels, as the command ``moola pretrain`` does.

    Parameters
    ----------
    bars
        A path, a pandas DataFrame with times and prices, bars of ``read_bars``, or ``sample``.
    config
        Name of a preset, such as ``rules`` or ``smoke``, or the path of a YAML file.
    out
        With ``track=False``: an empty folder for the results. None: a temporary folder, which stays.
    overwrite
        Whether ``out`` may hold results of an earlier call, which are removed.
    track
        Whether MLflow tracks the run and registers the encoder. False: no store is made or read.
    verbose
        Whether to print what the command prints.
    keys
        Any parameter of the command: ``epochs=3``, or a key with a double underscore for its dot:
        ``encoder__hidden=32`` is ``encoder.hidden``.

    Returns
    -------
    PretrainResult
        ``encoder`` (a version or a folder), ``metrics``, ``history``, ``paths``, ``run_id`` and ``plot()``.

    Raises
    ------
    UserError
        If bars, keys or values cannot be used. A training that fails raises TrainingError, a gate that is missed with
        ``gates__mode="strict"`` GateError.

    Examples
    --------
    >>> from moola_mlflow import pretrain
    >>> small = {"bars__sample_bars": 6000, "epochs": 1, "encoder__hidden": 8}
    >>> trained = pretrain("sample", "smoke", track=False, **small)
    >>> trained.run_id is None, trained.encoder.endswith("encoder"), len(trained.history)
    (True, True, 1)
    >>> pretrain(epcohs=3)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    moola_mlflow.core.errors.UserError: unknown parameter 'epcohs' (value '3'); did you mean 'epochs'? ...
    """
    call = Call("pretrain", keys, out, overwrite, track, verbose)
    result: PretrainResult = call.run({"config": str(config)}, lambda folder: {"bars": bars_path(bars, folder)})
    return result


def label(
    bars: BarsLike = "sample",
    rule: str | None = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    track: bool = True,
    verbose: bool = False,
    **keys: Any,
) -> LabelResult:
    """Label windows of bars by a rule, as the command ``moola label`` does. Such labels are weak.

    Parameters
    ----------
    bars
        A path, a pandas DataFrame with times and prices, bars of ``read_bars``, or ``sample``.
    rule
        Rule that labels windows: ``surge-1``, one of your own, or a drawn rule such as ``strict-0-12``.
    out
        The labels file, which ends in ``.parquet``. None: ``out/labels.parquet``, or a temporary file with
        ``track=False``.
    overwrite
        Whether ``out`` may be replaced although no command wrote it.
    track
        Whether MLflow tracks the run. False: no store is made or read.
    verbose
        Whether to print what the command prints.
    keys
        Any parameter of the command, such as ``n=174``; a double underscore is the dot of a key:
        ``labels__rejects=True``.

    Returns
    -------
    LabelResult
        ``labels``, ``path`` (the file), ``metrics``, ``paths``, ``run_id`` and ``plot()``.

    Raises
    ------
    UserError
        If bars, keys or values cannot be used, or if ``out`` holds other files.

    Examples
    --------
    >>> from moola_mlflow import label
    >>> made = label("sample", "surge-1", n=20, track=False, bars__sample_bars=20_000)
    >>> len(made.labels), made.path.name
    (20, 'labels.parquet')
    """
    call = Call("label", keys, None if not track else out, overwrite, track, verbose)

    def inputs(folder: Path) -> dict[str, str]:
        file = {} if track else {"out": str(out or folder / "labels.parquet"), "overwrite": str(overwrite).lower()}
        return {"bars": bars_path(bars, folder), **file}

    result: LabelResult = call.run({"labels.rule": rule}, inputs)
    return result


def finetune(
    labels: LabelsLike = "sample",
    encoder: EncoderLike = None,
    config: str | Path | None = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    track: bool = True,
    verbose: bool = False,
    **keys: Any,
) -> FinetuneResult:
    """Fit a detector on labelled windows and compare it with baselines, as the command ``moola finetune`` does.

    Parameters
    ----------
    labels
        A path, a pandas DataFrame with the columns of a labels file, labels of ``read_labels`` or
        ``labels_from_spans``, what ``label`` returned, or ``sample``.
    encoder
        What ``pretrain`` returned, a version (``models:/moola-encoder@champion``), or a folder. None: none.
    config
        Name of a preset or the path of a YAML file. None: the command's own, ``finetune``.
    out
        With ``track=False``: an empty folder for the results. None: a temporary folder, which stays.
    overwrite
        Whether ``out`` may hold results of an earlier call, which are removed.
    track
        Whether MLflow tracks the run and registers the detector. False: no store is made or read.
    verbose
        Whether to print what the command prints.
    keys
        Any parameter of the command: ``folds=3``, or a key with a double underscore for its dot:
        ``finetune__head="event"``.

    Returns
    -------
    FinetuneResult
        ``detector`` (a version or a folder), ``headline``, ``methods()``, ``metrics``, ``paths``, ``run_id`` and
        ``plot()``.

    Raises
    ------
    UserError
        If labels, encoder, keys or values cannot be used. A fit that fails raises TrainingError, a gate that is missed
        with ``gates__mode="strict"`` GateError.

    Examples
    --------
    >>> from moola_mlflow import finetune
    >>> small = {"labels__n": 24, "bars__sample_bars": 20_000, "folds": 2, "epochs": 1, "cv__workers": 1}
    >>> tuned = finetune("sample", track=False, finetune__inputs="price_path", **small)
    >>> tuned.methods().index[0], tuned.detector.endswith("detector")
    ('detector', True)
    """
    call = Call("finetune", keys, out, overwrite, track, verbose)
    own = {"config": None if config is None else str(config), "encoder": encoder_name(encoder)}
    result: FinetuneResult = call.run(own, lambda folder: {"labels": labels_path(labels, folder)})
    return result


def evaluate(
    bars: BarsLike,
    detector: DetectorLike = None,
    labels: LabelsLike | None = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    track: bool = True,
    verbose: bool = False,
    **keys: Any,
) -> EvaluateResult:
    """Score a detector on bars by labels or by a rule, as the command ``moola evaluate`` does.

    Parameters
    ----------
    bars
        A path, a pandas DataFrame with times and prices, bars of ``read_bars``, or ``sample``.
    detector
        What ``finetune`` returned, a version (``models:/moola-detector/3``), or a folder. None: the champion.
    labels
        Windows looked at, which say what is true; as for ``finetune``. None: the rule of the detector's weak labels, or
        ``evaluate__rule``.
    out
        Folder that gets page, summary and table.
    overwrite
        Whether files in ``out`` may be replaced.
    track
        Whether MLflow tracks the run. False: no store is made, and results are in ``out`` or in a temporary folder.
    verbose
        Whether to print what the command prints.
    keys
        Any parameter of the command; a double underscore is the dot of a key: ``evaluate__rule="surge-1"``.

    Returns
    -------
    EvaluateResult
        ``headline``, ``table``, ``metrics``, ``paths``, ``run_id`` and ``plot()``.

    Raises
    ------
    UserError
        If bars, detector, labels, keys or values cannot be used.

    Examples
    --------
    >>> from moola_mlflow import evaluate
    >>> evaluate("sample", "no_such_folder", track=False)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    moola_mlflow.core.errors.UserError: ...
    """
    call = Call("evaluate", keys, out, overwrite, track, verbose)

    def inputs(folder: Path) -> dict[str, str]:
        truth = {} if labels is None else {"labels": labels_path(labels, folder)}
        return {"bars": bars_path(bars, folder), **truth}

    result: EvaluateResult = call.run({"detector": detector_name(detector)}, inputs)
    return result


def detect(
    bars: BarsLike,
    detector: DetectorLike = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    track: bool = True,
    verbose: bool = False,
    **keys: Any,
) -> DetectResult:
    """Scan bars with a detector, as the command ``moola detect`` does.

    For a table alone, of a detector in memory and without any file, see ``scan``.

    Parameters
    ----------
    bars
        A path, a pandas DataFrame with times and prices, bars of ``read_bars``, or ``sample``.
    detector
        What ``finetune`` returned, a version (``models:/moola-detector/3``), or a folder. None: the champion.
    out
        Folder that gets the table and the page.
    overwrite
        Whether files in ``out`` may be replaced.
    track
        Whether MLflow tracks the run. False: no store is made, and results are in ``out`` or in a temporary folder.
    verbose
        Whether to print what the command prints.
    keys
        Any parameter of the command; a double underscore is the dot of a key: ``detect__min_score=0.6``.

    Returns
    -------
    DetectResult
        ``table`` (one row for each hit or event), ``metrics``, ``paths``, ``run_id`` and ``plot()``.

    Raises
    ------
    UserError
        If bars, detector, keys or values cannot be used.

    Examples
    --------
    >>> from moola_mlflow import detect
    >>> detect("sample", 3, track=False)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    moola_mlflow.core.errors.UserError: detector is a int; allowed: models:/NAME@ALIAS, runs:/ID/detector, a folder, ...
    """
    call = Call("detect", keys, out, overwrite, track, verbose)
    own = {"detector": detector_name(detector)}
    if keys.get("detect__follow"):
        raise UserError("detect__follow waits for bars that come; start `moola detect --detect.follow true` instead")
    result: DetectResult = call.run(own, lambda folder: {"bars": bars_path(bars, folder)})
    return result
