"""
The documentation, as far as it can be checked without building it: what is made from something else is up to date, what
is said about bytes, settings and products is what the code says, and every page leads somewhere.

The commands in it are run by L{tests.integration.test_documentation}, and the programs by
L{tests.integration.test_examples}.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli.main import COMMANDS
from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.envelopes import open_request, seal_request, seal_response
from kmsproto.kms.fields import Field, request_fields, response_fields
from kmsproto.kms.messages import ResponseBody
from kmsproto.kms.requests import make_request
from kmsproto.service.settings import SETTINGS
from kmsproto.service.tap import Options
from tests.golden import load_exchange

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

#: A line of an annotated page that has bytes.
_BYTES = re.compile(r"^   ([0-9a-f]{4})  ((?:[0-9a-f]{2,8} ?)+?)(?:  .*)?$")
#: Options of programs that are not ours, and those that both twistd and C{twistd kms} have.
_FOREIGN_OPTIONS = frozenset(
    {
        *("chroot", "gid", "help", "logfile", "logger", "nodaemon", "pidfile", "rundir", "syslog"),
        *("uid", "umask", "version"),
    }
)


def pages() -> list[Path]:
    """
    List the pages.
    """
    return sorted(DOCS.rglob("*.rst"))


def load_annotate() -> ModuleType:
    """
    Import what makes the annotated pages.
    """
    specification = importlib.util.spec_from_file_location("annotate", DOCS / "annotate.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Its dataclasses look there for what their annotations mean.
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def simple_table(page: str, heading: str) -> list[list[str]]:
    """
    Read the first simple table behind a heading of a page.

    @return: The cells of its rows; what is continued in further lines is left out.
    """
    text = (DOCS / page).read_text(encoding="utf-8")
    part = text[text.index(f"\n{heading}\n---") :]
    ruler = next(line for line in part.splitlines() if line.startswith("==="))
    columns = [(match.start(), match.end()) for match in re.finditer("=+", ruler)]
    return [
        [line[begin:end].strip() for begin, end in columns]
        for line in part.split(ruler)[2].splitlines()
        if line[:1].strip()
    ]


def list_table(page: str, name: str) -> list[list[str]]:
    """
    Read a list-table of a page.

    @return: The cells of its rows, the heading left out.
    """
    text = (DOCS / page).read_text(encoding="utf-8")
    body = text[text.index(f":name: {name}") :].split("\n\n", 1)[1]
    rows: list[list[str]] = []
    for line in body.splitlines():
        match = re.match(r"   (\* |  )- (.*)", line)
        if match is None:
            break
        if match[1] == "* ":
            rows.append([])
        rows[-1].append(match[2])
    return rows[1:]


class AnnotatedTests(SynchronousTestCase):
    """
    The recorded exchanges, byte by byte.
    """

    def setUp(self) -> None:
        """
        Import what makes them.
        """
        self.annotate = load_annotate()

    def test_up_to_date(self) -> None:
        """
        The pages are those that C{docs/annotate.py} makes, and there are no others.
        """
        there = {path.stem for path in (DOCS / "annotated").glob("*.rst")}
        self.assertEqual(there, set(self.annotate.TITLES))
        for name in self.annotate.TITLES:
            page = (DOCS / "annotated" / f"{name}.rst").read_text(encoding="utf-8")
            self.assertEqual(page, self.annotate.render_page(name), "run python docs/annotate.py")

    def blocks(self, name: str) -> Iterator[tuple[str, bytes]]:
        """
        Read the bytes back from a page.

        @return: For each block what stands before it, and its bytes.
        """
        page = (DOCS / "annotated" / f"{name}.rst").read_text(encoding="utf-8")
        *texts, last = page.split(".. code-block:: text\n\n")
        for before, block in zip(texts, [*texts[1:], last], strict=True):
            found = b""
            for line in block.splitlines():
                match = _BYTES.match(line)
                if match is not None:
                    self.assertEqual(int(match[1], 16), len(found), line)
                    found += bytes.fromhex(match[2])
            yield before, found

    def test_bytes(self) -> None:
        """
        What the blocks show is, byte for byte and without a gap, what was recorded; decrypted it is what is inside.
        """
        for name in self.annotate.TITLES:
            shown = list(self.blocks(name))
            travelled = [data for before, data in shown if "Decrypted" not in before[-200:]]
            self.assertEqual(travelled, [pdu.data for pdu in load_exchange(name)], name)
            decrypted = [data for before, data in shown if "Decrypted" in before[-200:]]
            for data in decrypted:
                self.assertEqual(data[:4], data[20:24], "the version inside is the one outside")
            self.assertEqual(len(decrypted), {"v4-full": 0, "refused-version": 2}.get(name, 4))

    def test_values(self) -> None:
        """
        What was opened by other means when it was recorded is what the pages say.
        """
        for name in ("v4-full", "v5-full", "v6-full"):
            page = (DOCS / "annotated" / f"{name}.rst").read_text(encoding="utf-8")
            for pdu in load_exchange(name):
                body: dict[str, Any] = pdu.opened.get("body", {})
                for key in ("client_machine_id", "sku_id", "kms_id", "workstation", "epid"):
                    self.assertIn(str(body.get(key, "")), page)
            self.assertNotIn("wrong", page)
            self.assertNotIn("undecoded", page)


class WireTests(SynchronousTestCase):
    """
    The tables of the wire format.
    """

    def setUp(self) -> None:
        """
        Seal a request and its answer in each version.
        """
        catalog = load_catalog()
        self.fields: dict[int, tuple[tuple[Field, ...], tuple[Field, ...]]] = {}
        for version in (4, 5, 6):
            body = make_request(
                catalog,
                catalog.product("Windows 10/11 Enterprise"),
                client_machine_id=UUID(int=1),
                workstation="lab",
                now=0.0,
                protocol=version,
            )
            sealed, _ = seal_request(body, bytes(range(16)))
            opened = open_request(sealed)
            answer = ResponseBody(
                0, version, "e" * 20, UUID(int=1), body.client_time, 50, 120, 10080
            )
            response = seal_response(
                opened, answer, salt=bytes(16), random=bytes(16), hardware_id=bytes(8)
            )
            self.fields[version] = (
                request_fields(sealed, None),
                response_fields(response, opened, None),
            )

    def test_request_body(self) -> None:
        """
        The body of a request is as the table has it.
        """
        fields = self.fields[4][0][:-1]
        self.assertEqual(
            [
                (int(row[0]), int(row[1]), row[2])
                for row in simple_table("wire.rst", "The body of a request")
            ],
            [(each.offset, each.size, each.name) for each in fields],
        )

    def offset(self, text: str, **lengths: int) -> int:
        """
        Compute an offset such as C{20 + b}.
        """
        return sum(lengths[part] if part in lengths else int(part) for part in text.split(" + "))

    def test_response_body(self) -> None:
        """
        The body of an answer is as the table has it.
        """
        size = 2 * 20 + 2
        fields = self.fields[4][1][:-1]
        self.assertEqual(
            [
                (self.offset(row[0], e=size), size if row[1] == "e" else int(row[1]), row[2])
                for row in simple_table("wire.rst", "The body of an answer")
            ],
            [(each.offset, each.size, each.name) for each in fields],
        )

    def test_proofs(self) -> None:
        """
        What surrounds the body in versions 5 and 6 is as the table has it, and in the versions that it says.
        """
        length = 44 + 2 * 20 + 2
        for version in (5, 6):
            fields = self.fields[version][1]
            expected = [
                (each.name, each.offset)
                for each in fields
                if not 20 <= each.offset < 20 + length and each.name != "padding"
            ]
            rows = [
                (row[2], self.offset(row[0], b=length))
                for row in simple_table("wire.rst", "Versions 5 and 6")
                if str(version) in row[3] and row[0] != "…" and row[2] != "body"
            ]
            rows[0:1] = [("minor version", 0), ("major version", 2)]
            self.assertEqual(rows, expected)


class FactsTests(SynchronousTestCase):
    """
    What the pages say about settings, commands and products.
    """

    def test_options(self) -> None:
        """
        Every option in a command that starts C{twistd kms} exists.
        """
        known = {setting.name for setting in SETTINGS} | _FOREIGN_OPTIONS
        seen = set()
        for path in [*pages(), ROOT / "README.rst"]:
            for line in path.read_text(encoding="utf-8").splitlines():
                if re.match(r" +(\$ )?(\.venv/bin/)?twistd3? ", line):
                    for option in re.findall(r" --([a-z][a-z0-9-]*)", line):
                        self.assertIn(option, known, f"{path.name}: {line}")
                        seen.add(option)
        self.assertGreater(len(seen), 8)

    def test_hosts(self) -> None:
        """
        Every command that starts a host has values that the host takes, but for files that are not here.
        """
        self.patch(Options, "environment", {"KMSPROTO_CONFIG": self.mktemp()})
        Path(Options.environment["KMSPROTO_CONFIG"]).write_text("")
        found = 0
        for path in [*pages(), ROOT / "README.rst"]:
            for line in path.read_text(encoding="utf-8").splitlines():
                match = re.match(r" +(?:\$ )?(?:.* )?twistd3? (?:.* )?kms (-[^#|]*)", line)
                if match is not None and not re.search(
                    r"-i |--config|…|--help|--version", match[1]
                ):
                    Options().parseOptions(shlex.split(match[1]))
                    found += 1
        self.assertGreater(found, 6)

    def test_settings_named(self) -> None:
        """
        Every option that an operator's page names in the text is one of the host, of twistd, or of a command.
        """
        known = {setting.name for setting in SETTINGS} | _FOREIGN_OPTIONS
        commands = {"check", "from-vlmcsd", "write-epids", "charge", "kmd", "log-file"}
        for name in (
            *("operators", "vlmcsd", "several-hosts", "nat", "deadlines", "counts"),
            *("strict-mode", "time", "host-builds", "security", "man-host"),
        ):
            text = (DOCS / f"{name}.rst").read_text(encoding="utf-8")
            for option in re.findall(r"``--([a-z][a-z0-9-]*)", text):
                if option not in commands:
                    self.assertIn(option, known, name)

    def test_keys_of_files(self) -> None:
        """
        Every example of a C{kms.toml} has tables and keys that there are.
        """
        keys = {(setting.section, setting.key) for setting in SETTINGS if setting.section}
        found = 0
        for path in pages():
            text = path.read_text(encoding="utf-8")
            for block in re.findall(r"\.\. code-block:: toml\n\n((?:   .*\n|\n)+)", text):
                section = ""
                for line in block.splitlines():
                    match = re.match(r"   (?:\[(\w+)\]|(\w+) = )", line)
                    if match is not None and match[1]:
                        section = match[1]
                    elif match is not None:
                        self.assertIn((section, match[2]), keys, path.name)
                        found += 1
        self.assertGreater(found, 4)

    def test_commands(self) -> None:
        """
        Every command of kmsproto that a page shows or names exists.
        """
        shown = re.compile(
            r"^   (?:\$ |\.venv/bin/)?kmsproto ([a-z][a-z-]+)\b|``kmsproto ([a-z][a-z-]+)(?:``| [A-Z.-])",
            re.MULTILINE,
        )
        found = set()
        for path in [*pages(), ROOT / "README.rst"]:
            for match in shown.finditer(path.read_text(encoding="utf-8")):
                self.assertIn(match[1] or match[2], COMMANDS, path.name)
                found.add(match[1] or match[2])
        self.assertGreater(len(found), 8)

    def test_host_builds(self) -> None:
        """
        The table of host builds has those that are known as KMS hosts, and what the catalogue says of them.
        """
        self.assertEqual(
            list_table("host-builds.rst", "host-builds"),
            [
                [
                    str(build.build),
                    build.name,
                    f"{build.platform_id:05}",
                    "yes" if build.uses_ndr64 else "no",
                ]
                for build in load_catalog().host_builds.values()
                if build.for_epid
            ],
        )

    def test_host_keys(self) -> None:
        """
        The table of host keys agrees with the catalogue, where that knows: each key is taken by the hosts that the
        table names, by none that is older, and activates what the table says.
        """
        catalog = load_catalog()
        rows = list_table("host-builds.rst", "host-keys")
        self.assertEqual(len(rows), 5)
        builds = {
            name.rpartition(" / ")[2].removeprefix("Windows "): build
            for build, name in ((each.build, each.name) for each in catalog.host_builds.values())
            if catalog.host_builds[build].for_epid
        }
        by_name = {csvlk.name: csvlk for csvlk in catalog.csvlks.values()}
        kms_ids = {
            **{
                f"S{name}": f"Windows Server {name}"
                for name in ("2025", "2022", "2019", "2016", "2012")
            },
            "S2012 R2": "Windows Server 2012 R2",
            "S2008 R2": "Windows Server 2008 R2 C (Datacenter)",
            "S2008": "Windows Server 2008 C (Datacenter)",
            "C11 LTSC 2024": "Windows 10/11 2024 (Volume)",
            "C10 LTSC and LTSB": "Windows 10 2016 (Volume)",
            "C10 LTSB 2015 and 2016": "Windows 10 2016 (Volume)",
            **dict.fromkeys(("C11", "C10", "C10 LTSB 2015"), "Windows 10/11 (Volume)"),
            "C8.1": "Windows 8.1 (Volume)",
            "C7": "Windows 7",
        }
        unknown = set()
        for key, hosts, servers, clients in rows[:4]:
            csvlk = by_name[key]
            able = [each for each in builds.values() if each not in csvlk.invalid_host_builds]
            taken = sorted((builds[host] for host in hosts.split(", ")), reverse=True)
            self.assertEqual(taken, [each for each in able if each <= taken[0]], key)
            if csvlk.kms_ids is None:
                unknown.add(key)
                continue
            names = {catalog.kms_ids[guid].name for guid in csvlk.kms_ids}
            said = [f"S{each}" for each in servers.split(", ") if each != "Semi-Annual Channel"]
            said += [f"C{each}" for each in clients.split(", ")]
            for each in said:
                self.assertIn(kms_ids[each], names, key)
            # And the other way round: what the table does not have is not activated.
            for each in {
                name for name in names if re.fullmatch(r"Windows Server \d{4}( R2)?", name)
            }:
                self.assertIn(each.removeprefix("Windows Server "), servers.split(", "), key)
            self.assertEqual("11 LTSC 2024" in clients, "Windows 10/11 2024 (Volume)" in names, key)
        self.assertEqual(unknown, {"Windows Server 2022"})

    def test_limits(self) -> None:
        """
        The defaults in the table of limits are those of the settings.
        """
        defaults = {f"``--{setting.name}``": setting.default for setting in SETTINGS}
        rows = simple_table("security.rst", "What strangers can do to it")
        self.assertEqual(len(rows), 5)
        for option, default, _ in rows:
            self.assertEqual(
                default.removesuffix(" seconds").replace("any", "None"), str(defaults[option])
            )


class PagesTests(SynchronousTestCase):
    """
    Every page can be reached, and reaches what it names.
    """

    def test_reachable(self) -> None:
        """
        Every page is in a table of contents.
        """
        listed = {"index"}
        for path in pages():
            text = path.read_text(encoding="utf-8")
            folder = path.parent.relative_to(DOCS).as_posix()
            for tree in re.findall(r"\.\. toctree::\n((?:   .*\n|\n)+)", text):
                for entry in re.findall(r"^   ([\w/-]+)$", tree, re.MULTILINE):
                    listed.add(entry if folder == "." else f"{folder}/{entry}")
        included = {
            name
            for path in pages()
            for name in re.findall(r"\.\. include:: (\S+)\.rst", path.read_text(encoding="utf-8"))
        }
        there = {path.relative_to(DOCS).with_suffix("").as_posix() for path in pages()}
        self.assertEqual(there - listed - included, set())
        self.assertEqual(listed - there, set())

    def test_links(self) -> None:
        """
        Every page that another one links to exists.
        """
        for path in pages():
            text = path.read_text(encoding="utf-8")
            for target in re.findall(r":doc:`(?:[^`<]*<)?([\w./-]+)>?`", text):
                self.assertTrue((path.parent / f"{target}.rst").is_file(), f"{path.name}: {target}")

    def test_examples_shown(self) -> None:
        """
        Every program among the examples is shown on a page, from a line that it has.
        """
        shown = set()
        for path in pages():
            text = path.read_text(encoding="utf-8")
            for name, after in re.findall(
                r"\.\. literalinclude:: (\S+)\n(?:   :start-after: (.*)\n)?", text
            ):
                program = (path.parent / name).read_text(encoding="utf-8")
                self.assertIn(after, program, name)
                shown.add(Path(name).name)
        programs = {path.name for path in (DOCS / "examples").glob("*.py")}
        self.assertEqual(programs - shown, set())

    def test_json(self) -> None:
        """
        Objects that are shown as JSON are JSON.
        """
        for path in pages():
            text = path.read_text(encoding="utf-8")
            for block in re.findall(r"\.\. code-block:: json\n\n((?:   .*\n|\n)+)", text):
                self.assertIsInstance(json.loads(block), dict)
