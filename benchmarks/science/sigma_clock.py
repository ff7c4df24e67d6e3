"""The published loss as a clock: how low H / (2 s^2) + log s can go in a number of steps, whatever the network learns.

    python -m benchmarks.science.sigma_clock

A network of a constant Huber H (0 is a perfect one) is scored by the published loss while only log s is learned, with
the project's optimiser and schedule: AdamW, lr 1e-3, five of twenty epochs of warm-up, cosine to a tenth.
"""

from __future__ import annotations

import math

import torch

from moola_mlflow.training.schedule import lr_factor

STEPS = (900, 2_000, 4_000, 8_700, 10_000)
HUBERS = (0.0, 1e-5, 2.75e-5, 1e-3, 1e-2)


def final_loss(huber: float, steps: int) -> float:
    """Return the loss after the steps. The best possible is 0.5 + 0.5 ln H, and -infinity for a perfect network."""
    log_sigma = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = torch.optim.AdamW([log_sigma], lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, steps, steps // 4, 0.1))
    for _ in range(steps):
        loss = huber / (2 * torch.exp(2 * log_sigma)) + log_sigma
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            log_sigma.clamp_(min=-6.0)
    return float((huber / (2 * torch.exp(2 * log_sigma)) + log_sigma).detach())


def main() -> None:
    print("| H of the network | RMSE | best possible loss | " + " | ".join(f"{n:,} steps" for n in STEPS) + " |")
    print("|---|---|---|" + "---|" * len(STEPS))
    for huber in HUBERS:
        best = f"{0.5 + 0.5 * math.log(huber):.2f}" if huber else "-6 (the clamp)"
        cells = " | ".join(f"{final_loss(huber, n):.2f}" for n in STEPS)
        print(f"| {huber:g} | {math.sqrt(2 * huber):.4f} | {best} | {cells} |")


if __name__ == "__main__":
    main()
