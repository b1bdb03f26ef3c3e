"""`uproxy completion`."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

_VARIABLE: Final = "_UPROXY_COMPLETE"
"""The variable by which a shell asks for completions. click derives the same name."""

_BASH: Final = """\
_uproxy_completion() {
    local -a words=()
    local word before='' type value
    # bash takes ":" and "=" for ends of words, also those of URLs and after flags.
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if ((${#words[@]})) && [[ $word == [:=]* || $before == *[:=] ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
        before=$word
    done
    COMPREPLY=()
    local IFS=$'\\n'
    while IFS=, read -r type value; do
        case $type in
            plain) COMPREPLY+=("$value") ;;
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
        esac
    done < <(COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) \\
        _UPROXY_COMPLETE=bash_complete "$1")
}
complete -o nosort -F _uproxy_completion uproxy
"""
"""That of click cannot complete anything after `--url http://127.0.0.1:10249`, and starts another
bash to find out its version, each time that it is printed."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands, flags and names in your shell.

    Names of Services and namespaces come from the running uproxy.

    \b
      bash 4.4 or newer, in ~/.bashrc:
        eval "$(uproxy completion bash)"
      zsh, in ~/.zshrc after compinit:
        eval "$(uproxy completion zsh)"
      fish, in ~/.config/fish/config.fish:
        uproxy completion fish | source
    """
    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(ctx.find_root().command, {}, "uproxy", _VARIABLE)
    click.echo(_BASH if shell == "bash" else made.source(), nl=shell != "bash")
