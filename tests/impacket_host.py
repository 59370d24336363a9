"""
A KMS host on the DCE/RPC server of impacket, as a program of its own.

All that is below the operation is impacket's: PDUs, binds, faults, sockets, and the NDR of what is asked and answered.
The KMS messages are ours, for impacket knows none.  So a client, a check or an audit meets an RPC stack that shares
nothing with C{kmsproto.rpc}::

    python -m tests.impacket_host 0

The port is printed when connections are taken.  The server never ends, and does not notice a client that leaves in the
middle of a PDU: it asks for the rest for ever, and nobody else is served.  Whoever starts it must kill it; should that
be forgotten, an alarm ends it.
"""

from __future__ import annotations

import signal
import sys

from impacket.dcerpc.v5.dtypes import DWORD  # type: ignore[import-untyped]
from impacket.dcerpc.v5.ndr import (  # type: ignore[import-untyped]
    NDRCALL,
    NDRPOINTER,
    NDRUniConformantArray,
)
from impacket.dcerpc.v5.rpcrt import DCERPCServer  # type: ignore[import-untyped]

from kmsproto.kms.envelopes import open_request
from kmsproto.kms.messages import MalformedMessageError
from tests.foreign_hosts import INVALID_DATA, ForeignHost

KMS = ("51c82175-844e-4750-b0d8-ec255555bc06", "1.0")
ADDRESS = "127.0.0.1"
#: Seconds after which it is gone, whatever happens.
LIFE = 180


class Message(NDRUniConformantArray):  # type: ignore[misc]
    """
    Bytes whose number is told by another parameter.
    """

    item = "c"


class MessagePointer(NDRPOINTER):  # type: ignore[misc]
    """
    A pointer to such bytes.
    """

    referent = (("Data", Message),)


class RequestActivation(NDRCALL):  # type: ignore[misc]
    """
    What is asked.
    """

    opnum = 0
    structure = (("requestSize", DWORD), ("request", Message))


class RequestActivationResponse(NDRCALL):  # type: ignore[misc]
    """
    What is answered.
    """

    structure = (
        ("responseSize", DWORD),
        ("response", MessagePointer),
        ("ErrorCode", DWORD),
    )


def request_activation(stub: bytes) -> bytes:
    """
    Carry out operation 0.

    @param stub: The arguments in NDR.
    @return: The results in NDR.
    """
    asked = b"".join(RequestActivation(stub)["request"])
    answered = RequestActivationResponse()
    try:
        answer = ForeignHost().grant(open_request(asked))
    except MalformedMessageError:
        answered["ErrorCode"] = INVALID_DATA
        answered["responseSize"] = 0
        answered["response"] = b""
        answered.fields["response"].fields["ReferentID"] = 0
    else:
        answered["responseSize"] = len(answer)
        answered["response"] = answer
        answered["ErrorCode"] = 0
    data: bytes = answered.getData()
    return data


def main(port: int) -> None:
    """
    Serve, until somebody makes an end of it.

    @param port: The TCP port on the loopback address; 0 for one that is free.
    """
    signal.alarm(LIFE)
    server = DCERPCServer()
    server.setListenPort(port)
    server.addCallbacks(KMS, str(server.getListenPort()), {0: request_activation})
    # It listens when it runs, which is too late for who reads the port.
    server._sock.listen()
    sys.stdout.write(f"{server.getListenPort()}\n")
    sys.stdout.flush()
    # Nothing needs a thread: the program is this.
    server.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
