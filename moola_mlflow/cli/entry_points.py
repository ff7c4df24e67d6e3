"""The table of commands: what each does, its parameters, examples. Parser, help, reference and completion read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SHORT = {
    "bars": "bars.path",
    "features": "features.set",
    "epochs": "trainer.epochs",
    "batch_size": "trainer.batch_size",
    "lr": "optimizer.lr",
    "device": "runtime.device",
    "seed": "trainer.seed",
    "n": "labels.n",
    "labels": "labels.path",
    "encoder": "finetune.encoder",
    "freeze_encoder": "finetune.freeze",
    "folds": "cv.folds",
    "repeats": "cv.repeats",
    "seeds": "cv.seeds",
    "register": "registry.name",
    "gates": "gates.mode",
    "detector": "detect.detector",
    "resume": "tracking.resume",
    "annotator": "annotate.annotator",
    "port": "annotate.port",
    "n_trials": "sweep.n_trials",
    "workers": "sweep.workers",
    "study": "sweep.study",
    "storage": "sweep.storage",
    "project": "project.name",
}
"""Short parameters and the dotted keys they stand for."""

ALSO_CALLED = {"label.rule": "labels.rule", "label.rejects": "labels.rejects", "follow": "detect.follow"}
"""Keys of the command line that have a second spelling."""
FLAGS = ("follow", "as_new")
"""Parameters that may stand without a value: they then mean true."""
PRESET = "A preset: a YAML file of sections and keys."


@dataclass(frozen=True)
class Argument:
    """A parameter that is no key of the configuration; ``default`` is that of the command's ``run``."""

    meaning: str
    default: str = ""
    needed: bool = False


@dataclass(frozen=True)
class EntryPoint:
    """One command: what it does, its short parameters, and its default preset."""

    summary: str
    parameters: tuple[str, ...]
    examples: tuple[str, ...]
    """Lines to type; two spaces and a # begin a comment."""
    config: str = ""
    base: str = ""
    own: Mapping[str, Argument] = field(default_factory=dict)
    """Parameters that are not keys of the configuration."""
    meanings: Mapping[str, str] = field(default_factory=dict)
    """What a short parameter means to this command, where the key's own words are about others."""
    lone: str = ""
    """The parameter whose name may be left out."""
    underlay: bool = False
    """Whether a given preset only replaces keys of the default one: it then need not repeat all of them."""
    trials: str = ""
    """What its help says of the keys that the command of its trials reads, instead of listing them."""
    own_sections: tuple[str, ...] = ()
    """The only sections that its help lists, if set."""
    launched: bool = True
    """Whether ``mlflow run`` starts it too: MLproject then declares it."""
    project: str = ""
    """Project of the command if the user names none."""
    module: str = ""
    """Module in ``commands/`` that runs it, if it has another name."""


OVERWRITE = Argument("true replaces files of these names that no command of this folder has written.", "false")

ENTRY_POINTS = {
    "main": EntryPoint(
        "the tour: every command once on sample bars, in under five minutes",
        ("seed", "project", "config"),
        ("mlflow run .", "moola main --seed 23"),
        config="configs/tour.yaml",
        meanings={"seed": "Seed of every step: both encoders, the drawn labels, both detectors."},
        project="demo",
        module="tour",
    ),
    "data": EntryPoint(
        "read, check and canonicalise bars; write one parquet",
        ("bars", "out", "head", "overwrite", "project", "config"),
        (
            "moola data --bars my_bars.csv --bars.timezone America/New_York --out bars.parquet",
            "moola data --bars es.dbn.zst --bars.instrument front --head 10000",
            "moola data --bars months/ --bars.instrument all --out bars.moolabars  # a bar store, for more than memory",
        ),
        own={
            "out": Argument(
                "File that gets the bars, .parquet or .pq; with a slash at its end or as .moolabars: a bar store.",
                "out/bars.parquet",
            ),
            "head": Argument("Bars to keep, the first ones; not set: all."),
            "overwrite": OVERWRITE,
        },
    ),
    "features": EntryPoint(
        "feature quality report of a bars file",
        ("bars", "features", "encoder", "project", "config"),
        (
            "moola features --bars bars.parquet --features relativity12",
            "moola features --bars new_bars.parquet --encoder models:/moola-encoder@champion  # have they drifted?",
        ),
        meanings={
            "encoder": "Encoder whose training windows the features are compared with (models:/ or runs:/ URI, folder, "
            ".pt); not set: no comparison."
        },
    ),
    "rules": EntryPoint(
        "labelling rules: which there are, and how often each finds something",
        ("bars", "out", "overwrite", "project", "config"),
        (
            "moola rules --bars bars.parquet --bars.instrument front --out rules",
            "moola rules --objective.family broad --objective.num_rules 96 --objective.rules_seed 1",
        ),
        own={
            "out": Argument("Folder that gets rules.csv and rules.html too; not set: the run alone has them."),
            "overwrite": OVERWRITE,
        },
        launched=False,
    ),
    "label": EntryPoint(
        "weak labels from bars, by a rule",
        ("bars", "n", "out", "overwrite", "seed", "project", "config"),
        (
            "moola label --bars bars.parquet --bars.instrument front --n 174 --out labels.parquet",
            "moola label --seed 23 --out other_labels.parquet  # of sample bars, other windows",
            "moola label --labels.rule strict-0-12  # any rule of the registry",
            "moola label --label.rejects true --n 350  # windows without a label too, for an event detector",
        ),
        own={
            "out": Argument("Parquet file that gets the labelled windows.", "out/labels.parquet"),
            "overwrite": OVERWRITE,
        },
        meanings={
            "bars": "A file, a folder, a glob, or `sample` for the embedded sample series of labels.sample_seed.",
            "seed": "Seed of the draw: which of overlapping windows stay, and which n of more.",
        },
    ),
    "labels": EntryPoint(
        "show, check and convert labelled windows: a table, a page of charts, another form",
        ("labels", "bars", "out", "overwrite", "project", "config"),
        (
            "moola labels --labels my_labels.parquet",
            "moola labels --labels batches/ --labels.duplicates newest --out joined.parquet",
            "moola labels --labels export.json --bars bars.parquet --out labels.parquet  # from Label Studio",
            "moola labels --labels events.csv --bars bars.parquet --labels.rest none --out labels.parquet",
        ),
        own={
            "out": Argument(
                "File that gets the labels, with its page beside it: .parquet, .json (tasks of Label Studio) or .csv "
                "(times); or a folder for the page; not set: the run alone has them."
            ),
            "overwrite": OVERWRITE,
        },
        meanings={
            "labels": "Labels of any form: parquet, CSV of times, Label Studio's JSON or CSV, a folder of batches, "
            "runs:/ID, or `sample`.",
            "bars": "Bars that a CSV, Label Studio or batches point into; parquet needs none.",
        },
    ),
    "annotate": EntryPoint(
        "label windows by eye on a local page; a detector chooses some of the later ones",
        ("bars", "labels", "detector", "annotator", "port", "project", "config"),
        (
            "moola annotate --bars bars.parquet --bars.instrument front --labels my_labels.parquet",
            "moola annotate --bars bars.parquet --labels my_labels.parquet --annotate.classes flag,wedge,squeeze",
            "moola annotate --bars bars.parquet --labels my_labels.parquet --annotator ann --port 0",
            "moola annotate --bars bars.parquet --labels my_labels.parquet --annotate.review true",
            "mlflow run . -e annotate -P bars=bars.parquet -P labels=my_labels.parquet",
        ),
        meanings={"bars": "Bars of any form that data reads: a file, a folder, a glob, a bar store, or `sample`."},
    ),
    "pretrain": EntryPoint(
        "train an encoder on bars and register it",
        ("bars", "config", "epochs", "batch_size", "lr", "seed", "device", "resume", "register", "project", "gates"),
        (
            "moola pretrain --bars bars.parquet --bars.instrument front --epochs 20 --encoder.hidden 64",
            "moola pretrain --config configs/rules.yaml --seed 23  # the recommended objective",
            "moola pretrain --resume auto  # go on after a Ctrl-C, a kill or a power cut",
            "mlflow run . -e pretrain -P bars=bars.parquet -P epochs=20",
        ),
        config="configs/stones.yaml",
    ),
    "finetune": EntryPoint(
        "cross-validate a detector on labelled windows beside its baselines, and register it",
        (
            *("labels", "config", "encoder", "freeze_encoder", "epochs", "batch_size", "lr", "folds", "repeats"),
            *("seed", "seeds", "bars", "device", "register", "project", "gates"),
        ),
        (
            "moola finetune --labels labels.parquet --encoder models:/moola-encoder@candidate --repeats 3",
            "moola finetune --labels labels.parquet --finetune.inputs price_path  # path features alone, no encoder",
            "moola finetune --labels labels.parquet --encoder models:/moola-encoder/3 --config configs/phase2.yaml",
            "moola finetune --labels positives.parquet --bars bars.parquet --finetune.unlabelled bars",
        ),
        config="configs/finetune.yaml",
        meanings={
            "config": f"{PRESET} It lies over configs/finetune.yaml.",
            "bars": "Bars from which windows without labels are drawn, if finetune.unlabelled=bars.",
            "seed": "Seed of folds, weights, mirroring and batches where `seeds` is not set; of the final fit always.",
        },
        underlay=True,
    ),
    "sweep": EntryPoint(
        "search batch size, learning rate or any other key with Optuna, each trial a child run",
        ("config", "base", "n_trials", "workers", "study", "storage", "bars", "labels", "encoder", "project", "device"),
        (
            "moola sweep --n_trials 40 --workers 4 --base configs/path.yaml",
            "moola sweep --config configs/sweep_finetune.yaml --base configs/finetune.yaml --labels labels.parquet",
        ),
        config="configs/sweep.yaml",
        base="configs/stones.yaml",
        own={"base": Argument("The preset that is varied; the keys of config are laid over it.")},
        meanings={
            "config": f"{PRESET} Its section sweep says what is searched.",
            "bars": "Bars of a sweep of pretrain: a file, a folder, a glob, or `sample`.",
            "labels": "Labels of a sweep of finetune: a parquet file of labelled windows, or `sample`.",
            "encoder": "Encoder of a sweep of finetune (models:/ or runs:/ URI, folder, .pt); not set: from scratch.",
        },
        trials="""
A sweep also reads the keys of the command that its trials run: moola pretrain --help or, with sweep.stage=finetune,
moola finetune --help. It does not resume trainings or draw reconstructions (the other keys of section tracking).""",
        own_sections=("sweep", "tracking"),
    ),
    "promote": EntryPoint(
        "check the gates of a registered version and move an alias to it",
        ("model", "version", "alias", "force", "project", "config"),
        (
            "moola promote --model moola-detector --version 3",
            "moola promote --model moola-detector --version previous  # back to the champion before",
            "moola promote --model moola-encoder --force true  # the gates that are missed stand on the version",
        ),
        config="configs/gates.yaml",
        own={
            "model": Argument("A registered model.", "moola-detector"),
            "version": Argument("Its version: a number or an alias; previous rolls back.", "candidate"),
            "alias": Argument("The alias to move.", "champion"),
            "force": Argument("true promotes a version that misses gates, and says so on it.", "false"),
        },
        meanings={"config": f"{PRESET} Its section gates says what a version must show."},
    ),
    "detect": EntryPoint(
        "scan bars with a registered detector: a table of found patterns, charts of the best",
        ("bars", "detector", "out", "overwrite", "project", "config"),
        (
            "moola detect --bars bars.parquet --bars.instrument front --detector models:/moola-detector@champion",
            "moola detect --bars bars.parquet --detect.min_probability 0.9 --out found",
            "moola detect --bars live.csv --follow  # print events as bars are appended to a file",
            "moola detect --bars - --follow --detect.lines json  # or come from standard input",
        ),
        own={
            "out": Argument(
                "Folder that gets detections.parquet and detections.html too; not set: the run alone has them."
            ),
            "overwrite": OVERWRITE,
        },
    ),
    "evaluate": EntryPoint(
        "score a registered detector on bars, by labels or a rule: curves, a table, charts of its errors",
        ("bars", "labels", "detector", "out", "overwrite", "project", "config"),
        (
            "moola evaluate --bars bars.parquet --bars.instrument front --detector models:/moola-detector@candidate",
            "moola evaluate --bars bars.parquet --labels looked_at.parquet --out evaluated",
            "moola evaluate --bars bars.parquet --evaluate.rule surge-1 --detect.precision 0.8",
        ),
        own={
            "out": Argument(
                "Folder that gets evaluation.html, evaluation.json and evaluation.parquet too; not set: the run alone "
                "has them."
            ),
            "overwrite": OVERWRITE,
        },
        meanings={
            "labels": "Windows looked at, whose events are true: a parquet file, a folder, a glob or runs:/ID; not "
            "set: a rule says what is true (evaluate.rule).",
        },
    ),
    "report": EntryPoint(
        "Markdown and self-contained HTML report of a pretrain run and its fine-tuning runs",
        ("run_id", "out", "overwrite", "project", "config"),
        ("moola report --run_id 0123456789abcdef0123456789abcdef --out report",),
        own={
            "run_id": Argument("A pretrain run, or a finetune run whose pretrain run is reported on.", needed=True),
            "out": Argument(
                "Folder that gets report.md, report.html and figures/ too; not set: the run alone has them."
            ),
            "overwrite": OVERWRITE,
        },
    ),
    "compare": EntryPoint(
        "two or more runs side by side: parameters that differ, metrics, curves, paired differences",
        ("run_ids", "out", "overwrite", "project", "config"),
        (
            "moola compare --run_ids 0123456789abcdef0123456789abcdef,fedcba9876543210fedcba9876543210",
            "moola compare --run_ids 0123456789abcdef0123456789abcdef,fedcba9876543210fedcba9876543210 --out compared",
        ),
        own={
            "run_ids": Argument(
                "Two to eight runs of one stage, separated by commas; differences are to the first.", needed=True
            ),
            "out": Argument(
                "Folder that gets compare.md, compare.html and figures/ too; not set: the run alone has them."
            ),
            "overwrite": OVERWRITE,
        },
    ),
    "sync": EntryPoint(
        "send to the store what it missed of a run while it did not answer",
        ("run_dir", "server", "as_new"),
        (
            "moola sync .moola/runs/RUN_ID",
            "moola sync .moola/runs/RUN_ID --server https://mlflow.example.com",
            "moola sync .moola/runs/RUN_ID --as-new  # the store has lost the run: make it again",
            "mlflow run . -e sync -P run_dir=.moola/runs/RUN_ID",
        ),
        own={
            "run_dir": Argument(
                "The folder of a run that the store lacks a part of: .moola/runs/RUN_ID. The name may be left out.",
                needed=True,
            ),
            "server": Argument(
                "Address of the server to send to; not set: MLFLOW_TRACKING_URI, or the address in the folder, "
                "if you confirm it on the terminal."
            ),
            "as_new": Argument(
                "true makes a run again that the store has lost, under a new id: from the journal, and from the files "
                "that are still in the folder.",
                "false",
            ),
        },
        lone="run_dir",
    ),
    "doctor": EntryPoint(
        "look at environment, store, runs and aliases, and say what to do",
        ("fix",),
        ("moola doctor", "moola doctor --fix true"),
        own={
            "fix": Argument(
                "true: do the cures that need no choice, such as closing runs whose process is gone.", "false"
            )
        },
    ),
}
"""Every command by its name, in the order of the map."""


def overview() -> str:
    """Return the list of commands, one line each."""
    width = max(map(len, ENTRY_POINTS))
    rows = [f"  {name:<{width}}  {entry.summary}" for name, entry in ENTRY_POINTS.items()]
    return "\n".join(
        ["moola: from one-minute bars to a registered encoder, every number tracked", "", *rows, "",
         "moola NAME --help shows a command's parameters; mlflow run . -e NAME -P key=value does the same.",
         "moola presets lists the presets that come with the package, and writes them.",
         "source <(moola completion) completes commands and keys in bash."]
    )  # fmt: skip
