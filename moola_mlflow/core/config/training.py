"""Sections ``optimizer``, ``schedule``, ``trainer`` and ``runtime``: how a network is trained, and on what hardware."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from moola_mlflow.core.config.base import Section


class OptimizerConfig(Section):
    """AdamW with betas 0.9 and 0.999."""

    lr: float = Field(1e-3, gt=0, le=1e6)
    """Highest learning rate of the schedule."""
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled weight decay, on weight matrices only."""


class ScheduleConfig(Section):
    """The learning rate over a pre-training: linear warm-up, then a cosine."""

    shape: Literal["cosine", "one_cycle"] = "cosine"
    """cosine: warm-up, then a cosine; one_cycle: up from lr / 25 for 30 % of the run, then down to nearly 0."""
    warmup_epochs: float = Field(5, ge=0)
    """Epochs over which the learning rate grows from 0 to optimizer.lr; at most half of the run."""
    final_fraction: float = Field(0.1, ge=0, le=1)
    """Share of optimizer.lr at which the cosine ends."""


class SeedConfig(Section):
    """The seed."""

    seed: int = Field(17, ge=0, lt=2**32)
    """Seed of weights, masks, noise and the order of windows."""


class EpochsConfig(SeedConfig):
    """How long networks are trained."""

    epochs: int = Field(20, ge=1, lt=2**31)
    """Passes over the training windows."""


class HeadTrainerConfig(EpochsConfig):
    """How long and in what batches the head is trained, and an encoder that is not frozen."""

    batch_size: int = Field(64, ge=1, lt=2**31)
    """Windows in a step."""
    patience: int = Field(10, ge=1)
    """Epochs without a better validation score after which training stops."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest gradient norm; a longer gradient is scaled down to it."""


class TrainerConfig(HeadTrainerConfig):
    """How long and in what batches encoder and objective are trained."""

    steps: int | None = Field(None, ge=1, lt=2**31)
    """Batches to train on, for any number of windows; none: trainer.epochs counts."""
    mirror: bool = False
    """Whether the windows of half of the batches are turned upside down."""
    nan_retry: bool = False
    """If the loss is NaN: go back to the last good epoch, once, and train on at half the learning rate."""


class RuntimeConfig(Section):
    """The hardware, and how much of it is used."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: bf16 if the hardware computes in it, fp16 on older GPUs, else fp32."""
    threads: int = Field(0, ge=0, le=1024)
    """torch threads for each part of a batch; 0: one. More may be slower, see docs/explanation/performance.md."""
    tune: Literal["on", "off"] = "on"
    """off: plain PyTorch to compare with: its own allocator, dropout and threads; fp32 if precision is auto."""


class TrainingRuntimeConfig(RuntimeConfig):
    """The hardware, how much of it is used, and how a batch is split over it."""

    shards: int = Field(0, ge=0, le=1024)
    """Parts of a batch that train in parallel, of 16 windows or more; 0: one for each core (or OMP_NUM_THREADS)."""
