"""
Everything together: captures and dumps of whole conversations.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import struct
from io import BytesIO
from itertools import chain

from dpkt import pcap
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.decode.captures import ByteSource, CaptureError
from kmsproto.decode.decoder import Decoder, Format
from kmsproto.decode.dissection import RPCReader
from kmsproto.decode.events import CallSeen, Event, Outcome, PDUSeen, Remark
from kmsproto.rpc.pdu import NDR64
from tests.decode.dissecting import ANSWERED, ASKED
from tests.decode.test_dumps import follow, hexdump, wireshark, xxd
from tests.decode.test_frames import cut_ipv4, cut_ipv6
from tests.decode.traffic import (
    PUSH,
    RAW,
    START,
    Connection,
    Pipe,
    Said,
    calls,
    capture,
    capture_ng,
    decode,
    essence,
    golden,
    on_ethernet,
)
from tests.golden import EXCHANGES
from tests.rpc.building import build_nak

#: Conversations with 12 calls in them, of which 10 are granted.
ALL = [golden(name) for name in EXCHANGES]


def port(number: int) -> Connection:
    """
    Make a connection of its own.
    """
    return Connection(client=("192.0.2.1", 50000 + number))


def frames_of(conversations: list[list[Said]]) -> list[bytes]:
    """
    Make the frames of conversations, one connection each.
    """
    frames = []
    for number, said in enumerate(conversations):
        made = port(number)
        frames += made.frames(made.whole(said))
    return frames


#: What the calls are.
ESSENCE = [essence(call) for call in calls(decode(capture(frames_of(ALL)))[0])]


class CaptureTests(SynchronousTestCase):
    """
    Captures.
    """

    def assertAll(self, data: bytes) -> None:
        """
        All calls are in a capture, and nothing else is wrong with it.
        """
        events, counts = decode(data)
        self.assertEqual([essence(call) for call in calls(events)], ESSENCE)
        self.assertEqual((counts.calls, counts.granted), (12, 10))
        self.assertEqual(counts.problems, 2)  # the requests of a version that does not exist
        self.assertEqual((counts.conversations, counts.rpc), (8, 8))
        self.assertEqual(counts.notes, ())

    def test_recorded(self) -> None:
        """
        All recorded conversations are found, in either format.
        """
        self.assertEqual(len(ESSENCE), 12)
        self.assertAll(capture(frames_of(ALL)))
        self.assertAll(capture_ng(frames_of(ALL)))

    def test_whole_story(self) -> None:
        """
        Times, connections and sides are those of the capture.
        """
        events, counts = decode(capture(frames_of(ALL[2:3])))
        self.assertEqual([type(event) for event in events], [PDUSeen] * 4 + [CallSeen] * 2)
        self.assertEqual({event.conversation.client for event in events}, {"192.0.2.1:50000"})
        self.assertEqual({event.conversation.host for event in events}, {"192.0.2.9:1688"})
        self.assertEqual({event.conversation.number for event in events}, {1})
        milliseconds = [round((event.time - START * 10**9) / 1e6) for event in events]
        self.assertEqual(milliseconds, [3, 4, 5, 6, 7, 9])
        self.assertEqual(calls(events)[1].syntax, NDR64)
        self.assertEqual(counts.frames, 14)
        self.assertEqual(counts.pdus, 8)
        self.assertEqual(counts.other_pdus, 4)
        self.assertEqual(counts.to_json()["calls"], 2)

    def test_ipv6(self) -> None:
        """
        IPv6 is as good, and its addresses are written as such.
        """
        made = Connection(client=("2001:db8::1", 50000), host=("2001:db8::9", 1688))
        events, counts = decode(capture(made.frames(made.whole(ALL[0]))))
        self.assertEqual(counts.granted, 2)
        self.assertEqual(events[0].conversation.client, "[2001:db8::1]:50000")

    def test_links(self) -> None:
        """
        So is every kind of link.
        """
        made = port(0)
        packets = [bytes(made.packet(segment)) for segment in made.whole(ALL[0])]
        for link_type, head in (
            (1, bytes(12) + b"\x81\0\0\7\x08\0"),
            (113, bytes(14) + b"\x08\0"),
            (276, b"\x08\0" + bytes(18)),
            (0, b"\2\0\0\0"),
            (RAW, b""),
        ):
            for write in (capture, capture_ng):
                _, counts = decode(write([head + packet for packet in packets], link_type))
                self.assertEqual(counts.granted, 2)

    def test_ip_fragments(self) -> None:
        """
        Packets that were fragmented are put together.
        """
        made = port(0)
        packets = [bytes(made.packet(segment)) for segment in made.whole(ALL[2])]
        pieces = chain.from_iterable(cut_ipv4(packet, 64)[::-1] for packet in packets)
        self.assertEqual(decode(capture(pieces, RAW))[1].granted, 2)
        made = Connection(client=("2001:db8::1", 50000), host=("2001:db8::9", 1688))
        packets = [bytes(made.packet(segment)) for segment in made.whole(ALL[2])]
        pieces = chain.from_iterable(cut_ipv6(packet, 64) for packet in packets)
        self.assertEqual(decode(capture(pieces, RAW))[1].granted, 2)
        lost = [piece for packet in packets for piece in cut_ipv6(packet, 64)][:-6]
        _, counts = decode(capture([*lost, cut_ipv6(packets[4], 64)[0]], RAW))
        self.assertEqual(counts.notes, ("1 packet is fragmented and not complete",))

    def test_noise(self) -> None:
        """
        What is no KMS is passed over and counted.
        """
        web = Connection(host=("192.0.2.80", 80))
        other_web = web.frames(
            web.whole([("client", b"GET / HTTP/1.1\r\n\r\n"), ("host", b"HTTP/1.1 200\r\n" * 400)])
        )
        arp = bytes(12) + b"\x08\x06" + bytes(28)
        udp = bytearray(on_ethernet(bytes(web.packet(web.segment("client", PUSH, b"x")))))
        udp[14 + 9] = 17
        frames = [*frames_of(ALL)]
        mixed = [
            frame
            for index, each in enumerate(frames)
            for frame in (each, arp, bytes(udp), *other_web[index : index + 1])
        ]
        events, counts = decode(capture(mixed))
        self.assertEqual([essence(call) for call in calls(events)], ESSENCE)
        self.assertEqual((counts.connections, counts.rpc), (9, 8))
        self.assertEqual(counts.noise, {"not IP": len(frames), "not TCP": len(frames)})

    def test_other_rpc(self) -> None:
        """
        RPC with other interfaces is counted and not told.
        """
        bind = bytearray(ALL[0][0][1])
        kms = bytes.fromhex("7521c8514e845047b0d8ec255555bc06")
        other = bytes(bind).replace(kms, bytes(15) + b"\1")
        made = Connection(host=("192.0.2.9", 49152))
        events, counts = decode(capture(made.frames(made.whole([("client", other)]))))
        self.assertEqual(events, [])
        self.assertEqual((counts.rpc, counts.conversations), (1, 0))

    def test_other_port(self) -> None:
        """
        A host on any port is found; with ports named, only connections with one of them count.
        """
        made = Connection(host=("192.0.2.9", 16880))
        data = capture(made.frames(made.whole(ALL[0])))
        self.assertEqual(decode(data)[1].granted, 2)
        self.assertEqual(decode(data, ports=[16880, 7])[1].granted, 2)
        events, counts = decode(data, ports=[1688])
        self.assertEqual((events, counts.connections), ([], 0))

    def test_not_rpc_on_the_port(self) -> None:
        """
        Another protocol on the port of KMS is a problem; a client that happens to have that port is none.
        """
        made = Connection()
        said: list[Said] = [("client", b"GET / HTTP/1.1\r\n\r\n")]
        (event,), counts = decode(capture(made.frames(made.whole(said))))
        assert isinstance(event, Remark)
        self.assertEqual(counts.problems, 1)
        made = Connection(client=("192.0.2.1", 1688), host=("192.0.2.9", 80))
        self.assertEqual(decode(capture(made.frames(made.whole(said))))[0], [])

    def test_behind_a_proxy(self) -> None:
        """
        A header of the PROXY protocol hides no connection, whatever the port, and who it names is told.
        """
        header = b"PROXY TCP4 198.51.100.7 192.0.2.9 43210 1688\r\n"
        for port in (1688, 4711):
            for size in (11, 1448):
                made = Connection(host=("192.0.2.9", port))
                said: list[Said] = [("client", header), *ALL[0]]
                data = capture(made.frames(made.whole(said, size)))
                events, counts = decode(data)
                first = events[0]
                assert isinstance(first, Remark)
                self.assertIn("names the client 198.51.100.7:43210", first.text)
                self.assertEqual((counts.granted, counts.problems), (2, 0))

    def test_answers_alone(self) -> None:
        """
        Of a connection of which only the host's direction was captured, also a refusal of the bind is told.
        """
        made = Connection()
        refusal = build_nak(4)
        segments = made.whole([("client", b"whatever"), ("host", refusal)])
        frames = made.frames(segment for segment in segments if segment.sender == "host")
        (event,), counts = decode(capture(frames))
        assert isinstance(event, PDUSeen)
        self.assertEqual((event.data, event.conversation.host), (refusal, "192.0.2.9:1688"))
        self.assertEqual((counts.other_pdus, counts.problems), (1, 0))

    def test_same_ports_again(self) -> None:
        """
        Of connections one after the other between the same ports, none is lost, though the second has no beginning.
        """
        made, other = Connection(), Connection(sequences={"client": 77_777, "host": 99_999})
        frames = made.frames(made.whole(ALL[0]))
        frames += other.frames([*other.saying(ALL[0]), *other.closing()])
        _, counts = decode(capture(frames))
        self.assertEqual((counts.connections, counts.granted, counts.problems), (2, 4, 0))

    def test_dropped(self) -> None:
        """
        How many packets a capture says that it lacks is a note.
        """
        statistics = struct.pack("<IIIIIHHQI", 5, 36, 0, 0, 0, 5, 8, 77, 36)
        made = Connection()
        _, counts = decode(capture_ng(made.frames(made.whole(ALL[0]))) + statistics)
        (note,) = counts.notes
        self.assertIn("77 packets are missing", note)
        self.assertEqual((counts.granted, counts.problems), (2, 0))

    def test_cut_anywhere(self) -> None:
        """
        Of a capture that was cut, all that is whole is told, and that it was cut is a problem.
        """
        data = capture(frames_of(ALL[2:3]))
        for length in range(30, len(data), 61):
            events, counts = decode(data[:length])
            found = [essence(call) for call in calls(events)]
            answered = [each for each in found if each[6] is not None]
            self.assertEqual(answered, ESSENCE[4 : 4 + len(answered)])
            told = [each.text for each in events if isinstance(each, Remark) and each.is_problem]
            self.assertEqual(len(told), 1)
            self.assertIn("ends in the middle of a frame", told[0])
            self.assertEqual((counts.problems, counts.notes), (1, ()))

    def test_live_ends_anywhere(self) -> None:
        """
        That a live capture ends in the middle of a packet is noted; damage in it is a problem all the same.
        """
        data = capture(frames_of(ALL[2:3]))
        for cut, problems in ((data[:-10], 0), (data + b"\xff" * 16, 1)):
            decoder = Decoder(ByteSource(BytesIO(cut)), live=True)
            self.assertEqual(len(calls(decoder.events())), 2)
            self.assertEqual(decoder.counts.problems, problems)
            self.assertEqual(len(decoder.counts.notes), 1 - problems)

    def test_cut_frames(self) -> None:
        """
        That frames were captured in part only is noted, with what can be done.
        """
        frames = [frame[:200] for frame in frames_of(ALL[2:3])]
        events, counts = decode(capture(frames))
        self.assertEqual(
            counts.notes,
            ("5 packets were not captured whole; tcpdump -s 0 captures all of them",),
        )
        self.assertEqual(counts.problems, 0)
        self.assertIn(" bytes are missing", str(events))

    def test_give_up(self) -> None:
        """
        Whoever stops before the end is told what was still waited for, and it counts.
        """

        class Stopped(Pipe):
            def read(self, size: int, /) -> bytes:
                data = super().read(size)
                if not data:
                    raise KeyboardInterrupt
                return data

        decoder = Decoder(ByteSource(Stopped(capture(frames_of(ALL[2:3])[:8]), 999)))
        seen: list[Event] = []
        with self.assertRaises(KeyboardInterrupt):
            seen.extend(decoder.events())
        (call,) = calls(decoder.give_up())
        self.assertIs(call.outcome, Outcome.UNANSWERED)
        self.assertEqual((decoder.counts.calls, decoder.counts.other_pdus), (1, 4))
        self.assertEqual(list(decoder.give_up()), [])
        cut = capture([frame[:200] for frame in frames_of(ALL[2:3])])
        decoder = Decoder(ByteSource(Stopped(cut, 999)))
        with self.assertRaises(KeyboardInterrupt):
            list(decoder.events())
        self.assertIn("5 packets were not captured whole", "".join(decoder.counts.notes))

    def test_lost_segment(self) -> None:
        """
        Behind a segment that is not in the capture the calls go on.
        """
        made = port(0)
        segments = made.whole(ALL[2])
        requests = [index for index, each in enumerate(segments) if each.data[2:3] == b"\0"]
        del segments[requests[0]]
        events, counts = decode(capture(made.frames(segments)))
        self.assertIn(" bytes are missing", str(events))
        self.assertEqual(counts.granted, 2)
        self.assertEqual(counts.problems, 0)
        # The answer to the first call has waited for its request.
        self.assertEqual([call.verified is None for call in calls(events)], [False, True])

    def test_midstream(self) -> None:
        """
        A capture that begins in the middle of a connection has all calls from then on.
        """
        made = port(0)
        segments = made.whole(ALL[2])
        for start in range(3, len(segments) - 3):
            events, counts = decode(capture(made.frames(segments[start:])))
            expected = sum(each.data[2:3] == b"\0" for each in segments[start:])
            self.assertEqual(
                sum(call.verified is not None for call in calls(events)), expected, start
            )
            self.assertEqual(counts.problems, 0)

    @settings(max_examples=60)
    @given(
        st.randoms(use_true_random=False),
        st.integers(20, 1448),
        st.integers(0, 2**32 - 1),
        st.integers(0, 20),
    )
    def test_any_order(self, chance: random.Random, size: int, first: int, repeated: int) -> None:
        """
        However the bytes are cut into segments, and whatever becomes of their order, the calls are the same.
        """
        frames: list[bytes] = []
        for number, said in enumerate(ALL):
            made = port(number)
            made.sequences = {"client": first, "host": (first * 7) % 2**32}
            frames += made.frames(made.opening())
            segments = [*made.saying(said, size), *made.closing()]
            later = made.frames(segments)
            later += [chance.choice(later) for _ in range(repeated)]
            chance.shuffle(later)
            frames += later
        events, counts = decode(capture(frames))
        found = sorted((essence(call) for call in calls(events)), key=str)
        self.assertEqual(found, sorted(ESSENCE, key=str))
        self.assertEqual(counts.problems, 2)

    def test_interleaved(self) -> None:
        """
        Connections that are open at the same time are kept apart.
        """
        several = []
        for number, said in enumerate(ALL):
            made = port(number)
            several.append(made.frames(made.whole(said, 100)))
        longest = max(map(len, several))
        frames = [each[index] for index in range(longest) for each in several if index < len(each)]
        found = sorted((essence(call) for call in calls(decode(capture(frames))[0])), key=str)
        self.assertEqual(found, sorted(ESSENCE, key=str))

    def test_live(self) -> None:
        """
        A call is told when the packet with its answer has come, not later.
        """
        data = capture(frames_of(ALL[2:3]))
        pipe = Pipe(data, 1)
        events = Decoder(ByteSource(pipe)).events()
        for event in events:
            if isinstance(event, CallSeen):
                break
        self.assertIs(event.outcome, Outcome.GRANTED)
        used = capture(frames_of(ALL[2:3])[:9])
        self.assertEqual(pipe.read(1), data[len(used) : len(used) + 1])


class DumpTests(SynchronousTestCase):
    """
    Dumps.
    """

    def test_pdus(self) -> None:
        """
        PDUs of both sides behind each other, raw or in hexadecimal, make the calls that they are.
        """
        raw = b"".join(data for _, data in ALL[2])
        pasted = ("    " + xxd(raw).replace("\n", "\n    ")).encode()
        for data in (raw, xxd(raw).encode(), hexdump(raw).encode(), raw.hex().encode(), pasted):
            events, counts = decode(data)
            self.assertEqual([essence(call) for call in calls(events)], ESSENCE[4:6])
            self.assertEqual((counts.granted, counts.problems), (2, 0))
            self.assertEqual({event.conversation.client for event in events}, {""})

    def test_sides(self) -> None:
        """
        Of a stream that Wireshark followed the sides are known.
        """
        text = ""
        place = {"client": 0, "host": 0}
        for sender, data in ALL[2]:
            text += follow(data, "    " if sender == "host" else "", place[sender])
            place[sender] += len(data)
        events, counts = decode(text.encode())
        self.assertEqual([essence(call) for call in calls(events)], ESSENCE[4:6])
        self.assertEqual(counts.problems, 0)

    def test_headers_without_sense(self) -> None:
        """
        A dump full of headers that make no sense takes time in proportion to its size: no rest is copied for each.
        """
        record = bytes.fromhex("05000003100000001800000001000000")
        fed: list[int] = []
        received = RPCReader.received

        def watch(reader: RPCReader, side: int, data: bytes, lost: int, time: int) -> object:
            fed.append(len(data))
            return received(reader, side, data, lost, time)

        self.patch(RPCReader, "received", watch)
        _, counts = decode(record * 4096)
        self.assertGreater(counts.problems, 1000)
        self.assertEqual(sum(fed), len(record) * 4096)
        self.assertLessEqual(max(fed), 16_384)

    def test_one_pdu(self) -> None:
        """
        A request alone is opened, and its syntax found out.
        """
        for sender, data in ALL[2]:
            if data[2] == 0:
                events, counts = decode(data)
                (call,) = calls(events)
                self.assertIsNotNone(call.opened)
                self.assertTrue(call.guessed)
                self.assertEqual((call.outcome, counts.problems), (Outcome.UNANSWERED, 0))
                self.assertEqual(sender, "client")

    def test_frames(self) -> None:
        """
        Frames in hexadecimal are looked into, with or without Ethernet.
        """
        made = port(0)
        frames = made.frames(made.whole(ALL[2]))
        for cut in (0, 14):
            text = "\n".join(wireshark(frame[cut:]) for frame in frames)
            events, counts = decode(text.encode())
            self.assertEqual([essence(call) for call in calls(events)], ESSENCE[4:6])
            self.assertEqual(counts.frames, len(frames))
            self.assertEqual(events[0].conversation.client, "192.0.2.1:50000")

    def test_messages(self) -> None:
        """
        Messages without RPC are opened and verified, together or apart.
        """
        both, counts = decode(ASKED + ANSWERED)
        (call,) = calls(both)
        self.assertIs(call.outcome, Outcome.GRANTED)
        self.assertEqual((call.problems, call.remarks), ((), ()))
        self.assertEqual(counts.granted, 1)
        pieces = wireshark(ASKED) + wireshark(ANSWERED) + wireshark(ASKED) + wireshark(ASKED)
        events, _ = decode(pieces.encode())
        self.assertEqual(
            [call.outcome for call in calls(events)],
            [Outcome.GRANTED, Outcome.UNANSWERED, Outcome.UNANSWERED],
        )
        (alone,) = calls(decode(ANSWERED)[0])
        self.assertEqual(alone.remarks, ("the answer cannot be verified without its request",))
        (broken,) = calls(decode(ASKED[:-1])[0])
        self.assertEqual(len(broken.problems), 1)

    def test_format(self) -> None:
        """
        A format that is named is taken for what it is.
        """
        data = capture(frames_of(ALL[2:3]))
        self.assertEqual(decode(data, Format.PCAP)[1].calls, 2)
        self.assertEqual(decode(data, Format.RAW)[1].calls, 2)
        self.assertRaises(CaptureError, decode, ASKED, Format.PCAP)
        self.assertRaises(CaptureError, decode, b"zzz", Format.HEX)
        self.assertEqual(decode(xxd(ASKED).encode(), Format.HEX)[1].calls, 1)

    def test_disorder(self) -> None:
        """
        Packets that are much earlier than some before them are told, with what helps; a little is no matter.
        """
        frames = frames_of(ALL[2:3])
        for pause, told in ((0.9, False), (1.1, True)):
            file = BytesIO()
            writer = pcap.Writer(file)
            for index, frame in enumerate([*frames, frames[-1]]):
                writer.writepkt_time(frame, START + (index < len(frames)) * pause)
            _, counts = decode(file.getvalue())
            self.assertEqual((counts.calls, counts.problems), (2, 0))
            self.assertEqual(len(counts.notes), told, counts.notes)
            for note in counts.notes:
                self.assertIn("1 packet is earlier than some before,", note)
                self.assertIn("; reordercap FILE SORTED", note)

    def test_not_to_be_read(self) -> None:
        """
        Nothing at all, what is compressed, and captures of other formats are errors that say so and what to do.
        """
        data = capture(frames_of(ALL[2:3]))
        for start, problem in (
            (b"", "it is empty; give a capture"),
            (gzip.compress(data), "it is compressed; gzip -dc FILE |"),
            (bz2.compress(data), "it is compressed; bzip2 -dc FILE |"),
            (lzma.compress(data), "it is compressed; xz -dc FILE |"),
            (b"\x28\xb5\x2f\xfd\0" + data, "it is compressed; zstd -dc FILE |"),
            (b"\x04\x22\x4d\x18\0" + data, "it is compressed; lz4 -dc FILE |"),
            (b"PK\3\4\0" + data, "it is compressed; unzip -p FILE |"),
            *(
                (magic + data, "neither pcap nor pcapng; tshark -r FILE")
                for magic in (b"snoop\0\0\0", b"RTSS\1\1", b"GMBU\0\2", b"TRSNIFF data", b"XCP\0")
            ),
        ):
            self.assertIn(problem, str(self.assertRaises(CaptureError, decode, start)))
        # Whoever says what it is knows better.
        self.assertEqual(decode(b"snoop\0\0\0" + data, Format.RAW)[1].calls, 2)

    def test_random(self) -> None:
        """
        A million random bytes hold nothing, and say so soon.
        """
        data = random.Random(1).randbytes(1_000_000)
        events, counts = decode(data)
        self.assertEqual((counts.calls, counts.other_pdus, counts.problems), (0, 0, 0))
        self.assertLessEqual(len(events), 1)

    @given(
        st.binary(max_size=300),
        st.sampled_from(
            [
                b"",
                *(each[:40] for each in (capture([b"x"]), capture_ng([b"x"]))),
                ASKED[:40],
                b"05 00",
            ]
        ),
        st.sampled_from(Format),
    )
    def test_anything(self, data: bytes, start: bytes, form: Format) -> None:
        """
        Whatever there is to read in whatever format raises nothing but our own error.
        """
        try:
            events, counts = decode(start + data, form)
        except CaptureError:
            return
        self.assertEqual(counts.calls, len(calls(events)))

    @settings(max_examples=50)
    @given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=30))
    def test_changed(self, changes: list[tuple[int, int]]) -> None:
        """
        Whatever is changed in a capture raises nothing.
        """
        data = bytearray(capture(frames_of(ALL[:3])))
        for place, value in changes:
            data[24 + place % (len(data) - 24)] = value
        decode(bytes(data))

    def test_opening(self) -> None:
        """
        A connection that only opens and closes is no conversation.
        """
        made = port(0)
        events, counts = decode(capture(made.frames([*made.opening(), *made.closing()])))
        self.assertEqual((events, counts.connections, counts.conversations), ([], 1, 0))
