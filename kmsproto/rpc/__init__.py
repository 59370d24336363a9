"""
Connection-oriented DCE/RPC, bytes in, events and bytes out.

Nothing here knows a socket, a clock or KMS, and nothing but the standard library is imported.  Read it in the order
in which the modules build on each other::

    numbers  <-  pdu  <-  ndr, state, stream
    ndr, state        <-  management
    state             <-  headers
    headers, management, groups, stream  <-  server
    state, stream                        <-  client

C{numbers} and C{pdu} know the layouts, C{ndr} the stubs, C{state} the legal order and the negotiation of presentation
contexts, C{stream} cuts a byte stream into PDUs, C{headers} tells what is refused for its header alone, C{groups} which
connections belong together; C{server} and C{client} are the two ends of a connection.
"""
