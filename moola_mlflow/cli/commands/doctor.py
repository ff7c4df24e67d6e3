"""doctor: check environment, store, runs and aliases. Say what to do, or do it."""

from __future__ import annotations

from contextlib import nullcontext

from moola_mlflow.core import Interrupts, NoKeys, TrainingError, UserError, is_launched
from moola_mlflow.tracking import Run, examine_store, run_name


def run(config: NoKeys, preset: str, interrupts: Interrupts, fix: str = "false") -> None:
    """Print a line for each check. With ``fix``, repair what needs no decision.

    Raises: TrainingError if something is left to do.
    """
    if fix not in ("true", "false"):
        raise UserError(f"fix='{fix}'; allowed: true | false")
    left = 0
    # It has a run only if the launcher made one: a check changes nothing in the store.
    with Run.start("doctor", run_name("doctor", "check", 0)) if is_launched() else nullcontext():
        for finding in examine_store():
            if not finding.cure:
                print(f"ok      {finding.what}", flush=True)
            elif fix == "true" and finding.fix:
                finding.fix()
                print(f"fixed   {finding.what}: {finding.cure}", flush=True)
            else:
                left += 1
                by_itself = " (or fix=true)" if finding.fix else ""
                print(f"WRONG   {finding.what}\n        cure: {finding.cure}{by_itself}", flush=True)
        if left:
            raise TrainingError(f"{left} things to do, listed above")
