"""
C{kmsproto decode}: what it prints, and its exit status.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from click.testing import Result
from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli import decode as module
from kmsproto.cli import decode_report
from kmsproto.cli.decode import decode, describe_counts
from kmsproto.cli.main import main
from kmsproto.decode.decoder import Counts
from kmsproto.decode.events import Conversation, Event, Remark
from kmsproto.kms.envelopes import seal_request, seal_response
from tests.cli.running import runner
from tests.decode.dissecting import ANSWERED, ASKED
from tests.decode.test_decoder import ALL, frames_of
from tests.decode.test_dumps import xxd
from tests.decode.traffic import capture
from tests.kms.samples import (
    HARDWARE_ID,
    RANDOM,
    REQUEST,
    REQUEST_SALT,
    RESPONSE,
    RESPONSE_SALT,
)

#: Seven conversations in which nothing is wrong, with ten activations.
GOOD = capture(frames_of(ALL[:-1]))
#: The same, and one in a version that does not exist.
MIXED = capture(frames_of(ALL))


class DecodeCase(SynchronousTestCase):
    """
    The command, and something to read.
    """

    def run_on(self, data: bytes, *arguments: str) -> Result:
        """
        Run it with something on its standard input.
        """
        return runner().invoke(decode, list(arguments), input=data)

    def file(self, data: bytes) -> str:
        """
        Write a file.
        """
        path = Path(self.mktemp())
        path.write_bytes(data)
        return str(path)


class TextTests(DecodeCase):
    """
    Text.
    """

    def test_everything(self) -> None:
        """
        Each PDU and call is shown with every field, and what there was is counted.
        """
        result = self.run_on(GOOD)
        self.assertEqual(result.exit_code, 0, result.output)
        text = result.stdout
        self.assertIn("#1  192.0.2.1:50000 -> 192.0.2.9:1688  bind, call 2, 160 bytes", text)
        self.assertIn("call 2 for Windows 10/11 Enterprise, version 6: granted", text)
        self.assertIn("     236   16  HMAC                       77f245ca41d4", text)
        self.assertIn("  KMS response\n", text)
        checks = {line for line in text.splitlines() if "checks passed" in line and "HMAC" in line}
        self.assertEqual(len(checks), 1)
        self.assertTrue(checks.pop().endswith("HMAC, client machine id, client time"))
        self.assertNotIn("\x1b", text)
        self.assertNotIn("problem", text)
        self.assertEqual(
            result.stderr,
            "82 packets, 7 TCP connections (7 of DCE/RPC, 7 of KMS), 10 calls (10 granted),"
            " 20 other PDUs, 0 problems\n",
        )

    def test_file(self) -> None:
        """
        A file is as good as the standard input, with or without a hyphen for it.
        """
        result = runner().invoke(decode, [self.file(GOOD)])
        self.assertEqual(result.exit_code, 0)
        self.assertEqual(result.stdout, self.run_on(GOOD, "-").stdout)
        self.assertEqual(result.stdout, self.run_on(GOOD).stdout)

    def test_problems(self) -> None:
        """
        What is wrong is shown with the call, and the status says so.
        """
        result = self.run_on(MIXED)
        self.assertEqual(result.exit_code, 1)
        self.assertIn(
            "  problem: the request is malformed: protocol version 7.0 is not supported",
            result.stdout,
        )
        self.assertIn("2 problems", result.stderr)

    def test_failed_checks(self) -> None:
        """
        Checks that failed are named.
        """
        _, opened = seal_request(REQUEST, REQUEST_SALT)
        wrong = RESPONSE._replace(client_time=1)
        payload = seal_response(
            opened, wrong, salt=RESPONSE_SALT, random=RANDOM, hardware_id=HARDWARE_ID
        )
        result = self.run_on(ASKED + payload)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("  checks failed: HMAC, client time\n", result.stdout)
        self.assertIn("version 6: invalid", result.stdout)

    def test_remarks(self) -> None:
        """
        What is missing is noted, and is no problem.
        """
        result = self.run_on(ASKED, "--quiet")
        self.assertEqual((result.exit_code, result.stderr), (0, ""))
        answer = self.run_on(ANSWERED)
        self.assertEqual(answer.exit_code, 0)
        self.assertIn("  note: the answer cannot be verified without its request", answer.stdout)

    def test_cut(self) -> None:
        """
        That a capture was cut is a problem, but not on a live one, and what is whole is shown.
        """
        problem = "the capture ends in the middle of a frame: its last 60 bytes are lost (at byte "
        result = self.run_on(GOOD[:-10], "-s")
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(len(result.stdout.splitlines()), 11)
        self.assertIn(f"problem: {problem}", result.stdout)
        result = self.run_on(GOOD[:-10], "-s", "--live")
        self.assertEqual(result.exit_code, 0)
        self.assertEqual(len(result.stdout.splitlines()), 10)
        self.assertIn(f"note: {problem}", result.stderr)

    def test_control_characters(self) -> None:
        """
        What a peer chose cannot act on a terminal, in whatever form it is shown.
        """
        evil = REQUEST._replace(workstation="\x1b[2J\u202eevil \x9b\n")
        payload, _ = seal_request(evil, REQUEST_SALT)
        for arguments in ([], ["-s"], ["--json"], ["--json", "-s"]):
            result = self.run_on(payload, *arguments)
            self.assertEqual(result.exit_code, 0)
            for character in "\x1b\u202e\x9b":
                self.assertNotIn(character, result.stdout)
        self.assertIn(r"\x1b[2J\u202eevil \x9b\n", self.run_on(payload).stdout)

    def test_terminal(self) -> None:
        """
        On a terminal the same is shown in colours.
        """
        shown = io.StringIO()
        terminal = Console(file=shown, force_terminal=True, width=80, highlight=False, emoji=False)
        self.patch(decode_report, "console", lambda: terminal)
        result = self.run_on(MIXED)
        self.assertEqual(result.stdout, "")
        text = shown.getvalue()
        self.assertIn("\x1b[", text)
        self.assertIn("granted", text)
        plain = Console(file=io.StringIO(), force_terminal=False)
        self.assertFalse(plain.is_terminal)
        self.patch(decode_report, "console", lambda: plain)
        lines = self.run_on(MIXED).stdout.splitlines()
        self.assertEqual(len(text.splitlines()), len(lines))

    def test_markup(self) -> None:
        """
        What looks like markup of rich is text.
        """
        shown = io.StringIO()
        terminal = Console(file=shown, force_terminal=True, color_system=None, width=80)
        self.patch(decode_report, "console", lambda: terminal)
        payload, _ = seal_request(REQUEST._replace(workstation="[red]x[/]"), REQUEST_SALT)
        self.run_on(payload)
        self.assertIn("[red]x[/]", shown.getvalue())


class ListTests(DecodeCase):
    """
    C{--summary}.
    """

    def test_lines(self) -> None:
        """
        Each activation is a line, and problems follow it.
        """
        for option in ("-s", "--summary", "--lines"):
            result = self.run_on(MIXED, option)
            lines = result.stdout.splitlines()
            self.assertEqual(len(lines), 14)
            self.assertIn(
                '192.0.2.1:50002  192.0.2.9:1688  v6  "Windows 10/11 Enterprise"'
                "  11111111-2222-4333-8444-555555555555  desk-17.example.org  granted  50"
                "  03612-04919-003-594185-03-1035-14393.0000-2542026  12/12",
                lines[4],
            )
            self.assertTrue(lines[-1].startswith("  problem: the request is malformed"))

    def test_answers_alone(self) -> None:
        """
        Of an answer without its request all is listed that it tells by itself.
        """
        heard = [[each for each in said if each[0] == "host"] for said in ALL[2:3]]
        data = capture(frames_of(heard))
        line = self.run_on(data, "-s").stdout.splitlines()[0]
        self.assertIn(
            "  v6  -  11111111-2222-4333-8444-555555555555  -  granted  50"
            "  03612-04919-003-594185-03-1035-14393.0000-2542026  -",
            line,
        )
        document = json.loads(self.run_on(data, "--json", "-s").stdout.splitlines()[0])
        self.assertEqual(document["response"]["client_count"], 50)
        self.assertEqual(document["response"]["major_version"], 6)

    def test_other_problems(self) -> None:
        """
        Problems beside activations are lines too.
        """
        said = [("client", b"GET / HTTP/1.1\r\n\r\n")]
        result = self.run_on(capture(frames_of([said, ALL[0]])), "-s")
        self.assertEqual(result.exit_code, 1)
        self.assertIn(
            "  problem: 192.0.2.1:50000 <-> 192.0.2.9:1688  this is not DCE/RPC", result.stdout
        )
        broken = ALL[0][0][1]
        broken = broken[:24] + b"\xff" + broken[25:]
        result = self.run_on(capture(frames_of([[("client", broken)], ALL[0]])), "-s")
        self.assertIn("it is malformed", result.stdout)

    def test_errors_only(self) -> None:
        """
        Only what is wrong or was not granted is shown, if that is wanted.
        """
        result = self.run_on(MIXED, "-s", "--errors-only")
        lines = result.stdout.splitlines()
        self.assertEqual(len(lines), 4)
        self.assertIn("refused 0x8007000D", lines[0])
        self.assertEqual(self.run_on(GOOD, "--errors-only").stdout, "")
        self.assertEqual(self.run_on(GOOD, "--errors-only").exit_code, 0)


class JSONTests(DecodeCase):
    """
    C{--json}.
    """

    def test_lines(self) -> None:
        """
        Each line is a document, and the last one has the counts.
        """
        result = self.run_on(MIXED, "--json")
        documents = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual(result.exit_code, 1)
        kinds = [document["type"] for document in documents]
        self.assertEqual(kinds.count("call"), 12)
        self.assertEqual(kinds.count("pdu"), 24)
        self.assertEqual(documents[-1]["type"], "counts")
        self.assertEqual(documents[-1]["calls"], 12)
        self.assertEqual(documents[-1]["problems"], 2)
        self.assertIn("sections", documents[0])

    def test_summary(self) -> None:
        """
        With C{--summary} there are only calls, without their fields.
        """
        result = self.run_on(GOOD, "--json", "--summary")
        documents = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual([each["type"] for each in documents], ["call"] * 10 + ["counts"])
        self.assertNotIn("sections", documents[0])
        self.assertEqual(documents[0]["request"]["workstation"], "desk-17.example.org")

    def test_nothing(self) -> None:
        """
        Where there is nothing, the last line is a document that says so.
        """
        for data in (b"", b"\xff" * 1000, b"zz top", capture([bytes(60)])):
            result = self.run_on(data, "--json")
            documents = [json.loads(line) for line in result.stdout.splitlines()]
            self.assertEqual(result.exit_code, 1)
            self.assertEqual((documents[-1]["type"], documents[-1]["status"]), ("error", 1))
            self.assertIn(documents[-1]["problem"], result.stderr)


class OptionTests(DecodeCase):
    """
    The other options, and what cannot be read.
    """

    def test_nothing(self) -> None:
        """
        Where there is no KMS that is said, with what can be done, and the status is 1.
        """
        result = self.run_on(capture([bytes(60)]))
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        self.assertIn("decode: no KMS in it; 1 packet, 0 TCP connections", result.stderr)
        self.assertIn("passed over: 1 not IP; capture what goes", result.stderr)
        for empty in (capture([]), GOOD[:10], GOOD[:24] + b"\xff" * 100):
            result = self.run_on(empty)
            self.assertEqual(result.exit_code, 1)
            self.assertIn("decode: the capture has no packets; capture what goes", result.stderr)
        result = self.run_on(b"\xff" * 1000)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("no KMS in it; neither a PDU of DCE/RPC nor a message of KMS", result.stderr)

    def test_not_readable(self) -> None:
        """
        What cannot be read is an error in one line.
        """
        for data, arguments, problem in (
            (b"", [], "standard input: it is empty"),
            (b"abc", ["--format", "pcap"], "standard input: this is neither pcap nor pcapng; "),
            (b"zzz", ["--format", "hex"], "standard input: there are no hexadecimal bytes in it; "),
        ):
            result = self.run_on(data, *arguments)
            self.assertEqual((result.exit_code, result.stdout), (1, ""))
            self.assertIn(problem, result.stderr)
            self.assertEqual(len(result.stderr.splitlines()), 1)
        result = runner().invoke(decode, ["does-not-exist"])
        self.assertEqual(result.exit_code, 2)
        self.assertIn("does-not-exist: cannot be read: No such file or directory", result.stderr)
        result = runner().invoke(decode, ["."])
        self.assertNotEqual(result.exit_code, 0)
        self.assertIn("Is a directory; name another, or -", result.stderr)
        result = runner().invoke(decode, [""])
        self.assertEqual(result.exit_code, 2)
        self.assertIn("decode: '': cannot be read: No such file or directory; ", result.stderr)

    def test_no_output(self) -> None:
        """
        Where the standard output was closed before, it is decoded all the same, and the counts and the status tell.
        """
        for data, status in ((GOOD, 0), (MIXED, 1), (b"", 1)):
            for arguments in ([], ["-s"], ["--json"], ["--live"]):
                name = self.file(data)
                context = decode.make_context("decode", [*arguments, "-q", name])
                with self.without_output():
                    left = self.assertRaises(SystemExit, decode.invoke, context)
                self.assertEqual(left.code, status)

    @contextmanager
    def without_output(self) -> Iterator[None]:
        """
        Do without a standard output, as Python has it for a program that was started so.
        """
        with redirect_stdout(None), redirect_stderr(io.StringIO()):
            yield

    def test_formats(self) -> None:
        """
        Hexadecimal and raw bytes are read as well as captures.
        """
        for data, form in ((xxd(ASKED).encode(), "hex"), (ASKED, "raw"), (GOOD, "pcap")):
            for chosen in (form, "auto"):
                self.assertEqual(self.run_on(data, "--format", chosen).exit_code, 0)

    def test_ports(self) -> None:
        """
        With ports named, only connections with one of them count.
        """
        self.assertEqual(self.run_on(GOOD, "-p", "1688").exit_code, 0)
        self.assertEqual(self.run_on(GOOD, "-p", "1", "-p", "50003", "-s").stdout.count("\n"), 1)
        self.assertEqual(self.run_on(GOOD, "--port", "7").exit_code, 1)
        self.assertEqual(self.run_on(GOOD, "--port", "65536").exit_code, 2)

    def test_live(self) -> None:
        """
        With C{--live} each line is handed on at once.
        """
        flushed = []

        class Stream(io.StringIO):
            def flush(self) -> None:
                flushed.append(self.getvalue().count("\n"))

        self.patch(sys, "stdout", Stream())
        context = decode.make_context("decode", ["--live", "-s", "-q", self.file(GOOD)])
        self.assertRaises(SystemExit, decode.invoke, context)
        self.assertEqual(sorted(set(flushed)), list(range(11)))

    def test_interrupted(self) -> None:
        """
        Whoever stops it gets the counts of what was seen.
        """

        class Stopped:
            counts = Counts(frames=5, calls=1, granted=1)

            def __init__(self, *arguments: object, live: bool) -> None:
                pass

            def events(self) -> None:
                raise KeyboardInterrupt

            def give_up(self) -> list[Event]:
                return [Remark(Conversation(1, "a:1", "b:2"), 0, "the last words", False)]

        self.patch(module, "Decoder", Stopped)
        result = self.run_on(b"whatever")
        self.assertEqual(result.exit_code, 130)
        self.assertIn("decode: interrupted\n", result.stderr)
        self.assertIn("5 packets", result.stderr)
        self.assertEqual(result.stdout, "#1  a:1 <-> b:2  the last words\n")

    def test_progress(self) -> None:
        """
        While a file is read, how far that has come is shown on a terminal, and nowhere else.
        """
        shown = io.StringIO()
        terminal = Console(file=shown, force_terminal=True, width=80)
        self.patch(module, "console", lambda *, stderr: terminal)
        self.assertEqual(runner().invoke(decode, [self.file(GOOD)]).exit_code, 0)
        self.assertIn("reading", shown.getvalue())
        shown.seek(0)
        shown.truncate()
        self.assertEqual(self.run_on(GOOD).exit_code, 0)
        self.assertEqual(shown.getvalue(), "")

    def test_counts(self) -> None:
        """
        Counts are said in one line, with what made room.
        """
        counts = Counts(calls=1, evicted=2, noise={"not TCP": 3, "fragments": 1})
        self.assertEqual(
            describe_counts(counts),
            "1 call (0 granted), 0 other PDUs, 0 problems, 2 connections given up to save memory;"
            " passed over: 3 not TCP, 1 fragments",
        )

    def test_found(self) -> None:
        """
        The command is one of those of C{kmsproto}.
        """
        result = runner().invoke(main, ["decode", "--help"])
        self.assertEqual(result.exit_code, 0)
        self.assertIn("tcpdump -U -w - port 1688 | kmsproto decode --live", result.output)
