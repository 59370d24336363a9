"""
The behaviour of the host as a peer sees it: raw bytes in, raw bytes out.

Nothing here imports C{kmsproto.rpc}: the PDUs are put together by L{tests.conformance.pdus} and
taken apart by L{tests.conformance.answers}, a second and much simpler reading of the standard, and
the host is driven through L{tests.conformance.wire}.  So a misreading of the standard has to be
made twice before a test of it passes.

The numbers that open the docstrings of the tests (C{3.12}, C{7.5}) are the rows of the table "How
a correct connection-oriented DCE/RPC server behaves (ncacn_ip_tcp)", whose chapters are: 2 common
header, 3 bind, 4 bind time feature negotiation, 5 request, 6 fragmented requests, 7 alter_context,
8 security, 9 other PDU types, 10 the fault PDU, 13 choices where the standards leave one, 14 the
management interface.
"""
