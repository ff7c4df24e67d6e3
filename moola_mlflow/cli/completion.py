"""The script that completes ``moola`` in bash. It holds every word, so that pressing a key starts no process."""

from __future__ import annotations

from collections.abc import Iterable

from moola_mlflow.cli.entry_points import ENTRY_POINTS
from moola_mlflow.cli.parser import configurations_of
from moola_mlflow.core import dotted_keys

TEMPLATE = """\
# Completion of moola in bash, for this shell: source <(moola completion)
# For every shell: moola completion > ~/.local/share/bash-completion/completions/moola
_moola() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} keys=""
    COMPREPLY=()
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "{names}" -- "$word"))
        return
    fi
    [[ $word == -* ]] || return  # a value: bash completes file names
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
    COMPREPLY=($(compgen -W "$keys --help" -- "$word"))
    [[ ${{COMPREPLY[0]}} == *. ]] && compopt -o nospace 2>/dev/null
}}
complete -o default -F _moola moola
"""


def completion_script() -> str:
    """Return the script.

    It offers the dotted keys of a section only after its dot is typed: nobody reads a list of a hundred keys.
    """
    return TEMPLATE.format(
        names=" ".join([*ENTRY_POINTS, "completion", "help", "presets"]), cases="\n".join(map(_case, ENTRY_POINTS))
    )


def _case(name: str) -> str:
    """Return the line of one command: its short parameters and sections, and its dotted keys after a dot."""
    dotted = sorted({key for keys in configurations_of(name) for key in dotted_keys(keys)})
    sections = sorted({f"{key.split('.')[0]}." for key in dotted})
    short = _options([*ENTRY_POINTS[name].parameters, *sections])
    return f'        {name}) keys="{short}"; [[ $word == *.* ]] && keys="$keys {_options(dotted)}" ;;'


def _options(keys: Iterable[str]) -> str:
    return " ".join(f"--{key}" for key in keys)
