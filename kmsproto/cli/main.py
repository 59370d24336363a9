"""
The C{kmsproto} command itself: the names of its commands, and where each is found.

A command is imported when it is run or when its help is wanted, so that nobody waits for what other commands need.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from kmsproto import __version__
from kmsproto.cli.usage import Group
from kmsproto.kms.rijndael import IMPLEMENTATION
from kmsproto.net.quoting import tolerate

#: The commands; each is the function of its own name in the module of that name in this package.
COMMANDS = (
    "audit",
    "bench",
    "catalog",
    "check",
    "completion",
    "config",
    "decode",
    "discover",
    "dns",
    "explain",
    "probe",
    "products",
    "serve-socket",
)


class LazyGroup(Group):
    """
    A group whose commands are imported when they are wanted.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """
        Name the commands.
        """
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """
        Import a command.
        """
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(import_module(f"kmsproto.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
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
