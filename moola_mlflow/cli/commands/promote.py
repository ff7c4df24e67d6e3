"""promote: check the gates of a registered version and move an alias to it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from moola_mlflow.core import GateError, Interrupts, PromoteKeys, UserError, metric_name
from moola_mlflow.evaluation import (
    Gate,
    all_gates_passed,
    gate_reasons,
    gates_markdown,
    gates_summary,
    gates_table,
    lowered_limits,
    missed_gates,
)
from moola_mlflow.tracking import (
    CANDIDATE,
    CHAMPION,
    PREVIOUS,
    Artifacts,
    Metrics,
    Model,
    Run,
    Tags,
    VersionTags,
    check_alias,
    check_candidate,
    check_serves,
    fetch_version,
    find_model,
    judge_card,
    may_go_back,
    move_alias,
    registering_run,
    run_name,
)


def run(
    config: PromoteKeys,
    preset: str,
    interrupts: Interrupts,
    model: str = "moola-detector",
    version: str = CANDIDATE,
    alias: str = CHAMPION,
    force: str = "false",
) -> None:
    """Check the gates of a version, load it as it will be served, then move the alias and note who moved it."""
    with Run.start("promote", run_name("promote", model, 0, config.project.name), config.tracking.experiment) as active:
        active.config(config)
        given = {"model": model, "version": version, "alias": alias, "force": force}
        active.params(given)
        active.tags({key: given[key] for key in ("model", "version", "alias")})
        forced = _truth(force)
        check_alias(alias)
        found = find_model(model)
        to = found.resolve(version)
        print(f"Version: models:/{model}/{to}" + (f" ({version} now)" if version != to else ""), flush=True)
        if version == CANDIDATE:
            check_candidate(model, to)
        before = found.aliases.get(alias)
        back = may_go_back(found, alias, to)
        active.tags({"version": to, Tags.FROM: before or "none", Tags.TO: to})
        if back:
            active.tags({Tags.ROLLBACK: "true"})
        with tempfile.TemporaryDirectory() as scratch:
            folder, card = fetch_version(model, to, Path(scratch))
            checked = judge_card(card, config.gates)
            _log(active, checked)
            if not (all_gates_passed(checked) or forced or back):
                raise GateError(_refusal(found, to, alias, checked))
            check_serves(folder, card, f"{model} version {to}")
        outcome = gates_summary(checked)
        if not all_gates_passed(checked):
            outcome = f"{'rolled back' if back else 'forced'}: {outcome}"
        elif softer := lowered_limits(config.gates):
            outcome += f" under lowered limits: {', '.join(softer)}"
        with interrupts.deferred():  # two aliases move together
            before = move_alias(found, alias, to, {VersionTags.PROMOTED_BY: active.id, VersionTags.GATES: outcome})
        said = _said(found, alias, before, to)
        active.note(_note(said, found, alias, before, to, checked, outcome))
        print("\n".join([said, f"Gates {outcome}", *(f"- {text}" for text in gate_reasons(checked))]), flush=True)


def _truth(force: str) -> bool:
    if force.lower() not in ("true", "false"):
        raise UserError(f"force='{force}'; allowed: true, false")
    return force.lower() == "true"


def _log(active: Run, checked: list[Gate]) -> None:
    rows = gates_table(checked)
    active.json(rows, Artifacts.GATES)
    active.metrics(
        {f"{Metrics.GATE}{metric_name(row['gate'])}": row["value"] for row in rows if row["value"] is not None}
    )


def _refusal(model: Model, to: str, alias: str, checked: list[Gate]) -> str:
    missed = missed_gates(checked)
    held = f"stays at version {model.aliases[alias]}" if alias in model.aliases else "stays unset"
    return "\n".join(
        [
            f"{model.name} version {to} misses {len(missed)} of {len(checked)} gates, {alias} {held}:",
            "",
            *(f"- {text}" for text in missed),
            "",
            "force=true promotes it all the same, and says so on the version",
        ]
    )


def _said(model: Model, alias: str, before: str | None, to: str) -> str:
    if before == to:
        return f"{model.name}: {alias} is version {to} already, no alias moved"
    if before is None:
        return f"{model.name}: {alias} is now version {to}, it was unset before"
    kept = f"; {PREVIOUS} is now version {before}" if alias == CHAMPION else ""
    return f"{model.name}: {alias} moved from version {before} to version {to}{kept}"


def _note(said: str, model: Model, alias: str, before: str | None, to: str, checked: list[Gate], outcome: str) -> str:
    back = ""
    if before not in (None, to):
        which = PREVIOUS if alias == CHAMPION else f"{before} -P alias={alias}"
        back = f"\n\nBack: `mlflow run . -e promote -P model={model.name} -P version={which}`"
    return (
        f"**{said}.**\n\nGates {outcome}.\n\n{gates_markdown(checked)}\n\n"
        f"Version {to} was registered by run `{registering_run(model, to)}`; it was loaded as it is served "
        f"and read one synthetic window.{back}\n"
    )
