"""The methods that a fine-tuning of an event detector compares. All get rejects, folds, averaging and mirrored windows.

A method is fitted once for each repeat. Its folds hold out every window once, and the nets of all folds together are
the detector.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from moola_mlflow.core import (
    EventBaselines,
    FinetuneKeys,
    TrainingError,
    UserError,
    is_tuned,
    make_config,
    mixed_seed,
    pick_device,
    pick_precision,
    read_preset,
    shipped_presets,
)
from moola_mlflow.evaluation.crossval import fresh_copy
from moola_mlflow.evaluation.event_baselines import BoostedSteps, LabellingRule, ScratchMethod, known_rule
from moola_mlflow.evaluation.evidence import DETECTOR
from moola_mlflow.evaluation.methods import SAMPLES_OWN, idle_keys
from moola_mlflow.evaluation.prior_method import has_priors, priors_of
from moola_mlflow.evaluation.unlabelled_windows import UnlabelledWindows
from moola_mlflow.evaluation.workers import num_processes, run_tasks
from moola_mlflow.features import FeatureChoice
from moola_mlflow.labels import EventLabels
from moola_mlflow.models import (
    Encoder,
    Ensemble,
    EventFit,
    EventSettings,
    EventSource,
    HeldOutFit,
    Inputs,
    ScratchSettings,
    Unlabelled,
    fit_event_detector,
    members_of,
    one_hit_a_window,
    parts_of,
)
from moola_mlflow.training import hybrid

SPANS_OWN = (
    "finetune.unfreeze_at", "finetune.encoder_lr", "finetune.gamma", "finetune.class_balanced",
    "finetune.jitter_sigma", "cv.kind", "cv.embargo_bars", "cv.inner_share", "trainer.epochs", "trainer.batch_size",
    "trainer.patience", "trainer.clip_norm", "optimizer.", "encoder.", "windows.warmup", "gates.f1_macro",
    "gates.joint_success_at_3", "gates.recall", "gates.ece", "gates.delta_joint_success_at_3",
)  # fmt: skip
"""Keys that only span detectors use."""
UNLABELLED_OWN = ("finetune.unlabelled_windows", "finetune.base_rate")
"""Keys that only windows without labels use."""


@dataclass(frozen=True)
class EventSetting:
    """Labels, encoder and configuration of one fine-tuning of an event detector.

    ``encoder`` is None without pre-training, ``unlabelled`` without windows that nobody looked at.
    """

    labels: EventLabels
    encoder: Encoder | None
    config: FinetuneKeys
    unlabelled: UnlabelledWindows | None = None

    @property
    def inputs(self) -> Inputs:
        """What the detector reads."""
        given = self.config.finetune.inputs
        if given == "auto":
            return "price_path" if self.encoder is None else "both"
        return given

    @property
    def reads_encoding(self) -> bool:
        """Whether the detector reads an encoding."""
        return "encoding" in parts_of(self.inputs)

    @property
    def reader(self) -> str:
        """What reads the encodings: ``prior`` or ``head``."""
        if self.unlabelled is not None and self.unlabelled.windows.base_rate is not None:
            return "head"  # only joint nets learn from unlabelled windows at a base rate
        fits = self.reads_encoding and has_priors(self.encoder)
        return "prior" if self.config.finetune.reader != "head" and fits else "head"

    @property
    def features(self) -> FeatureChoice | None:
        """The hand-made features that the detector reads beside the rest."""
        own = self.config.features
        return FeatureChoice(own.set, hybrid(own)) if "features" in parts_of(self.inputs) else None

    @property
    def settings(self) -> EventSettings:
        """How the nets are fitted. The recipe of the event detector has its own epochs, batches and learning rate."""
        tuned, cv = self.config.finetune, self.config.cv
        device = str(pick_device(self.config.runtime.device))
        usual = EventSettings(folds=cv.folds, mirror=tuned.mirror, precision=tuned.precision, device=device)
        return usual if tuned.head_lr is None else replace(usual, lr=tuned.head_lr)

    def seeds(self) -> list[tuple[int, int, int]]:
        """Return seed, repeat and the drawn seed of each fit."""
        seeds = self.config.cv.seeds or (self.config.trainer.seed,)
        return [(seed, repeat, mixed_seed(seed, repeat)) for seed in seeds for repeat in range(self.config.cv.repeats)]


@dataclass(frozen=True)
class EventMethod:
    """One method: what its nets read. ``fresh`` gives the encoder new random weights for each fit."""

    name: str
    source: EventSource
    settings: EventSettings
    fresh: bool = False
    unlabelled: Unlabelled | None = None
    """Windows that nobody looked at. Every method learns from the same ones."""

    def run(self, labels: EventLabels, seed: int, on_net: Callable[[int, int], None] | None = None) -> EventFit:
        """Fit on the folds of one seed. The same seed gives the same folds to every method.

        ``on_net`` is called with the number of nets that are fitted and of all nets.
        """
        source = self.source
        if self.fresh and source.encoder is not None:
            source = replace(source, encoder=without_priors(fresh_copy(source.encoder, seed)))
        return fit_event_detector(labels, source, self.settings, seed, on_fit=on_net, unlabelled=self.unlabelled)


EventBaseline = ScratchMethod | BoostedSteps | LabellingRule
"""A method that is no event detector: it has a name, settings and ``run``, and is only compared with."""


def make_event_setting(
    labels: EventLabels,
    encoders: Sequence[Encoder],
    config: FinetuneKeys,
    unlabelled: UnlabelledWindows | None = None,
) -> EventSetting:
    """Return a checked setting.

    Raises: UserError for encoders of another window length, for an encoder that is to be trained, for inputs that need
    an encoder where none is given, or for labels without an event.
    """
    for encoder in encoders:
        length = encoder.card["window"]["length"]
        if length != labels.ohlc.shape[1]:
            raise UserError(
                f"the encoder reads windows of {length} bars, the labels hold {labels.ohlc.shape[1]}; "
                "take an encoder trained with windows.length equal to the labels' windows"
            )
    if encoders and not config.finetune.freeze:
        raise UserError(
            "freeze_encoder=false trains the encoder, and an event detector reads frozen encodings; set "
            "freeze_encoder=true, or finetune.head=span"
        )
    pretrained = None if not encoders else encoders[0] if len(encoders) == 1 else Ensemble(encoders)
    setting = EventSetting(labels, pretrained, config, unlabelled)
    if setting.reads_encoding and pretrained is None:
        raise UserError(
            f"finetune.inputs={setting.inputs} reads an encoding and no encoder is given; give encoder=, or "
            "finetune.inputs=price_path"
        )
    if config.finetune.reader == "prior":
        if pretrained is None or not setting.reads_encoding:
            raise UserError("finetune.reader=prior reads the encodings of an encoder; give encoder=, or reader=head")
        priors_of(pretrained)
    if labels.num_events == 0:
        raise UserError(
            f"labels: {labels.path} holds {len(labels)} windows and no event; label some windows that hold one"
        )
    return setting


def left_out_event_baselines(setting: EventSetting) -> list[str]:
    """Return the names of the baselines that ``cv.baselines=quick`` leaves out: those that read an encoder."""
    quick = setting.reads_encoding and setting.config.cv.baselines == "quick"
    return [EventBaselines.RANDOM_ENCODER, EventBaselines.SCRATCH] if quick else []


def build_event_methods(setting: EventSetting) -> list[EventMethod | EventBaseline]:
    """Return the detector, followed by its baselines."""
    settings, encoder = setting.settings, setting.encoder if setting.reads_encoding else None
    own = encoder if encoder is None or setting.reader == "prior" else without_priors(encoder)
    every = [
        EventMethod(DETECTOR, EventSource(setting.inputs, own, setting.features), settings),
        *_with_less(setting, encoder),
    ]
    if setting.unlabelled is not None:
        every = [replace(method, unlabelled=setting.unlabelled.windows) for method in every]
    if setting.config.finetune.span_baseline:
        spans = replace(settings, nets=("span",))
        every.append(EventMethod(EventBaselines.SPAN_NETS, EventSource("price_path"), spans))
    left_out = left_out_event_baselines(setting)
    return [method for method in [*every, *_others(setting, encoder)] if method.name not in left_out]


def _with_less(setting: EventSetting, encoder: Encoder | None) -> list[EventMethod]:
    """Return event detectors with other weights of the encoder, and with inputs that hold less."""
    settings, methods = setting.settings, list[EventMethod]()
    if encoder is not None:
        random = EventSource(setting.inputs, encoder, setting.features)
        methods.append(EventMethod(EventBaselines.RANDOM_ENCODER, random, settings, fresh=True))
    if encoder is not None and setting.features is not None:
        less = EventSource("price_path+features", None, setting.features)
        methods.append(EventMethod(EventBaselines.HAND_MADE, less, settings))
    elif encoder is not None or setting.features is not None:
        methods.append(EventMethod(EventBaselines.PATH_FEATURES, EventSource("price_path"), settings))
    return methods


def _others(setting: EventSetting, encoder: Encoder | None) -> list[EventBaseline]:
    """Return the baselines that are no event detectors. They learn from no window that nobody looked at."""
    settings, methods = setting.settings, list[EventBaseline]()
    if encoder is not None:
        runtime = setting.config.runtime
        precision = pick_precision(runtime.precision, pick_device(runtime.device), is_tuned(runtime))
        how, bare = ScratchSettings(setting.config.finetune.scratch_lr, precision), without_priors(encoder)
        methods.append(ScratchMethod(EventBaselines.SCRATCH, bare, setting.inputs, setting.features, settings, how))
    methods.append(BoostedSteps(EventBaselines.BOOSTED_STEPS, settings))
    if (rule := known_rule(setting.labels)) is not None:
        methods.append(LabellingRule(EventBaselines.RULE, rule, settings))
    return methods


def ineffective_event_keys(config: FinetuneKeys, has_rejects: bool = False) -> list[str]:
    """Return a warning for each group of given keys that an event detector does not read, with the reason.

    ``has_rejects``: whether the labels hold windows without an event.
    Keys of the shipped preset of fine-tuning serve detectors of both kinds: nobody is warned of them.
    """
    usual = make_config(FinetuneKeys, read_preset(shipped_presets()["finetune"]), {}).flat()
    given = {key: value for key, value in config.given().items() if usual[key] != value}
    reads_features = "features" in parts_of(config.finetune.inputs)
    draws = config.finetune.unlabelled == "bars"
    return idle_keys(
        given,
        (True, SPANS_OWN, "an event detector has its own recipe, and cv.folds deals its windows by class"),
        (not reads_features, ("features.",), "finetune.inputs reads no features"),
        (config.labels.path != "sample" and not draws, SAMPLES_OWN, "the labels come from a file"),
        (not draws, UNLABELLED_OWN, "finetune.unlabelled is not bars"),
        (draws and has_rejects, ("finetune.base_rate",), "the labels hold windows without an event"),
    )


def without_priors(encoder: Encoder) -> Encoder:
    """Return a copy of an encoder whose members have no heads of rules, so that nets read its encoding."""
    bare = copy.deepcopy(encoder)
    for member in members_of(bare):
        member.task_heads = None
    return bare


def fit_event_methods(
    setting: EventSetting,
    methods: Sequence[EventMethod | EventBaseline],
    *,
    workers: int = 1,
    on_fit: Callable[[str, int, HeldOutFit, float], None] = lambda name, number, fit, seconds: None,
    on_net: Callable[[], None] = lambda: None,
    should_stop: Callable[[], str | None] = lambda: None,
    tuned: bool = True,
) -> dict[str, list[HeldOutFit]]:
    """Fit every method once for each seed and repeat; return the fits of each in this order.

    The fits of the span detector are read twice: as maps, and as one hit in each window.

    ``on_fit(method, number of the repeat, fit, seconds)`` is called as fits end, and ``on_net()`` after each net that
    this process fits. Fits do not depend on ``workers``, the number of processes. A request to stop is looked for
    between nets, and methods that lack a fit are then left out.
    """
    drawn = [seed for _, _, seed in setting.seeds()]
    tasks = [(method, number) for number in range(len(drawn)) for method in range(len(methods))]
    out: list[dict[int, HeldOutFit]] = [{} for _ in methods]

    def collect(task: int, result: tuple[HeldOutFit, float]) -> None:
        method, number = tasks[task]
        out[method][number] = result[0]
        on_fit(methods[method].name, number, *result)

    def between_nets(done: int, of: int) -> None:
        on_net()
        if done < of and should_stop():
            raise _Stopped

    inline = num_processes(workers, len(tasks)) == 1
    context = (list(methods), setting.labels, drawn, between_nets if inline else None)
    try:
        run_tasks(_run, context, tasks, workers, collect, should_stop, tuned)
    except _Stopped:
        pass
    except TrainingError:
        if not should_stop():  # otherwise a signal to the whole process group has killed the workers
            raise
    complete = zip(methods, out, strict=True)
    fits = {method.name: [done[i] for i in range(len(drawn))] for method, done in complete if len(done) == len(drawn)}
    return _with_hits(fits, setting.labels)


def _with_hits(fits: dict[str, list[HeldOutFit]], labels: EventLabels) -> dict[str, list[HeldOutFit]]:
    """Return all fits, and after those of the span detector the same ones read as one hit in each window."""
    with_hits = dict[str, list[HeldOutFit]]()
    for name, rows in fits.items():
        with_hits[name] = rows
        if name == EventBaselines.SPAN_NETS:
            with_hits[EventBaselines.SPAN_HITS] = [one_hit_a_window(fit, labels) for fit in rows]
    return with_hits


class _Stopped(Exception):
    """A request to stop came between two nets."""


Context = tuple[list[EventMethod | EventBaseline], EventLabels, list[int], Callable[[int, int], None] | None]


def _run(context: Context, task: tuple[int, int]) -> tuple[HeldOutFit, float]:
    methods, labels, seeds, on_net = context
    started = time.perf_counter()
    fit = methods[task[0]].run(labels, seeds[task[1]], on_net)
    return fit, time.perf_counter() - started
