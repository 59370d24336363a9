"""
The KMS domain: messages, ciphers, products and the host that decides.

Nothing here knows RPC framing, a socket or a clock; bytes, time and randomness are arguments.  Only the standard
library is imported.  Read it in the order in which the modules build on each other::

    rijndael_tables     <-  rijndael
    hresults            <-  messages
    messages, rijndael  <-  envelopes, with its native twin _envelopes
    messages, entries   <-  catalog
    catalog             <-  epid, policy, requests
    envelopes, epid, policy  <-  host
"""
