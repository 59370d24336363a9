"""
What vlmcs can be told, and what C{kmsproto probe} calls it: one table, for the documentation and for the tests.

Each row has a sample, and the tests run it, so that nobody has to take the table's word for it.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """
    One thing that vlmcs can be told.

    @ivar option: As vlmcs has it.
    @ivar meaning: What it does, in our words.
    @ivar ours: The long name here; or nothing for what is no option.
    @ivar difference: What is different here.
    @ivar sample: Arguments to try it with, C{TARGET} for the host and C{FILE} for a file that is not there; a host that
        is in order grants them with status 0.
    """

    option: str
    meaning: str
    ours: str
    difference: str
    sample: tuple[str, ...]


#: All of vlmcs's help.
ROWS = (
    Row("HOST[:PORT]", "the host to ask", "", "", ("TARGET",)),
    Row("[V6]:PORT", "the same by IPv6 address", "", "", ("TARGET",)),
    Row(
        ".DOMAIN",
        "the hosts that DNS names for a domain",
        "",
        "``--nameserver`` asks another name server",
        (),
    ),
    Row("``-`` (a hyphen)", "the hosts of this machine's own domain", "", "", ()),
    Row("no host", "this machine", "", "", ()),
    Row(
        "-l",
        "the product to ask for",
        "--product",
        "also by name, by the beginning of it, or by GUID; the default is Windows 10/11 Enterprise",
        ("TARGET", "-l", "1"),
    ),
    Row("-4", "protocol version 4", "--protocol 4", "", ("TARGET", "-4")),
    Row("-5", "protocol version 5", "--protocol 5", "", ("TARGET", "-5")),
    Row("-6", "protocol version 6", "--protocol 6", "", ("TARGET", "-6")),
    Row(
        "-K",
        "any protocol version, also one that does not exist",
        "--protocol",
        "",
        ("TARGET", "-K", "6.0"),
    ),
    Row("-i", "IP version 4 or 6", "--ip-version", "", ("TARGET", "-i", "FAMILY")),
    Row(
        "-j",
        "an external file of products",
        "--kms-data",
        "TOML too; it extends the products that are built in",
        ("TARGET", "-j", "KMD"),
    ),
    Row("-?", "shows the help", "--help", "``-h`` too", ("-?",)),
    Row("-e", "shows examples", "--examples", "", ("-e",)),
    Row(
        "-x",
        "lists the products",
        "--list-products",
        "``kmsproto products`` searches and shows them",
        ("-x",),
    ),
    Row(
        "-d",
        "a NetBIOS name instead of a DNS name as workstation",
        "--netbios-name",
        "made of this machine's name, not drawn at random",
        ("TARGET", "-d"),
    ),
    Row("-V", "shows the version", "--version", "", ("-V",)),
    Row(
        "-v",
        "tells more",
        "--verbose",
        "explains every field that was sent and received, and every check",
        ("TARGET", "-v"),
    ),
    Row(
        "-a",
        "the application id",
        "--application-id",
        "",
        ("TARGET", "-a", "55c92734-d682-4d71-983e-d6ec3f16059f"),
    ),
    Row(
        "-s",
        "the activation (SKU) id",
        "--sku-id",
        "one of the catalogue brings its product along",
        ("TARGET", "-s", "73111121-5638-40f6-bc11-f1d7b0d64300"),
    ),
    Row(
        "-k",
        "the KMS id",
        "--kms-id",
        "one of the catalogue brings a product along",
        ("TARGET", "-k", "58e2134f-8e11-4d17-9cb2-91069c151148"),
    ),
    Row(
        "-c",
        "the client machine id",
        "--client-machine-id",
        "without it, it is made of this machine's name and not drawn at random, so that a host's"
        " table of clients does not fill",
        ("TARGET", "-c", "f0f0f0f0-0000-4000-8000-000000000001"),
    ),
    Row(
        "-o",
        "the previous client machine id",
        "--previous-client-machine-id",
        "",
        ("TARGET", "-o", "f0f0f0f0-0000-4000-8000-000000000002"),
    ),
    Row(
        "-w",
        "the workstation name",
        "--workstation",
        "without it, it is this machine's name",
        ("TARGET", "-w", "lab-7.example.com"),
    ),
    Row("-r", "the required number of clients", "--required-clients", "", ("TARGET", "-r", "5")),
    Row(
        "-n",
        "the number of requests",
        "--requests",
        "one by default; ``--charge`` asks until the host has counted enough clients, which is"
        " what vlmcs does without ``-n``",
        ("TARGET", "-n", "3"),
    ),
    Row("-m", "claims to be a virtual machine", "--virtual-machine", "", ("TARGET", "-m")),
    Row(
        "-G",
        "writes the host's ePIDs and hardware ids into a file",
        "--write-epids",
        "as TOML, or for vlmcsd if the name ends in ``.ini``; ``--force`` overwrites",
        ("TARGET", "-G", "FILE"),
    ),
    Row(
        "-T",
        "a connection for each request",
        "--fresh-connections",
        "``--at-once`` makes several at a time",
        ("TARGET", "-T", "-n", "2"),
    ),
    Row("-N", "NDR64 on or off", "--ndr64", "", ("TARGET", "-N", "0")),
    Row(
        "-B",
        "negotiation of bind-time features on or off",
        "--bind-time-features",
        "",
        ("TARGET", "-B", "0"),
    ),
    Row(
        "-t",
        "the licence status",
        "--licence-status",
        "also by name",
        ("TARGET", "-t", "5"),
    ),
    Row(
        "-g",
        "the minutes of the binding expiration",
        "--binding-expiration",
        "the default is 0, not 43200",
        ("TARGET", "-g", "1440"),
    ),
    Row(
        "-P",
        "ignores priority and weight of SRV records",
        "--ignore-order",
        "",
        ("TARGET", "-P"),
    ),
    Row("-p", "no multiplexing", "--no-multiplexing", "", ("TARGET", "-p")),
)


def render_table() -> str:
    """
    Write the table, as a list-table of reStructuredText.
    """
    lines = [
        ".. Made from kmsproto/cli/vlmcs.py by ``kmsproto probe --vlmcs-table``.",
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "",
        "   * - vlmcs",
        "     - what it does",
        "     - ``kmsproto probe``",
        "     - different here",
    ]
    for row in ROWS:
        is_option = row.option.startswith("-")
        plain = "`" in row.option or " " in row.option
        letter = row.option if plain else f"``{row.option}``"
        ours = f"``{row.option}``, ``{row.ours}``" if is_option else "the same"
        cells = (letter, row.meaning, ours, row.difference)
        lines += [
            f"   {'*' if number == 0 else ' '} - {cell}".rstrip()
            for number, cell in enumerate(cells)
        ]
    return "\n".join(lines) + "\n"
