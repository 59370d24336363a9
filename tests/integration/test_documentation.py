"""
The commands in the documentation, run as they stand there.

Every line of a shell example that runs C{kmsproto} is run in a directory with the files that the examples mention, on
a machine where C{kms.example.com} is a host of the test's own, and C{example.com} a domain whose name server is the
test's.  So no page can show an option that does not exist, or a command that fails.
"""

from __future__ import annotations

import gzip
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kmsproto.cli.main import COMMANDS
from kmsproto.kms.envelopes import seal_request
from tests.decode.traffic import Connection, capture, capture_ng, golden
from tests.integration.nameserver import NameServer, a, srv
from tests.integration.processes import PATIENCE, TwistdCase, environment
from tests.net.wiring import SALT, body

ROOT = Path(__file__).resolve().parent.parent.parent

_BLOCK = re.compile(r"^\.\. code-block:: sh\n\n((?:   .*\n|\n)+)", re.MULTILINE)
#: What an example may end with beside 0, by a part of it: it shows what is wrong with something.
_STATUSES = {"discover": (0, 1), "example.org": (3,)}


def whole_commands(lines: Iterable[str]) -> Iterator[str]:
    """
    Join lines until all quotes in them are closed.
    """
    begun = ""
    for line in lines:
        begun = f"{begun}\n{line.strip()}" if begun else line.strip()
        try:
            shlex.split(begun, comments=True)
        except ValueError:
            continue
        yield begun
        begun = ""
    yield begun


def examples() -> Iterator[tuple[str, str]]:
    """
    Find the commands.

    @return: The page, and the command.
    """
    for path in [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]:
        for block in _BLOCK.finditer(path.read_text(encoding="utf-8")):
            for line in whole_commands(block[1].replace("\\\n", " ").splitlines()):
                command = line.strip().removeprefix(".venv/bin/")
                # What stands in a loop of the shell is not a command by itself; what jq makes of JSON is its affair.
                if (
                    re.match(r"((tcpdump|xxd|gzip) .*\| *)?kmsproto ", command)
                    and "$" not in command
                ):
                    yield path.name, re.sub(r"\s+#.*|\| *(jq|source)\b.*", "", command)


class ExamplesTests(TwistdCase):
    """
    Run them all.
    """

    timeout = 600

    def setUp(self) -> None:
        """
        Start a host and a name server, and put the command and the files in place.
        """
        super().setUp()
        self.port = self.start("--port", "0").port()
        nameserver = NameServer(
            srv("_vlmcs._tcp.example.com", "kms.example.com", self.port),
            a("kms.example.com", "127.0.0.1"),
        )
        self.addCleanup(nameserver.stop)
        self.nameserver = nameserver.address
        programs = self.directory / "bin"
        programs.mkdir()
        self.write_program(
            programs / "kmsproto",
            "import sys; sys.argv[0] = 'kmsproto'; from kmsproto.cli.main import main; main()",
        )
        # There is nothing to listen to: what would be captured is there already.
        self.write_program(
            programs / "tcpdump",
            "import sys; sys.stdout.buffer.write(open('office.pcap', 'rb').read())",
        )
        self.write_program(
            programs / "xxd", "import sys; print(open(sys.argv[1], 'rb').read().hex(' '))"
        )
        self.write_samples()

    def write_samples(self) -> None:
        """
        Write the files that the examples mention.
        """
        connection = Connection()
        frames = connection.frames(connection.whole(golden("v6-full")))
        (self.directory / "office.pcap").write_bytes(capture(frames))
        (self.directory / "office.pcapng").write_bytes(capture_ng(frames))
        (self.directory / "office.pcap.gz").write_bytes(gzip.compress(capture(frames)))
        request, _ = seal_request(body(), SALT)
        (self.directory / "request.bin").write_bytes(request)

    def write_program(self, path: Path, code: str) -> None:
        """
        Write a program.
        """
        path.write_text(f"#!{sys.executable}\n{code}\n")
        path.chmod(0o755)

    def adapted(self, command: str) -> str:
        """
        Put the addresses of the test in the place of those of the example.
        """
        command = re.sub(
            r"(?<![\w.])(kms\d?\.example\.com|127\.0\.0\.1|192\.0\.2\.\d+)(:\d+)?(?![\w.])",
            f"[::1]:{self.port}" if "-i 6" in command else f"127.0.0.1:{self.port}",
            command,
        )
        command = re.sub(r"--duration \d+", "--duration 1", command)
        if re.search(r"\b(probe|check|audit|discover)\b.*[ .]example\.com", command):
            command = re.sub(r"--nameserver \S+", "", command) + f" --nameserver {self.nameserver}"
        elif re.fullmatch(r"kmsproto (probe|audit)( -\S+)*", command):
            command += f" 127.0.0.1:{self.port}"
        return command

    def run_example(self, command: str) -> subprocess.CompletedProcess[str]:
        """
        Run one.
        """
        variables = environment(self.directory)
        variables["PATH"] = f"{self.directory / 'bin'}:{variables['PATH']}"
        variables["PYTHONPATH"] = f"{ROOT}:{variables.get('PYTHONPATH', '')}"
        return subprocess.run(
            ["bash", "-c", self.adapted(command)],
            cwd=self.directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )

    def test_commands(self) -> None:
        """
        Every one ends well, and says something or writes a file.
        """
        commands = list(dict.fromkeys(examples()))
        self.assertGreater(len(commands), 30)
        with ThreadPoolExecutor(2) as pool:
            results = pool.map(lambda each: self.run_example(each[1]), commands)
            problems = [
                f"{page}: {self.adapted(command)}: status {result.returncode}\n{result.stdout}\n{result.stderr}"
                for (page, command), result in zip(commands, results, strict=True)
                if not self.is_well(command, result)
            ]
        self.assertEqual(problems, [], "\n\n".join(problems))

    def is_well(self, command: str, result: subprocess.CompletedProcess[str]) -> bool:
        """
        Tell whether a command did what a page promises.
        """
        allowed = next((each for part, each in _STATUSES.items() if part in command), (0,))
        said = result.stdout + result.stderr
        is_clean = "Traceback" not in said and "Unhandled" not in said
        has_result = bool(result.stdout) or ">" in command or "-G" in command
        return result.returncode in allowed and is_clean and has_result

    def test_help(self) -> None:
        """
        The help of every command has the short spelling too.
        """
        with ThreadPoolExecutor(2) as pool:
            for result in pool.map(lambda name: self.run_example(f"kmsproto {name} -h"), COMMANDS):
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertIn("Usage: kmsproto ", result.stdout)

    def test_words(self) -> None:
        """
        Every example can be taken apart as a shell does.
        """
        for page, command in examples():
            with self.subTest(page=page):
                self.assertTrue(shlex.split(command))
