"""Completion of ``moola`` in bash: a script that is made once and asks nothing when a key is pressed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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


def bash(commands: Mapping[str, Iterable[str]], dotted: Iterable[str]) -> str:
    """Return the script for commands with their short parameters, and the dotted keys that each of them takes.

    Dotted keys are offered once a dot is there, or their section alone: a list of two hundred helps nobody.
    """
    dotted = sorted(dotted)
    sections = " ".join(sorted({f"--{key.split('.')[0]}." for key in dotted}))
    cases = [
        f'        {name}) keys="{" ".join(f"--{key}" for key in keys)} {sections}" ;;'
        for name, keys in commands.items()
    ]
    return TEMPLATE.format(
        names=" ".join([*commands, "completion", "help"]),
        cases="\n".join(cases),
        dotted=" ".join(f"--{key}" for key in dotted),
    )
