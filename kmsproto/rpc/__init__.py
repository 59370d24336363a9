"""
Connection-oriented DCE/RPC, bytes in, events and bytes out.

Nothing here knows a socket, a clock or KMS, and nothing but the standard library is imported.  Read it in the order
in which the modules build on each other::

    pdu  <-  ndr  <-  management  <-  server
    pdu  <-  state                <-  server, client
    pdu  <-  stream               <-  server, client

C{pdu} knows the layouts, C{ndr} the stubs, C{state} the legal order and the negotiation of presentation contexts,
C{stream} cuts a byte stream into PDUs, C{server} and C{client} are the two ends of a connection.
"""
