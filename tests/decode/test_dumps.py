"""
Dumps in hexadecimal, as all the usual programs write them, and as raw bytes.
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import tracemalloc
from io import BytesIO

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.decode.captures import ByteSource, CaptureError
from kmsproto.decode.dumps import (
    MAX_DUMP,
    Piece,
    is_message,
    is_pdu,
    looks_like_text,
    parse_hexadecimal,
    read_all,
    split_messages,
)
from kmsproto.kms.envelopes import seal_request, seal_response
from tests.decode.traffic import golden
from tests.kms.samples import (
    HARDWARE_ID,
    RANDOM,
    REQUEST,
    REQUEST_SALT,
    RESPONSE,
    RESPONSE_SALT,
)

#: Bytes that begin like a PDU and hold whatever bytes there are, so that the text beside them may look like anything.
DATA = golden("v6-full")[0][1] + bytes(range(256)) + b"ab cd ef 01 23 45" + bytes(64) + b"deadbeef"


def text_of(data: bytes) -> str:
    """
    Show bytes as a dump does.
    """
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)


def lines(data: bytes, width: int = 16) -> list[tuple[int, bytes]]:
    """
    Cut bytes into the lines of a dump.
    """
    return [(start, data[start : start + width]) for start in range(0, len(data), width)]


def xxd(data: bytes, group: int = 2, width: int = 16) -> str:
    """
    Write as C{xxd} does.
    """
    room = 2 * width + width // group
    return "".join(
        f"{start:08x}: {' '.join(re.findall('.' * (2 * group) + '|.+', part.hex())):<{room}} {text_of(part)}\n"
        for start, part in lines(data, width)
    )


def hexdump(data: bytes) -> str:
    """
    Write as C{hexdump -C} does, without leaving repeated lines out.
    """
    return (
        "".join(
            f"{start:08x}  {part[:8].hex(' '):<24} {part[8:].hex(' '):<24} |{text_of(part)}|\n"
            for start, part in lines(data)
        )
        + f"{len(data):08x}\n"
    )


def wireshark(data: bytes, indentation: str = "", start: int = 0) -> str:
    """
    Write as Wireshark does when it copies bytes.
    """
    return "".join(
        f"{indentation}{start + at:04x}  {part.hex(' '):<49}  {text_of(part)}\n"
        for at, part in lines(data)
    )


def follow(data: bytes, indentation: str = "", start: int = 0) -> str:
    """
    Write as tshark does when it follows a stream.
    """
    return "".join(
        f"{indentation}{start + at:08X}  {part[:8].hex(' '):<23}  {part[8:].hex(' '):<23}"
        f"  {text_of(part[:8])} {text_of(part[8:])}\n"
        for at, part in lines(data)
    )


def parsed(text: str) -> bytes:
    """
    Read a dump of one piece.
    """
    (piece,) = parse_hexadecimal(text.encode())
    return bytes(piece.data)


class HexadecimalTests(SynchronousTestCase):
    """
    L{parse_hexadecimal}.
    """

    @given(st.integers(0, 100), st.integers(16, len(DATA)))
    def test_styles(self, skipped: int, length: int) -> None:
        """
        What any of the programs writes is read back, of whatever length it is.
        """
        data = DATA[:16] + DATA[16 + skipped : length + skipped]
        for text in (
            xxd(data),
            xxd(data, 1),
            xxd(data, 4),
            xxd(data, 2, 32),
            hexdump(data),
            wireshark(data),
            follow(data),
            data.hex(),
            data.hex(" "),
            data.hex(":"),
            data.hex().upper(),
            data.hex(" ", 4),
            "\n".join(part.hex() for _, part in lines(data, 30)),
            ", ".join(f"0x{byte:02x}" for byte in data),
        ):
            self.assertEqual(parsed(text), data, text)

    def test_programs(self) -> None:
        """
        So is what the programs themselves write, if they are installed.
        """
        for command in (
            ["xxd"],
            ["xxd", "-g1"],
            ["xxd", "-p"],
            ["hexdump", "-C"],
            ["od", "-A", "x", "-t", "x1"],
            ["od", "-A", "x", "-t", "x1z"],
        ):
            if shutil.which(command[0]):
                text = subprocess.run(command, input=DATA, capture_output=True, check=True).stdout
                self.assertEqual(parsed(text.decode()), DATA, command)

    def test_powershell(self) -> None:
        """
        The ruler above what Format-Hex writes is none of the bytes, in its older form and in the newer one.
        """
        ruler = " ".join(f"{byte:02X}" for byte in range(16))
        older = f"           Path: C:\\a\n\n           {ruler}\n\n" + "".join(
            f"{start:08X}   {part.hex(' ').upper():<47}  {text_of(part)}\n"
            for start, part in lines(DATA)
        )
        newer = (
            f"   Label: C:\\a\n\n          Offset Bytes  Ascii\n                 {ruler}\n"
            + "".join(
                f"{start:016X} {part.hex(' ').upper():<47} {text_of(part).replace('.', chr(0xFFFD))}\n"
                for start, part in lines(DATA)
            )
        )
        for text in (older, newer, newer.replace(chr(0xFFFD), " ")):
            self.assertEqual(parsed(text), DATA, text)

    def test_long_lines(self) -> None:
        """
        Of a line with very many bytes not each is remembered while it is read.
        """
        data = DATA[:64] * 8192
        for text in (data.hex(), "{" + ",".join(f"0x{byte:02x}" for byte in data) + "}"):
            tracemalloc.start()
            try:
                self.assertEqual(parsed(text), data)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            self.assertLess(peak, 30 * len(data))

    def test_debugger(self) -> None:
        """
        What gdb shows of memory is read without its addresses.
        """
        text = "".join(
            f"0x{0x7FFE00001000 + start:x}:\t" + "\t".join(f"0x{byte:02x}" for byte in part) + "\n"
            for start, part in lines(DATA, 8)
        )
        self.assertEqual(parsed(text), DATA)

    def test_words(self) -> None:
        """
        Little-endian words are turned round, and octal and decimal offsets are read as such.
        """
        zeros = DATA[:-1] + bytes(160) + DATA[:32]
        zeros += bytes(len(zeros) % 2)
        for command in (
            ["hexdump"],
            ["xxd", "-e"],
            ["od", "-x"],
            ["od", "-A", "x", "-t", "x4"],
            ["od", "-t", "x1"],
            ["od", "-A", "d", "-t", "x1"],
        ):
            if shutil.which(command[0]):
                text = subprocess.run(command, input=zeros, capture_output=True, check=True).stdout
                self.assertEqual(parsed(text.decode()), zeros, command)

    def test_notations(self) -> None:
        """
        Literals of Python and C, arrays, Base64, and texts in UTF-16 are read.
        """
        escaped = "".join(f"\\x{byte:02x}" for byte in DATA)
        rows = "".join(
            f"{', '.join(f'0x{byte:02x}' for byte in part)}, /* {text_of(part)} */\n"
            for _, part in lines(DATA, 8)
        )
        for text in (
            repr(DATA),
            escaped,
            f'"{escaped[:64]}" \\\n"{escaped[64:]}"\n',
            f"static const unsigned char pkt1[{len(DATA)}] = {{\n{rows}}};\n",
            base64.encodebytes(DATA).decode(),
        ):
            self.assertEqual(parsed(text), DATA, text)
        for encoding in ("utf-16", "utf-8-sig"):
            (piece,) = parse_hexadecimal(xxd(DATA).encode(encoding))
            self.assertEqual(piece.data, DATA)
            self.assertTrue(looks_like_text("x".encode(encoding)))
        self.assertRaises(CaptureError, parse_hexadecimal, b"'\\x05\\q'")

    def test_left_out(self) -> None:
        """
        Lines that are left out because they repeat the one before are put back.
        """
        text = (
            "000000 05 00 0b 03 10 00 00 00 2c 00 00 00 01 00 00 00\n"
            "000010 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n"
            "*\n"
            "000050 01\n"
            "000051\n"
        )
        self.assertEqual(
            parsed(text), bytes.fromhex("05000b03100000002c00000001000000") + bytes(64) + b"\1"
        )

    def test_pieces(self) -> None:
        """
        Offsets that begin again begin another piece, and what stands between pieces is passed over.
        """
        first, second = DATA[:100], DATA[:40]
        text = f"Frame 1 (100 bytes):\n\n{wireshark(first)}\nFrame 2\n{wireshark(second)}"
        pieces = parse_hexadecimal(text.encode())
        self.assertEqual([bytes(piece.data) for piece in pieces], [first, second])

    def test_packets_of_tcpdump(self) -> None:
        """
        Packets as tcpdump writes them are read, with and without the same as text.
        """
        first, second = b"\x45\0\x9d" + DATA[:94], DATA[:40]
        for with_text in (False, True):
            text = ""
            for data in (first, second):
                text += (
                    "03:04:05.003000 IP 192.0.2.1.50000 > 192.0.2.9.1688: Flags [P.], length 160\n"
                )
                for offset, part in lines(data):
                    line = f"\t0x{offset:04x}:  {part.hex(' ', -2)}"
                    text += f"{line:<51}{text_of(part)}\n" if with_text else f"{line}\n"
            pieces = parse_hexadecimal(text.encode())
            self.assertEqual([bytes(piece.data) for piece in pieces], [first, second])

    def test_sides(self) -> None:
        """
        Indented lines are those of another side, each of which goes on where it was.
        """
        for indentation in ("    ", "\t"):
            text = (
                follow(DATA[:64])
                + follow(b"y" * 40, indentation)
                + follow(DATA[64:90], "", 64)
                + follow(b"z" * 5, indentation, 40)
            )
            pieces = parse_hexadecimal(text.encode())
            self.assertEqual(
                [(bytes(piece.data), piece.indented) for piece in pieces],
                [(DATA[:90], False), (b"y" * 40 + b"z" * 5, True)],
            )

    def test_digits_alone(self) -> None:
        """
        Digits in groups of four are bytes, though the first of them may look like an offset.
        """
        request, _ = seal_request(REQUEST, REQUEST_SALT)
        self.assertEqual(parsed(request.hex(" ", 2)), request)
        text = "\n".join(part.hex(" ", -2) for _, part in lines(DATA))
        self.assertEqual(parsed(text), DATA)

    def test_nothing(self) -> None:
        """
        Text without bytes is an error that tells what is read.
        """
        for text in ("", "hello", "GET / HTTP/1.1\r\n", "*\n*\n", "0000000\n"):
            error = self.assertRaises(CaptureError, parse_hexadecimal, text.encode())
            self.assertIn("; the dumps of xxd", str(error))

    def test_too_much(self) -> None:
        """
        Left-out lines do not make a dump larger than it may be.
        """
        line = "00000000 05 00 0b 03 10 00 00 00 2c 00 00 00 01 00 00 00\n"
        for offset in ("fffffff0", "ffffffffffffff00"):
            text = f"{line}*\n{offset} 00\n"
            self.assertRaises(CaptureError, parse_hexadecimal, text.encode())
        text = f"{line}*\n00e00000 00\n" * 2
        self.assertRaises(CaptureError, parse_hexadecimal, text.encode())

    @given(
        st.text("0123456789abcdefABCDEFxX :|>*.-\t\n", max_size=200)
        | st.binary().map(lambda data: data.decode("latin-1"))
    )
    def test_anything(self, text: str) -> None:
        """
        Any text is read, or our own error.
        """
        try:
            pieces = parse_hexadecimal(text.encode("latin-1"))
        except CaptureError:
            return
        self.assertTrue(all(piece.data for piece in pieces))


class RecognitionTests(SynchronousTestCase):
    """
    What bytes are.
    """

    def test_text(self) -> None:
        """
        Text is told from bytes by its beginning.
        """
        self.assertTrue(looks_like_text(xxd(DATA).encode()))
        self.assertFalse(looks_like_text(DATA))
        self.assertFalse(looks_like_text(b""))
        self.assertFalse(looks_like_text(b"\xff" * 1000))
        self.assertFalse(looks_like_text("n\u00e4chstes\0".encode()))

    def test_text_that_is_not_ascii(self) -> None:
        """
        Dumps may have other characters around them, in UTF-8, wherever that is cut, or in a code of eight bits.
        """
        dump = xxd(DATA)
        for before in (
            "    1   0.000000    192.0.2.1 \u2192 192.0.2.9    TCP 54 50000 \u2192 1688 [SYN]\n\n",
            "        [TCP Flags: \u00b7\u00b7\u00b7\u00b7\u00b7\u00b7\u00b7A\u00b7\u00b7\u00b7\u00b7]\n\n",
            "\u0437\u0430\u043f\u0440\u043e\u0441:\n",
        ):
            encoded = (before + dump).encode()
            for length in range(1, 120):
                self.assertTrue(looks_like_text(encoded[:length]), encoded[:length])
            (piece,) = parse_hexadecimal(encoded)
            self.assertEqual(piece.data, DATA)
        older = ("Anfrage f\u00fcr B\u00fcro:\n" + dump.replace(".", "\u00b7")).encode("latin-1")
        self.assertTrue(looks_like_text(older))
        (piece,) = parse_hexadecimal(older)
        self.assertEqual(piece.data, DATA)

    def test_messages_and_pdus(self) -> None:
        """
        PDUs and messages begin differently.
        """
        request, _ = seal_request(REQUEST, REQUEST_SALT)
        self.assertTrue(is_message(request))
        self.assertFalse(is_pdu(request))
        self.assertTrue(is_pdu(DATA))
        self.assertFalse(is_message(DATA))
        self.assertFalse(is_message(b"\0\0\7\0"))
        self.assertFalse(is_message(b"\0\0\6"))

    def test_split(self) -> None:
        """
        A message is found to be a request, an answer, or both, in every version.
        """
        for version in (4, 5, 6):
            request, opened = seal_request(REQUEST._replace(major_version=version), REQUEST_SALT)
            response = seal_response(
                opened,
                RESPONSE._replace(major_version=version),
                salt=RESPONSE_SALT,
                random=RANDOM,
                hardware_id=HARDWARE_ID,
            )
            self.assertEqual(split_messages(request), (request, None))
            self.assertEqual(split_messages(response), (None, response))
            self.assertEqual(split_messages(request + response), (request, response))
            broken = request[:-1]
            self.assertEqual(split_messages(broken), (broken, None))

    def test_size(self) -> None:
        """
        What is larger than a dump may be is an error.
        """
        self.assertEqual(read_all(ByteSource(BytesIO(b"abc"))), b"abc")
        largest = bytes(MAX_DUMP)
        self.assertEqual(len(read_all(ByteSource(BytesIO(largest)))), MAX_DUMP)
        error = self.assertRaises(CaptureError, read_all, ByteSource(BytesIO(largest + b"x")))
        self.assertIn("at most 16 MiB; cut", str(error))

    def test_piece(self) -> None:
        """
        A piece begins empty.
        """
        self.assertEqual((Piece().data, Piece().indented), (b"", False))
