"""
PDUs and stubs taken apart.
"""

from __future__ import annotations

from struct import pack

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.decode.layouts import (
    flag_names,
    pdu_fields,
    request_stub_fields,
    response_stub_fields,
    syntax_name,
)
from kmsproto.kms.fields import Field
from kmsproto.rpc.ndr import (
    encode_activation_failure,
    encode_activation_request,
    encode_activation_response,
)
from kmsproto.rpc.numbers import PacketType
from kmsproto.rpc.pdu import NDR, NDR64, bind_time_features
from tests.golden import EXCHANGES, load_exchange
from tests.rpc.building import (
    KMS,
    UNKNOWN,
    accepted,
    build_ack,
    build_bind,
    build_fault,
    build_nak,
    build_pdu,
    build_request,
    build_response,
    element,
    features,
    refused,
)


def named(fields: tuple[Field, ...], name: str) -> list[tuple[str, str]]:
    """
    Give value and meaning of all fields of a name.
    """
    return [(field.value, field.meaning) for field in fields if field.name == name]


class LayoutCase(SynchronousTestCase):
    """
    What all fields have to keep.
    """

    def assertCovers(self, fields: tuple[Field, ...], length: int) -> None:
        """
        The fields lie one behind the other, and cover so many bytes.
        """
        offset = 0
        for field in fields:
            self.assertEqual(field.offset, offset, field)
            offset += field.size
        self.assertEqual(offset, length)


class PDUTests(LayoutCase):
    """
    L{pdu_fields}.
    """

    def test_recorded(self) -> None:
        """
        Every byte of the recorded PDUs belongs to a field, but for stubs.
        """
        for name in EXCHANGES:
            for recorded in load_exchange(name):
                fields = pdu_fields(recorded.data)
                is_call = recorded.packet in ("request", "response")
                self.assertCovers(fields, 24 if is_call else len(recorded.data))
                self.assertEqual(named(fields, "undecoded"), [])
                ((_, kind),) = named(fields, "PTYPE")
                self.assertEqual(kind, recorded.packet)

    def test_bind(self) -> None:
        """
        Interfaces and transfer syntaxes are named, in both byte orders.
        """
        for order in "<>":
            data = build_bind(
                [element(0, KMS.syntax, NDR, NDR64), element(1, UNKNOWN, bind_time_features(3))],
                order=order,
                group=0x1234,
            )
            fields = pdu_fields(data)
            self.assertCovers(fields, len(data))
            self.assertEqual(
                named(fields, "abstract_syntax"), [(str(KMS.syntax), "KMS"), (str(UNKNOWN), "")]
            )
            self.assertEqual(
                [meaning for _, meaning in named(fields, "transfer_syntax")],
                ["NDR", "NDR64", "bind-time features 0x3"],
            )
            self.assertEqual(named(fields, "assoc_group_id"), [("0x00001234", "")])
            self.assertEqual(named(fields, "max_recv_frag"), [("5840", "")])

    def test_bind_ack(self) -> None:
        """
        Each result has its reason.
        """
        results = [accepted(NDR64), refused(2), refused(77), features(3)]
        data = build_ack([*results, (9, 9, NDR)])  # type: ignore[list-item]
        fields = pdu_fields(data)
        self.assertCovers(fields, len(data))
        self.assertEqual(
            [meaning for _, meaning in named(fields, "result")],
            [
                *("acceptance", "provider rejection", "provider rejection", "negotiate ack"),
                "no such result",
            ],
        )
        self.assertEqual(
            [meaning for _, meaning in named(fields, "reason")],
            [
                *("", "proposed transfer syntaxes not supported", "no such reason"),
                *("the features that are granted", ""),
            ],
        )
        self.assertEqual(named(fields, "sec_addr"), [("1688", "the port")])
        self.assertEqual(len(named(fields, "gap")), 1)
        alter = build_ack([accepted()], packet_type=PacketType.ALTER_CONTEXT_RESP, address=b"")
        self.assertCovers(pdu_fields(alter), len(alter))
        self.assertEqual(named(pdu_fields(alter), "sec_addr"), [])

    def test_refusals(self) -> None:
        """
        The reason of a bind_nak and the status of a fault are named.
        """
        fields = pdu_fields(build_nak(4))
        self.assertEqual(
            named(fields, "provider_reject_reason"), [("4", "protocol_version_not_supported")]
        )
        self.assertEqual(named(fields, "protocol"), [("5.0", "a version that is spoken")])
        for order in "<>":
            fields = pdu_fields(build_fault(0x1C010002, order=order))
            self.assertCovers(fields, 32)
            self.assertEqual(named(fields, "status"), [("0x1C010002", "nca_s_op_rng_error")])

    def test_calls(self) -> None:
        """
        Of requests and responses all that stands before the stub is told.
        """
        fields = pdu_fields(build_request(b"stub", opnum=3, object_uuid=bytes(16)))
        self.assertCovers(fields, 40)
        self.assertEqual(named(fields, "opnum"), [("3", "")])
        self.assertEqual(len(named(fields, "object")), 1)
        self.assertCovers(pdu_fields(build_response(b"stub")), 24)

    def test_flags(self) -> None:
        """
        Flags are named, one of them by what it means in the PDU.
        """
        self.assertEqual(flag_names(0x03, PacketType.REQUEST), "first, last")
        self.assertEqual(flag_names(0x14, PacketType.BIND), "header signing, conc mpx")
        self.assertEqual(flag_names(0x84, PacketType.REQUEST), "pending cancel, object uuid")
        self.assertEqual(flag_names(0, PacketType.REQUEST), "")

    def test_others(self) -> None:
        """
        What belongs to no field is shown in part.
        """
        data = build_pdu(PacketType.CO_CANCEL, bytes(range(40)))
        (rest,) = (field for field in pdu_fields(data) if field.name == "undecoded")
        self.assertEqual((rest.offset, rest.size), (16, 40))
        self.assertEqual(rest.value, bytes(range(32)).hex() + "...")

    def test_cut(self) -> None:
        """
        Every PDU may be cut anywhere behind its header.
        """
        for data in (
            build_bind([element(0)]),
            build_ack([accepted()]),
            build_nak(),
            build_fault(5),
        ):
            for length in range(16, len(data)):
                self.assertCovers(pdu_fields(data[:length]), length)

    @given(st.binary(min_size=16, max_size=200))
    def test_anything(self, data: bytes) -> None:
        """
        Any bytes have fields.
        """
        for kind in range(22):
            changed = data[:2] + bytes((kind,)) + data[3:]
            fields = pdu_fields(changed)
            self.assertLessEqual(fields[-1].offset + fields[-1].size, len(data))


class StubTests(LayoutCase):
    """
    L{request_stub_fields} and L{response_stub_fields}.
    """

    def test_request(self) -> None:
        """
        Sizes, gap and message, in both transfer syntaxes.
        """
        for syntax, offset in ((NDR, 8), (NDR64, 16)):
            stub = encode_activation_request(b"message", syntax)
            fields = request_stub_fields(stub, syntax, "<")
            self.assertCovers(fields, len(stub))
            self.assertEqual(
                (fields[-1].name, fields[-1].offset, fields[-1].size), ("request", offset, 7)
            )
            longer = request_stub_fields(stub + b"trailer", syntax, "<")
            self.assertEqual(longer[-1].meaning, "what follows the arguments")
        big = request_stub_fields(pack(">II", 7, 8) + b"message", NDR, ">")
        self.assertEqual(named(big, "max_count"), [("8", "not requestSize")])

    def test_response(self) -> None:
        """
        Sizes, pointer, message, gap and HRESULT, in both transfer syntaxes.
        """
        for syntax in (NDR, NDR64):
            stub = encode_activation_response(b"message", syntax)
            fields = response_stub_fields(stub, syntax, "<")
            self.assertCovers(fields, len(stub))
            self.assertEqual(fields[-1].name, "HRESULT")
            self.assertEqual(fields[-1].value, "0x00000000")
            self.assertEqual(fields[-2].meaning, "aligns what follows to 4")

    def test_failure(self) -> None:
        """
        A null pointer is followed by the HRESULT, which is explained.
        """
        for syntax in (NDR, NDR64):
            stub = encode_activation_failure(0xC004F042, syntax)
            fields = response_stub_fields(stub, syntax, "<")
            self.assertCovers(fields, len(stub))
            self.assertEqual(named(fields, "referent id"), [("0", "a null pointer")])
            self.assertEqual(
                named(fields, "HRESULT"),
                [("0xC004F042", "the host does not activate this product")],
            )

    @given(st.binary(max_size=80), st.sampled_from([NDR, NDR64]), st.sampled_from("<>"))
    def test_anything(self, stub: bytes, syntax: object, order: str) -> None:
        """
        Any bytes are covered by fields.
        """
        for read in (request_stub_fields, response_stub_fields):
            self.assertCovers(read(stub, syntax, order), len(stub))  # type: ignore[arg-type]

    def test_names(self) -> None:
        """
        A syntax without a name is its UUID and version.
        """
        self.assertEqual(syntax_name(NDR64), "NDR64")
        self.assertEqual(syntax_name(UNKNOWN), str(UNKNOWN))
