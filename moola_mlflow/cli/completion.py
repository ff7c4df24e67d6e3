"""The script that completes ``moola`` in bash. It holds every word, so that pressing a key starts no process."""

from __future__ import annotations

from moola_mlflow.cli.entry_points import ENTRY_POINTS
from moola_mlflow.core import every_key

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
    [[ $word == *.* ]] && keys="$keys {dotted}"
    COMPREPLY=($(compgen -W "$keys --help" -- "$word"))
    [[ ${{COMPREPLY[0]}} == *. ]] && compopt -o nospace 2>/dev/null
}}
complete -o default -F _moola moola
"""


def completion_script() -> str:
    """Return the script.

    It offers a section's dotted keys only once a dot is typed: a list of two hundred keys helps nobody.
    """
    dotted = sorted(every_key())
    sections = " ".join(sorted({f"--{key.split('.')[0]}." for key in dotted}))
    cases = [
        f'        {name}) keys="{" ".join(f"--{key}" for key in entry.parameters)} {sections}" ;;'
        for name, entry in ENTRY_POINTS.items()
    ]
    return TEMPLATE.format(
        names=" ".join([*ENTRY_POINTS, "completion", "help"]),
        cases="\n".join(cases),
        dotted=" ".join(f"--{key}" for key in dotted),
    )
