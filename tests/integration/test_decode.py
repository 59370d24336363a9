"""
C{kmsproto decode} as a process of its own: against another dissector, on a live stream, and with much to read.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.decode.test_decoder import ALL, frames_of
from tests.decode.traffic import Connection, Said, capture, on_ethernet
from tests.integration.processes import (
    PATIENCE,
    TwistdCase,
    ask,
    environment,
    run,
    script,
)

TSHARK = shutil.which("tshark")
#: Megabytes of the captures that are compared.
SMALL, LARGE = 4, 24


class DecodeCase(TwistdCase):
    """
    The command, on files of a test.
    """

    def write(self, name: str, data: bytes) -> str:
        """
        Write a file.
        """
        (self.directory / name).write_bytes(data)
        return name

    def decode(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """
        Run the command to its end.
        """
        return run("kmsproto", "decode", *arguments, cwd=self.directory)

    def start_decoding(self, *arguments: str) -> subprocess.Popen[bytes]:
        """
        Run the command, and stay in touch with it.
        """
        process = subprocess.Popen(
            [*script("kmsproto"), "decode", *arguments],
            cwd=self.directory,
            env=environment(self.directory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

        def end() -> None:
            process.kill()
            process.communicate()

        self.addCleanup(end)
        return process


class OtherDissectorTests(DecodeCase):
    """
    tshark reads the same captures.
    """

    if TSHARK is None:
        skip = "tshark is not installed"

    def read(self, name: str, *options: str) -> list[str]:
        """
        Let tshark read a capture.
        """
        assert TSHARK is not None
        result = subprocess.run(
            [TSHARK, "-n", "-r", name, *options],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=True,
        )
        return result.stdout.splitlines()

    def assertAgree(self, frames: list[bytes]) -> None:
        """
        Both find the same number of PDUs of each type.
        """
        name = self.write("some.pcap", capture(frames))
        fields = ("-T", "fields", "-E", "occurrence=a", "-e", "dcerpc.pkt_type")
        found = ",".join(self.read(name, "-Y", "dcerpc", *fields)).split(",")
        lines = self.decode("--json", name).stdout.splitlines()
        documents = [json.loads(line) for line in lines]
        told = [each for each in documents if each["type"] == "call"]
        self.assertEqual(found.count("0"), sum(each["request_fragments"] for each in told))
        self.assertEqual(found.count("2"), sum(each["response_fragments"] for each in told))
        self.assertEqual(
            len(found) - found.count("0") - found.count("2"),
            sum(each["type"] == "pdu" for each in documents),
        )
        self.assertGreater(len(told), 0)

    def test_plain(self) -> None:
        """
        In ordinary captures.
        """
        self.assertAgree(frames_of(ALL))

    def test_segments(self) -> None:
        """
        In captures with small segments, some of which come twice and some too early.
        """
        chance = random.Random(2)
        frames: list[bytes] = []
        for number, said in enumerate(ALL):
            made = Connection(client=("192.0.2.1", 50000 + number))
            frames += made.frames(made.opening())
            middle = made.frames(made.saying(said, 90))
            for index in range(0, len(middle) - 1, 3):
                if chance.random() < 0.5:
                    middle.insert(index + 1, middle[index])
            frames += middle
            frames += made.frames(made.closing())
        self.assertAgree(frames)


class ConversationTests(DecodeCase):
    """
    What a real host says over a real connection.
    """

    def test_own_host(self) -> None:
        """
        An activation that was recorded between a client and a host passes every check.
        """
        _, port = self.local()
        said: list[Said] = []

        class Recorder(socket.socket):
            def sendall(self, data: bytes) -> None:  # type: ignore[override]
                said.append(("client", data))
                super().sendall(data)

            def recv(self, size: int) -> bytes:  # type: ignore[override]
                data = super().recv(size)
                said.append(("host", data))
                return data

        with Recorder() as connection:
            connection.connect(("127.0.0.1", port))
            answer = ask(connection)
        made = Connection(host=("127.0.0.1", port))
        name = self.write("own.pcap", capture(made.frames(made.whole(said))))
        result = self.decode("--json", "--summary", name)
        self.assertEqual(result.returncode, 0, result.stderr)
        call = json.loads(result.stdout.splitlines()[0])
        self.assertEqual(call["outcome"], "granted")
        self.assertEqual(call["response"]["epid"], answer.response.body.epid)
        self.assertTrue(all(check["passed"] for check in call["checks"]))


class StreamTests(DecodeCase):
    """
    Standard input and output.
    """

    def test_live(self) -> None:
        """
        A line is there as soon as the packet with the answer is, while the capture goes on.
        """
        process = self.start_decoding("--live", "--summary", "-")
        assert process.stdin is not None and process.stdout is not None
        data = capture(frames_of(ALL[2:3]))
        cut = len(capture(frames_of(ALL[2:3])[:9]))
        process.stdin.write(data[:cut])
        process.stdin.flush()
        line = process.stdout.readline()
        self.assertIn(b"granted", line)
        self.assertIsNone(process.poll())
        rest, err = process.communicate(data[cut:], timeout=PATIENCE)
        self.assertEqual((rest.count(b"\n"), process.returncode), (1, 0))
        self.assertIn(b"2 calls (2 granted)", err)

    def test_interrupted(self) -> None:
        """
        Whoever stops it gets what was still waited for, and the counts.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.start_decoding("--live", "--summary")
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(capture(frames_of(ALL[2:3])[:10]))
            process.stdin.flush()
            self.assertIn(b"granted", process.stdout.readline())
            process.send_signal(number)
            rest, err = process.communicate(timeout=PATIENCE)
            self.assertIn(b"unanswered", rest)
            self.assertEqual(rest.count(b"\n"), 1)
            self.assertIn(b"2 calls (1 granted)", err)
            self.assertEqual(process.returncode, 130)

    def test_interrupted_early(self) -> None:
        """
        Whoever stops it before there was anything is told just that.
        """
        process = self.start_decoding("--live", "--summary")
        # That it reads is known as soon as it has taken what begins no packet yet.
        assert process.stdin is not None
        process.stdin.write(capture([]))
        process.stdin.flush()
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((out, process.returncode), (b"", 130))
        self.assertIn(b"0 calls", err)
        self.assertNotIn(b"no KMS", err)

    def test_broken_pipe(self) -> None:
        """
        Whoever does not read to the end hears no complaint.
        """
        name = self.write("some.pcap", capture(frames_of(ALL * 20)))
        process = self.start_decoding(name)
        assert process.stdout is not None
        self.assertTrue(process.stdout.readline())
        process.stdout.close()
        process.wait(PATIENCE)
        assert process.stderr is not None
        self.assertEqual(process.stderr.read(), b"")

    def test_random(self) -> None:
        """
        A million random bytes are done with soon, and in one line.
        """
        name = self.write("random", random.Random(3).randbytes(1_000_000))
        for form in ("auto", "pcap", "hex", "raw"):
            begun = time.monotonic()
            result = self.decode("--format", form, name)
            self.assertLess(time.monotonic() - begun, PATIENCE / 2)
            self.assertEqual(result.returncode, 1)
            self.assertIn("kmsproto decode: ", result.stderr)
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
            self.assertClean(result.stderr)


class BoundTests(DecodeCase):
    """
    Memory, however much there is to read.
    """

    def make(self, name: str, megabytes: int) -> tuple[Path, int]:
        """
        Write a capture of many clients, much other traffic, and connections that never end.

        @return: Where it is, and how many activations are in it.
        """
        kms = Connection(client=("10.0.0.0", 50000))
        kms_frames = kms.frames(kms.whole(ALL[2])[:-3])
        web = Connection(client=("10.0.0.0", 40000), host=("192.0.2.80", 80))
        web_frames = web.frames(
            [
                *web.opening(),
                *web.saying([("client", b"GET / HTTP/1.1\r\n"), ("host", bytes(20000))]),
            ]
        )
        early = Connection(client=("10.0.0.0", 45000), host=("192.0.2.81", 1688))
        early.sequences["client"] += 1
        early_frames = early.frames(early.saying([("client", bytes(1400))]))
        other = on_ethernet(b"\x45\0\0\x80" + bytes(5) + b"\x11" + bytes(118))
        head = capture([])
        pieces: list[bytes] = []
        for frames in (kms_frames, web_frames, early_frames, [other] * 10):
            pieces.append(capture(frames)[len(head) :])
        path = self.directory / name
        address, activations, written = 0, 0, 0
        with path.open("wb") as file:
            file.write(head)
            while written < megabytes * 1_000_000:
                address += 1
                client = (0x0A000000 + address).to_bytes(4, "big")
                for piece in pieces:
                    file.write(piece.replace(b"\x0a\0\0\0", client))
                    written += len(piece)
                activations += 2
        return path, activations

    def measure(self, path: Path) -> tuple[int, str, float]:
        """
        Decode a capture.

        @return: The most memory that was used, in kilobytes; the counts; and seconds of processor time.
        """
        process = subprocess.Popen(
            [*script("kmsproto"), "decode", "--summary", path.name],
            cwd=self.directory,
            env=environment(self.directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        with process.stderr as stream:
            err = stream.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_maxrss, err, usage.ru_utime + usage.ru_stime

    def test_memory(self) -> None:
        """
        Six times as much to read takes hardly more memory.
        """
        if sys.platform == "darwin":
            raise self.skipTest("memory is counted in other units")
        peaks = []
        for name, megabytes in (("small.pcap", SMALL), ("large.pcap", LARGE)):
            path, activations = self.make(name, megabytes)
            peak, err, _ = self.measure(path)
            self.assertIn(f"{activations} calls ({activations} granted)", err)
            self.assertClean(err)
            peaks.append(peak)
        # What is known of each connection is bounded too, though more of it is there in the larger capture.
        self.assertLess(peaks[1] - peaks[0], 16 * 1024)
