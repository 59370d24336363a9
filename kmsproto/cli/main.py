"""
The C{kmsproto} command itself.
"""

from __future__ import annotations

import sys

import click

from kmsproto import __version__
from kmsproto.cli.catalog import catalog
from kmsproto.cli.config import config
from kmsproto.cli.probe import probe
from kmsproto.cli.serve_socket import serve_socket
from kmsproto.kms.rijndael import IMPLEMENTATION
from kmsproto.net.quoting import tolerate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    __version__,
    prog_name="kmsproto",
    message=f"%(prog)s, version %(version)s (cipher: {IMPLEMENTATION})",
)
def main() -> None:
    """
    Tools for KMS (Key Management Service) hosts.

    They grant no licence: whoever activates products must own the volume licences for them.
    """
    tolerate(sys.stdout)


for command in (catalog, config, probe, serve_socket):
    main.add_command(command)
