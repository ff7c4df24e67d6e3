"""Show a training: a live display on a terminal, one plain line for each epoch elsewhere."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from moola_mlflow.core import Metrics, display_stream
from moola_mlflow.training import EpochEnded, MemoryRanOut, TrainingEvent, WentBack


def table_console() -> Console:
    """Return a console for tables, without colours: symbols of data are in them. Away from a terminal rich assumes 80
    columns and would cut them.
    """
    return Console(color_system=None, width=None if Console().is_terminal else 150)


def epoch_line(event: EpochEnded) -> str:
    """Return one epoch as text. Epochs count from 1 here, and from 0 in the tracked steps."""
    m = event.metrics
    return (
        f"Epoch {event.epoch + 1:3d} | Train Loss: {m[Metrics.TRAIN_LOSS]:.6f} | Val Loss: {m[Metrics.VAL_LOSS]:.6f} | "
        f"LR: {m[Metrics.LR]:.6f} | Time: {m[Metrics.EPOCH_SECONDS]:.1f}s | "
        f"Huber: {m[Metrics.VAL_HUBER]:.6f} | Skill: {m[Metrics.VAL_SKILL]:.4f}"
    )


def setback_text(event: WentBack | MemoryRanOut) -> str:
    """Return what to print when training goes back with a lower learning rate, or uses less memory."""
    if isinstance(event, MemoryRanOut):
        return f"Memory ran out: batches are computed {event.micro_batch} windows at a time; each step stays the same."
    return (
        f"{event.error}\nGoing back to the start of epoch {event.epoch + 1} at {event.lr_scale:g} of the learning rate."
    )


class TrainingDisplay:
    """A subscriber of training events. Use it as a context manager."""

    def __init__(self, epochs: int, steps: int, console: Console | None = None) -> None:
        self.console = console or Console(file=display_stream())
        self.steps = steps
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[scores]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("training", total=epochs * steps, scores="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, event: TrainingEvent) -> None:
        if isinstance(event, WentBack | MemoryRanOut):
            self.progress.stop()
            print(setback_text(event), flush=True)
            self.progress.start()
        elif not isinstance(event, EpochEnded):
            self.progress.update(self.task, completed=event.epoch * self.steps + event.step)
        elif self.console.is_terminal:
            m = event.metrics
            self.progress.update(
                self.task,
                description=f"epoch {event.epoch + 1}/{event.epochs}",
                scores=f"loss {m[Metrics.TRAIN_LOSS]:.4f}  val {m[Metrics.VAL_LOSS]:.4f}  "
                f"skill {m[Metrics.VAL_SKILL]:.3f}  lr {m[Metrics.LR]:.1e}  "
                f"{m[Metrics.WINDOWS_PER_SECOND]:.0f} windows/s",
            )
        else:
            print(epoch_line(event), flush=True)
