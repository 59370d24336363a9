"""
Tests of L{kmsproto.kms.messages}.
"""

from __future__ import annotations

from struct import Struct
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import LocalProtocolError, RemoteProtocolError
from kmsproto.kms.hresults import HResult
from kmsproto.kms.messages import (
    LICENCE_STATUSES,
    MalformedMessageError,
    RequestBody,
    ResponseBody,
    decode_request_body,
    decode_response_body,
    decode_version,
    encode_request_body,
    encode_response_body,
    encode_version,
    filetime,
    posix_seconds,
)
from tests.kms.samples import (
    CLIENT_TIME,
    NOW,
    REQUEST,
    RESPONSE,
    names,
    request_bodies,
    response_bodies,
    uint64s,
    units,
)

#: Versions that nobody speaks, as (minor, major).
WRONG_VERSIONS = (
    (0, 3),
    (1, 4),
    (1, 6),
    (0, 7),
    (6, 0),
    (0, 0),
    (5, 5),
    (65535, 65535),
    (0, 0x400),
)

#: Offsets in a request body.
MACHINE, STATUS, POLICY, NAME = 4, 8, 80, 108
UINT32 = Struct("<I")


def request_with_name(field: bytes) -> bytes:
    """
    Make a request body with this at the beginning of its name, and zeros behind it.
    """
    return encode_request_body(REQUEST)[:NAME] + field.ljust(128, b"\0")


def request_with(offset: int, value: int) -> bytes:
    """
    Make a request body with another 32-bit value at an offset.
    """
    data = bytearray(encode_request_body(REQUEST))
    UINT32.pack_into(data, offset, value)
    return bytes(data)


def response_with_epid(field: bytes, size: int | None = None) -> bytes:
    """
    Make a response body with these bytes for an ePID, and by default their size.
    """
    data = encode_response_body(RESPONSE)
    tail = data[-36:]
    return data[:4] + UINT32.pack(len(field) if size is None else size) + field + tail


class VersionTests(SynchronousTestCase):
    """
    The version at the beginning of all messages.
    """

    def test_spoken(self) -> None:
        """
        4.0, 5.0 and 6.0 are read, whatever follows.
        """
        for major in (4, 5, 6):
            self.assertEqual(decode_version(bytes((0, 0, major, 0))), major)
            self.assertEqual(decode_version(bytes((0, 0, major, 0)) + b"\xff" * 9), major)

    def test_not_spoken(self) -> None:
        """
        Every other version is refused and named, also one whose minor version alone is wrong.
        """
        for minor, major in WRONG_VERSIONS:
            error = self.assertRaises(
                MalformedMessageError, decode_version, Struct("<HH").pack(minor, major)
            )
            self.assertIn(f" {major}.{minor} ", str(error))

    def test_too_short(self) -> None:
        """
        Less than four bytes have no version.
        """
        for size in range(4):
            self.assertRaises(MalformedMessageError, decode_version, bytes((0, 0, 6))[:size])

    def test_earns_invalid_data(self) -> None:
        """
        A malformed message is the peer's mistake and carries the HRESULT that it earns.
        """
        error = self.assertRaises(MalformedMessageError, decode_version, b"")
        self.assertIsInstance(error, RemoteProtocolError)
        self.assertIs(error.hresult, HResult.INVALID_DATA)

    def test_encode(self) -> None:
        """
        The version of either body is written minor first, whatever it is.
        """
        self.assertEqual(encode_version(REQUEST), bytes.fromhex("00000600"))
        self.assertEqual(encode_version(RESPONSE), bytes.fromhex("00000600"))
        odd = REQUEST._replace(minor_version=0x1234, major_version=0xFFFE)
        self.assertEqual(encode_version(odd), bytes.fromhex("3412feff"))


class TimeTests(SynchronousTestCase):
    """
    FILETIMEs and POSIX seconds.
    """

    def test_known(self) -> None:
        """
        The two epochs and a day of our time are where they ought to be.
        """
        for seconds, value in (
            (0, 116444736000000000),
            (-11644473600, 0),
            (0.5, 116444736005000000),
            (NOW, CLIENT_TIME),
        ):
            self.assertEqual(filetime(seconds), value)
            self.assertEqual(posix_seconds(value), seconds)

    def test_extremes(self) -> None:
        """
        The highest FILETIME has seconds, though no date.
        """
        self.assertEqual(posix_seconds(0), -11644473600.0)
        self.assertAlmostEqual(posix_seconds(2**64 - 1), (2**64 - 116444736000000000) / 1e7, 3)

    @given(st.integers(-11644473600, 1833029933770))
    def test_whole_seconds(self, seconds: int) -> None:
        """
        Whole seconds come back exactly over the whole range of a FILETIME.
        """
        value = filetime(seconds)
        self.assertTrue(0 <= value < 2**64)
        self.assertEqual(posix_seconds(value), seconds)

    @given(uint64s)
    def test_steps(self, value: int) -> None:
        """
        A FILETIME comes back as exactly as a float allows, which is always within 0.3 milliseconds.
        """
        self.assertLessEqual(abs(filetime(posix_seconds(value)) - value), 3000)


class RequestBodyTests(SynchronousTestCase):
    """
    The request body.
    """

    def test_layout(self) -> None:
        """
        Each field stands at the offset of the specification.
        """
        data = encode_request_body(
            RequestBody(
                0x0102,
                0x0304,
                0x05060708,
                0x090A0B0C,
                0x0D0E0F10,
                UUID(int=0x000102030405060708090A0B0C0D0E0F),
                UUID(int=0x101112131415161718191A1B1C1D1E1F),
                UUID(int=0x202122232425262728292A2B2C2D2E2F),
                UUID(int=0x303132333435363738393A3B3C3D3E3F),
                0x11121314,
                0x15161718191A1B1C,
                UUID(int=0x404142434445464748494A4B4C4D4E4F),
                "aß\N{EURO SIGN}",
                b"\x77\0\x88",
            )
        )
        self.assertEqual(len(data), 236)
        for offset, text in (
            (0, "0201 0403"),
            (4, "08070605"),
            (8, "0c0b0a09"),
            (12, "100f0e0d"),
            (16, "03020100 0504 0706 08090a0b0c0d0e0f"),
            (32, "13121110 1514 1716 18191a1b1c1d1e1f"),
            (48, "23222120 2524 2726 28292a2b2c2d2e2f"),
            (64, "33323130 3534 3736 38393a3b3c3d3e3f"),
            (80, "14131211"),
            (84, "1c1b1a1918171615"),
            (92, "43424140 4544 4746 48494a4b4c4d4e4f"),
            (108, "6100 df00 ac20 0000 770088" + "00" * 117),
        ):
            expected = bytes.fromhex(text)
            self.assertEqual(data[offset : offset + len(expected)], expected, offset)

    @given(request_bodies())
    def test_round_trip(self, body: RequestBody) -> None:
        """
        What was written is read back, remains included.
        """
        data = encode_request_body(body)
        self.assertEqual(len(data), 236)
        self.assertEqual(decode_request_body(data), body)

    @given(st.binary(min_size=128, max_size=128))
    def test_name_bytes(self, field: bytes) -> None:
        """
        Whatever stands in the name is either malformed, or read so that it is written again to the byte.
        """
        data = request_with_name(field)
        try:
            body = decode_request_body(data)
        except MalformedMessageError:
            return
        self.assertEqual(encode_request_body(body), data)

    def test_is_virtual_machine(self) -> None:
        """
        Only 0 and 1 tell whether the client is a virtual machine.
        """
        for value in (0, 1):
            body = decode_request_body(request_with(MACHINE, value))
            self.assertEqual(body.is_virtual_machine, value)
        for value in (2, 256, 0xFFFFFFFF):
            error = self.assertRaises(
                MalformedMessageError, decode_request_body, request_with(MACHINE, value)
            )
            self.assertIn(str(value), str(error))

    def test_licence_status(self) -> None:
        """
        There are seven licence statuses.
        """
        self.assertEqual(len(LICENCE_STATUSES), 7)
        for value in range(7):
            body = decode_request_body(request_with(STATUS, value))
            self.assertEqual(body.licence_status, value)
        for value in (7, 256, 0xFFFFFFFF):
            error = self.assertRaises(
                MalformedMessageError, decode_request_body, request_with(STATUS, value)
            )
            self.assertIn(str(value), str(error))

    def test_n_policy(self) -> None:
        """
        An N policy is from 0 to 1000.
        """
        for value in (0, 1, 25, 1000):
            self.assertEqual(decode_request_body(request_with(POLICY, value)).n_policy, value)
        for value in (1001, 0x80000000, 0xFFFFFFFF):
            error = self.assertRaises(
                MalformedMessageError, decode_request_body, request_with(POLICY, value)
            )
            self.assertIn(str(value), str(error))

    def test_version(self) -> None:
        """
        A body of a version that nobody speaks is refused.
        """
        data = encode_request_body(REQUEST)
        for minor, major in WRONG_VERSIONS:
            self.assertRaises(
                MalformedMessageError,
                decode_request_body,
                Struct("<HH").pack(minor, major) + data[4:],
            )

    def test_ranges_are_the_readers(self) -> None:
        """
        Whatever fits the layout can be written, also what no host may take.
        """
        for body in (
            REQUEST._replace(is_virtual_machine=2),
            REQUEST._replace(licence_status=7),
            REQUEST._replace(n_policy=0xFFFFFFFF),
            REQUEST._replace(minor_version=1),
            REQUEST._replace(major_version=7),
        ):
            self.assertRaises(MalformedMessageError, decode_request_body, encode_request_body(body))

    def test_name_lengths(self) -> None:
        """
        Names of 0, 1 and 63 code units are written and read.
        """
        for name in ("", "x", "x" * 63, "\U0001f600" * 31 + "x", "\U0010ffff"):
            body = REQUEST._replace(workstation=name)
            data = encode_request_body(body)
            self.assertEqual(data[NAME:], name.encode("utf-16-le").ljust(128, b"\0"))
            self.assertEqual(decode_request_body(data), body)

    def test_name_too_long(self) -> None:
        """
        A name of 64 code units leaves no room for its zero; what counts are code units, not characters.
        """
        for name in ("x" * 64, "\U0001f600" * 32, "x" * 1000):
            error = self.assertRaises(
                LocalProtocolError, encode_request_body, REQUEST._replace(workstation=name)
            )
            self.assertIn(f"not {units(name)}", str(error))

    def test_name_without_end(self) -> None:
        """
        A name of 64 code units on the wire has no end, and is refused; so is one with single zero bytes only.
        """
        for field in (b"x\0" * 64, b"\0x" * 64, b"\0\xd8\0\xdc" * 32):
            error = self.assertRaises(
                MalformedMessageError, decode_request_body, request_with_name(field)
            )
            self.assertIn("no end", str(error))

    def test_name_to_the_end(self) -> None:
        """
        The zero may be the last code unit of the field.
        """
        body = decode_request_body(request_with_name(b"x\0" * 63))
        self.assertEqual((body.workstation, body.remains), ("x" * 63, b""))

    def test_zero_inside_a_name(self) -> None:
        """
        A name that holds a zero would be read back as another one, so it cannot be written.
        """
        self.assertRaises(
            LocalProtocolError, encode_request_body, REQUEST._replace(workstation="a\0b")
        )

    def test_other_sizes(self) -> None:
        """
        A body of any other size than 236 bytes is malformed.
        """
        whole = encode_request_body(REQUEST)
        for data in (whole[:4], whole[:-1], whole + b"\0"):
            with self.subTest(size=len(data)):
                self.assertRaises(MalformedMessageError, decode_request_body, data)

    def test_zero_is_a_code_unit(self) -> None:
        """
        Two zero bytes that belong to different code units do not end a name.
        """
        body = decode_request_body(request_with_name(b"\0\x01\x01\0"))
        self.assertEqual(body.workstation, "\u0100\u0001")

    def test_lone_surrogates_read(self) -> None:
        """
        A name that holds a surrogate without its other half is no text, wherever in the name it stands.
        """
        for raw in (
            b"\0\xd8",  # a high one before the zero
            b"\0\xdc",  # a low one
            b"a\0\xff\xdbb\0",  # a high one before a letter
            b"a\0\xff\xdfb\0",  # a low one behind a letter
            b"\0\xd8\0\xd8\0\xdc",  # a high one before a pair
            b"\0\xd8\0\xdc\0\xdc",  # a low one behind a pair
            b"\0\xdc\0\xd8",  # a pair the wrong way round
            b"x\0" * 62 + b"\0\xd8",  # a high one before the zero that ends the field
        ):
            error = self.assertRaises(
                MalformedMessageError, decode_request_body, request_with_name(raw)
            )
            self.assertIn("lone surrogate", str(error))

    def test_surrogates_without_end(self) -> None:
        """
        A name that holds nothing but surrogates up to the end of its field is refused like any without an end.
        """
        for raw in (b"\0\xd8" * 64, b"\0\xdc" * 64, b"x\0" * 63 + b"\0\xd8"):
            self.assertRaises(MalformedMessageError, decode_request_body, request_with_name(raw))

    def test_lone_surrogates_written(self) -> None:
        """
        A name that is no text cannot be written, and the complaint can be printed anywhere.
        """
        for name in ("\ud800", "a\udfffb", "\udc00\ud800"):
            error = self.assertRaises(
                LocalProtocolError, encode_request_body, REQUEST._replace(workstation=name)
            )
            self.assertTrue(str(error).isascii())

    def test_control_characters(self) -> None:
        """
        Newlines, escape characters, spaces and marks of byte order survive; to show them safely is not done here.
        """
        for name in (
            "a\nb\r\tc",
            "\x1b[31mred\x1b[0m",
            " x ",
            "\ufeffx",
            "\x7f\x80\x9f",
            "\u202ex",
        ):
            body = REQUEST._replace(workstation=name)
            self.assertEqual(decode_request_body(encode_request_body(body)), body)

    def test_remains(self) -> None:
        """
        What stands behind the zero of the name is kept, up to the last byte that is not zero, and written again.
        """
        for name, behind in (
            ("ab", b""),
            ("a", b"\xff"),
            ("a", b"\0\0\0\xff"),
            ("", b"b\0c"),
            ("a", b"\0\xd8\0\xdc\0\xdc\0\xd8"),  # remains need not be text
            ("a", b"\0" * 123 + b"\x99"),
        ):
            data = request_with_name(name.encode("utf-16-le") + b"\0\0" + behind)
            body = decode_request_body(data)
            self.assertEqual((body.workstation, body.remains), (name, behind))
            self.assertEqual(encode_request_body(body), data)

    def test_remains_do_not_fit(self) -> None:
        """
        Remains for which the name leaves no room cannot be written.
        """
        fits = REQUEST._replace(workstation="x" * 60, remains=b"\1" * 6)
        self.assertEqual(decode_request_body(encode_request_body(fits)), fits)
        for body in (
            fits._replace(remains=b"\1" * 7),
            fits._replace(workstation="x" * 63, remains=b"\0"),
        ):
            self.assertRaises(LocalProtocolError, encode_request_body, body)

    def test_numbers_that_do_not_fit(self) -> None:
        """
        A number that its field cannot hold cannot be written.
        """
        for body in (
            REQUEST._replace(minor_version=0x10000),
            REQUEST._replace(major_version=-1),
            REQUEST._replace(is_virtual_machine=2**32),
            REQUEST._replace(licence_status=-1),
            REQUEST._replace(binding_expiration=2**32),
            REQUEST._replace(n_policy=-1),
            REQUEST._replace(client_time=2**64),
            REQUEST._replace(client_time=-1),
        ):
            self.assertRaises(LocalProtocolError, encode_request_body, body)


class ResponseBodyTests(SynchronousTestCase):
    """
    The response body.
    """

    def test_layout(self) -> None:
        """
        Each field stands where the specification has it.
        """
        data = encode_response_body(
            ResponseBody(
                0x0102,
                0x0304,
                "aß",
                UUID(int=0x000102030405060708090A0B0C0D0E0F),
                0x1112131415161718,
                0x191A1B1C,
                0x1D1E1F20,
                0x21222324,
            )
        )
        self.assertEqual(
            data,
            bytes.fromhex(
                "0201 0403 06000000 6100 df00 0000 03020100 0504 0706 08090a0b0c0d0e0f"
                "1817161514131211 1c1b1a19 201f1e1d 24232221"
            ),
        )

    @given(response_bodies(), st.binary(max_size=20))
    def test_round_trip(self, body: ResponseBody, behind: bytes) -> None:
        """
        What was written is read back from the beginning of some bytes, together with its size.
        """
        data = encode_response_body(body)
        self.assertEqual(decode_response_body(data + behind), (body, len(data)))

    @given(st.binary(max_size=200))
    def test_bytes(self, behind: bytes) -> None:
        """
        Whatever follows a version is either malformed, or read so that it is written again to the byte.
        """
        data = b"\0\0\6\0" + behind
        try:
            body, size = decode_response_body(data)
        except MalformedMessageError:
            return
        self.assertEqual(encode_response_body(body), data[:size])

    def test_too_short(self) -> None:
        """
        A response that ends anywhere before its last byte is malformed.
        """
        data = encode_response_body(RESPONSE)
        for size in range(len(data)):
            self.assertRaises(MalformedMessageError, decode_response_body, data[:size])

    def test_version(self) -> None:
        """
        A response of a version that nobody speaks is malformed.
        """
        data = encode_response_body(RESPONSE)
        for minor, major in WRONG_VERSIONS:
            version = Struct("<HH").pack(minor, major)
            self.assertRaises(MalformedMessageError, decode_response_body, version + data[4:])

    def test_epid_sizes(self) -> None:
        """
        An ePID has from 2 to 128 bytes, its zero included.
        """
        for length in (0, 1, 49, 63):
            data = response_with_epid(("x" * length + "\0").encode("utf-16-le"))
            body, size = decode_response_body(data)
            self.assertEqual((body.epid, size), ("x" * length, len(data)))

    def test_epid_size_odd(self) -> None:
        """
        An odd size splits a code unit.
        """
        for size in (1, 3, 127):
            data = response_with_epid(b"x\0" * 62 + b"x\0\0\0", size)
            error = self.assertRaises(MalformedMessageError, decode_response_body, data)
            self.assertIn(f"size of {size}", str(error))

    def test_zero_inside_an_epid_written(self) -> None:
        """
        An ePID that holds a zero would be refused by every reader, so it cannot be written.
        """
        self.assertRaises(LocalProtocolError, encode_response_body, RESPONSE._replace(epid="a\0b"))

    def test_epid_size_zero(self) -> None:
        """
        A size of zero has no room for the zero that must end an ePID.
        """
        self.assertRaises(MalformedMessageError, decode_response_body, response_with_epid(b""))

    def test_epid_too_large(self) -> None:
        """
        A size over 128 is refused even where the bytes are there.
        """
        for field in (b"x\0" * 64 + b"\0\0", b"x\0" * 200 + b"\0\0"):
            self.assertRaises(
                MalformedMessageError, decode_response_body, response_with_epid(field)
            )
        for size in (130, 0x80000000, 0xFFFFFFFE):
            data = response_with_epid(b"x\0\0\0", size) + bytes(200)
            self.assertRaises(MalformedMessageError, decode_response_body, data)

    def test_epid_zeros(self) -> None:
        """
        The only zero of an ePID is its last code unit.
        """
        for field in (b"x\0y\0", b"x\0\0\0y\0\0\0", b"\0\0\0\0", b"x\0\0\0\0\0", b"\0\0x\0"):
            self.assertRaises(
                MalformedMessageError, decode_response_body, response_with_epid(field)
            )

    def test_epid_is_text(self) -> None:
        """
        An ePID with a lone surrogate is no text.
        """
        for field in (b"\0\xd8\0\0", b"\0\xdc\0\0", b"x\0\0\xd8"):
            self.assertRaises(
                MalformedMessageError, decode_response_body, response_with_epid(field)
            )

    def test_epid_cannot_be_written(self) -> None:
        """
        An ePID of more than 63 code units cannot be written.
        """
        for epid in ("x" * 64, "\U0001f600" * 32):
            self.assertRaises(
                LocalProtocolError, encode_response_body, RESPONSE._replace(epid=epid)
            )

    def test_epid_surrogates_written(self) -> None:
        """
        An ePID that is no text cannot be written.
        """
        self.assertRaises(
            LocalProtocolError, encode_response_body, RESPONSE._replace(epid="\ud800")
        )

    def test_numbers_that_do_not_fit(self) -> None:
        """
        A number that its field cannot hold cannot be written.
        """
        for body in (
            RESPONSE._replace(minor_version=-1),
            RESPONSE._replace(major_version=0x10000),
            RESPONSE._replace(client_time=2**64),
            RESPONSE._replace(client_count=-1),
            RESPONSE._replace(activation_interval=2**32),
            RESPONSE._replace(renewal_interval=-1),
        ):
            self.assertRaises(LocalProtocolError, encode_response_body, body)

    @given(names)
    def test_any_text(self, epid: str) -> None:
        """
        Any text of at most 63 code units is an ePID as far as the layout goes.
        """
        body, _ = decode_response_body(encode_response_body(RESPONSE._replace(epid=epid)))
        self.assertEqual(body.epid, epid)
