"""
C{kmsproto completion}: the script that lets a shell complete commands, options and names of products.

The script is click's own, and asks C{kmsproto} itself what fits.  It is written for words without blanks or commas,
which names of products have; what that takes to keep them whole is put right here (L{_CORRECTIONS}).
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

#: The shells.
SHELLS = ("bash", "zsh", "fish")
#: The variable by which the script asks.
COMPLETE_VARIABLE = "_KMSPROTO_COMPLETE"
_PROGRAM = "kmsproto"
#: What click's scripts have, and what must stand there.
_CORRECTIONS = (
    # bash: a backslash stands for itself, and no name is a pattern for names of files.
    ("read type value", "read -r type value"),
    ("COMPREPLY+=($value)", 'COMPREPLY+=("$value")'),
    # fish: only the first comma ends the type.
    ('string split "," $completion', 'string split -m 1 "," $completion'),
)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """
    Print the script that lets a shell complete kmsproto.

    For the shell that runs: eval "$(kmsproto completion bash)", or zsh; in fish: kmsproto completion fish | source.

    To keep it, put that line into ~/.bashrc or ~/.zshrc, or write the script into a file where the shell looks for it:

    \b
    bash  ~/.local/share/bash-completion/completions/kmsproto
    zsh   _kmsproto in a directory of $fpath
    fish  ~/.config/fish/completions/kmsproto.fish
    """
    from kmsproto.cli.main import main

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(main, {}, _PROGRAM, COMPLETE_VARIABLE)
    # Not its source(), which runs bash to see how old it is; whoever sources the script sees that too.
    text = script.source_template % script.source_vars()
    for theirs, ours in _CORRECTIONS:
        text = text.replace(theirs, ours)
    click.echo(text)
