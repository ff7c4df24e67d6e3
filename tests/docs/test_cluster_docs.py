"""The jobs that docs/how-to/sweep.md shows for clusters are well formed, and start workers with words that parse."""

from __future__ import annotations

import re
import shlex

import yaml
from documented import files
from paths import ROOT

from moola_mlflow.cli.parser import parse

PAGE = "docs/how-to/sweep.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
SCRIPT = files(PAGE)["sweep_job.sh"]


def words_of(given: list[str]) -> list[str]:
    """The words of the sweep that the script starts with some parameters."""
    line = next(line for line in SCRIPT.splitlines() if line.startswith("exec moola sweep "))
    words = shlex.split(line.replace('"$COORDINATION"', "postgresql://moola@db/moola"))
    return [*words[3:-1], *given]


def test_the_job_of_kubernetes_runs_the_script_once_for_each_index() -> None:
    (text,) = (block for block in re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.M | re.S) if "kind: Job" in block)
    spec = yaml.safe_load(text)["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
    shell, script, *given = container["command"]
    assert (shell, script.rpartition("/")[2]) == ("sh", "sweep_job.sh")
    assert {variable["name"] for variable in container["env"]} == {"MLFLOW_TRACKING_URI", "COORDINATION"}
    parse("sweep", words_of(given))


def test_the_array_of_slurm_gives_the_script_words_that_the_sweep_knows() -> None:
    (line,) = re.findall(r"`sbatch ([^`]+)`", TEXT)
    words = shlex.split(line)
    parse("sweep", words_of(words[words.index("sweep_job.sh") + 1 :]))
