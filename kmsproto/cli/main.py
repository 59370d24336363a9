"""
The C{kmsproto} command itself.
"""

from __future__ import annotations

import click

from kmsproto import __version__
from kmsproto.cli.probe import probe


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kmsproto")
def main() -> None:
    """
    Tools for KMS (Key Management Service) hosts.

    They grant no licence: whoever activates products must own the volume licences for them.
    """


main.add_command(probe)
