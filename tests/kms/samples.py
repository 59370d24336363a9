"""
Bodies, salts and strategies that the tests of messages, envelopes and hosts share.

The bodies are ordinary ones; a test takes one and replaces what it is about.  The strategies give every body that can
be written and read back.
"""

from __future__ import annotations

from uuid import UUID

from hypothesis import strategies as st

from kmsproto.kms.messages import RequestBody, ResponseBody

WINDOWS = UUID("55c92734-d682-4d71-983e-d6ec3f16059f")
ENTERPRISE = UUID("73111121-5638-40f6-bc11-f1d7b0d64300")
WINDOWS_10 = UUID("58e2134f-8e11-4d17-9cb2-91069c151148")
CLIENT = UUID("0a97d4bb-3402-44e5-a3ad-4f1183716ef2")
#: 2026-01-02 03:04:05 UTC.
NOW = 1767323045.0
#: The same as a FILETIME.
CLIENT_TIME = 134117966450000000

REQUEST = RequestBody(
    minor_version=0,
    major_version=6,
    is_virtual_machine=1,
    licence_status=5,
    binding_expiration=43200,
    application_id=WINDOWS,
    sku_id=ENTERPRISE,
    kms_id=WINDOWS_10,
    client_machine_id=CLIENT,
    n_policy=25,
    client_time=CLIENT_TIME,
    previous_client_machine_id=UUID("01111111-2222-4333-8444-555555555555"),
    workstation="desk-17.example.org",
)
RESPONSE = ResponseBody(
    minor_version=0,
    major_version=6,
    epid="03612-00206-491-000007-03-1033-14393.0000-2152016",
    client_machine_id=CLIENT,
    client_time=CLIENT_TIME,
    client_count=50,
    activation_interval=120,
    renewal_interval=10080,
)

REQUEST_SALT = bytes(range(0x10, 0x20))
RESPONSE_SALT = bytes(range(0xA0, 0xB0))
RANDOM = bytes(range(0xF0, 0x100))
HARDWARE_ID = bytes.fromhex("3a1c049600b60076")


def units(text: str) -> int:
    """
    Count the UTF-16 code units of a text.
    """
    return len(text.encode("utf-16-le")) // 2


versions = st.sampled_from((4, 5, 6))
salts = st.binary(min_size=16, max_size=16)
uint32s = st.integers(0, 0xFFFFFFFF)
uint64s = st.integers(0, 0xFFFFFFFFFFFFFFFF)
#: Texts of at most 63 UTF-16 code units, without zero and without lone surrogates.
names = st.text(
    st.characters(min_codepoint=1, max_codepoint=0xD7FF) | st.characters(min_codepoint=0xE000),
    max_size=63,
).filter(lambda text: units(text) <= 63)


@st.composite
def request_bodies(draw: st.DrawFn) -> RequestBody:
    """
    Give request bodies that a host can read, with and without remains behind the name.
    """
    name = draw(names)
    room = 126 - 2 * units(name)
    return RequestBody(
        minor_version=0,
        major_version=draw(versions),
        is_virtual_machine=draw(st.integers(0, 1)),
        licence_status=draw(st.integers(0, 6)),
        binding_expiration=draw(uint32s),
        application_id=draw(st.uuids()),
        sku_id=draw(st.uuids()),
        kms_id=draw(st.uuids()),
        client_machine_id=draw(st.uuids()),
        n_policy=draw(st.integers(0, 1000)),
        client_time=draw(uint64s),
        previous_client_machine_id=draw(st.uuids()),
        workstation=name,
        remains=draw(st.binary(max_size=room)).rstrip(b"\0"),
    )


@st.composite
def response_bodies(draw: st.DrawFn) -> ResponseBody:
    """
    Give response bodies that a client can read.
    """
    return ResponseBody(
        minor_version=0,
        major_version=draw(versions),
        epid=draw(names),
        client_machine_id=draw(st.uuids()),
        client_time=draw(uint64s),
        client_count=draw(uint32s),
        activation_interval=draw(uint32s),
        renewal_interval=draw(uint32s),
    )
