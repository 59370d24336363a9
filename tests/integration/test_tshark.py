"""
Another dissector reads what our host writes.

Conversations with a host are put into a capture file, each as a TCP connection of its own, and tshark must find
every PDU in it, and nothing in it that it would mark as malformed or warn about.  The frames around the bytes are made
here, so that no privilege to capture is needed; the bytes are those that client and host exchange.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.rpc import pdu
from kmsproto.rpc.client import offer
from kmsproto.rpc.management import MANAGEMENT
from kmsproto.rpc.numbers import WHOLE, PacketType
from kmsproto.rpc.pdu import NDR, NDR64, Bind, ContextElement
from tests.decode.traffic import converse
from tests.golden import load_exchange

TSHARK = shutil.which("tshark")
#: What tshark calls a warning, and what it calls an error.
WARNING, ERROR = 0x00600000, 0x00800000

_SYN, _FIN, _PUSH, _ACK = 2, 1, 8, 16
#: Who sent it, and what.
Segment = tuple[str, bytes]


class Stream:
    """
    The frames of one TCP connection over loopback: raw IPv4, without checksums.

    @param client_port: The port of the client.
    """

    def __init__(self, client_port: int) -> None:
        self._ports = {"client": client_port, "host": 1688}
        self._sequence = {"client": 1000, "host": 2000}
        self.frames: list[bytes] = []

    def add(self, sender: str, flags: int, data: bytes = b"") -> None:
        """
        Add a segment.
        """
        other = "host" if sender == "client" else "client"
        acknowledged = self._sequence[other] if flags & _ACK else 0
        tcp = struct.pack(
            ">HHIIBBHHH",
            self._ports[sender],
            self._ports[other],
            self._sequence[sender],
            acknowledged,
            0x50,
            flags,
            65535,
            0,
            0,
        )
        addresses = bytes((127, 0, 0, 1)) * 2
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(data), len(self.frames), 0, 64, 6, 0)
        self.frames.append(ip + addresses + tcp + data)
        self._sequence[sender] += len(data) + (1 if flags & (_SYN | _FIN) else 0)


def write_capture(path: Path, conversations: list[list[Segment]]) -> None:
    """
    Write a capture file (libpcap format, raw IPv4) with one TCP connection for each conversation.
    """
    frames: list[bytes] = []
    for number, conversation in enumerate(conversations):
        stream = Stream(50000 + number)
        stream.add("client", _SYN)
        stream.add("host", _SYN | _ACK)
        stream.add("client", _ACK)
        for sender, data in conversation:
            stream.add(sender, _PUSH | _ACK, data)
        stream.add("client", _FIN | _ACK)
        stream.add("host", _FIN | _ACK)
        stream.add("client", _ACK)
        frames += stream.frames
    raw_ipv4 = 228
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, raw_ipv4))
        for index, frame in enumerate(frames):
            seconds, milliseconds = divmod(index, 1000)
            file.write(
                struct.pack("<IIII", seconds, milliseconds * 1000, len(frame), len(frame)) + frame
            )


def count_pdus(conversations: list[list[Segment]]) -> int:
    """
    Count the PDUs in all conversations, by their own frag_length.
    """
    count = 0
    for conversation in conversations:
        for _, data in conversation:
            while data:
                data = data[pdu.decode_header(data).frag_length :]
                count += 1
    return count


def management_calls() -> list[bytes]:
    """
    Make a client's side of a conversation about the management interface, in both transfer syntaxes.
    """
    arguments = [b"", struct.pack("<I", 4), b"", b"", struct.pack("<II", 9, 128)]
    sent: list[bytes] = []
    for context_id, syntax in enumerate((NDR, NDR64)):
        bind = Bind(5840, 5840, 0, (ContextElement(context_id, MANAGEMENT.syntax, (syntax,)),))
        packet_type = PacketType.ALTER_CONTEXT if context_id else PacketType.BIND
        sent.append(pdu.encode_bind(packet_type, WHOLE, 1, bind))
        for opnum, stub in enumerate(arguments):
            sent.extend(pdu.encode_request(2 + opnum, context_id, opnum, stub, 5840))
    return sent


def mistakes() -> list[list[bytes]]:
    """
    Make the client's sides of conversations that end in every kind of refusal.
    """
    elements = offer(MANAGEMENT.syntax, ndr64=True, bind_time_features=True)
    bind = pdu.encode_bind(PacketType.BIND, WHOLE, 1, Bind(5840, 5840, 0, elements))
    unknown_group = pdu.encode_bind(PacketType.BIND, WHOLE, 1, Bind(5840, 5840, 77, elements))
    return [
        [unknown_group],
        [bind, bind],
        [bind, *pdu.encode_request(2, 9, 0, b"", 5840)],
        [bind, *pdu.encode_request(2, 1, 99, b"", 5840)],
        [bind, *pdu.encode_request(2, 1, 1, b"", 5840)],
        [bind, pdu.encode_bind(PacketType.ALTER_CONTEXT, WHOLE, 2, Bind(5840, 5840, 0, ()))],
    ]


class TsharkTests(SynchronousTestCase):
    """
    What tshark makes of our host's traffic.
    """

    if TSHARK is None:
        skip = "tshark is not installed"

    def read_capture(self, conversations: list[list[Segment]], *options: str) -> list[str]:
        """
        Let tshark read the conversations.

        @return: Its lines.
        """
        path = Path(self.mktemp())
        write_capture(path, conversations)
        assert TSHARK is not None
        result = subprocess.run(
            [TSHARK, "-n", "-r", str(path), *options],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return result.stdout.splitlines()

    def assertReads(self, conversations: list[list[Segment]], severity: int = WARNING) -> None:
        """
        Assert that tshark finds every PDU, and nothing that it takes for so bad or worse.
        """
        fields = ("-T", "fields", "-E", "occurrence=a", "-e", "dcerpc.pkt_type")
        found = self.read_capture(conversations, "-Y", "dcerpc", *fields)
        self.assertEqual(sum(len(line.split(",")) for line in found), count_pdus(conversations))
        bad = self.read_capture(
            conversations, "-Y", f"_ws.malformed || _ws.expert.severity >= {severity}"
        )
        self.assertEqual(bad, [])

    def test_activations(self) -> None:
        """
        Activations in every version and both transfer syntaxes are read without a mark.
        """
        names = ("v4-full", "v5-full", "v6-full", "refused-version")
        self.assertReads(
            [
                converse([p.data for p in load_exchange(name) if p.sender == "client"])
                for name in names
            ]
        )

    def test_management(self) -> None:
        """
        All operations of the management interface are read without a mark.
        """
        self.assertReads([converse(management_calls())])

    def test_refusals(self) -> None:
        """
        Faults, bind_naks and refused contexts are read; that a bind is refused at all is a warning to tshark.
        """
        self.assertReads([converse(sent) for sent in mistakes()], ERROR)

    def test_marks_are_seen(self) -> None:
        """
        A PDU that is cut short is marked, so the tests above can fail.
        """
        bind = load_exchange("v6-full")[0].data
        broken = bind[:8] + struct.pack("<H", 60) + bind[10:60]
        bad = self.read_capture(
            [[("client", broken)]], "-Y", f"_ws.malformed || _ws.expert.severity >= {WARNING}"
        )
        self.assertEqual(len(bad), 1)
