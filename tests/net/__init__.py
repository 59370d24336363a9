"""
The layer on Twisted: who is served, for how long, and how connections begin and end.

Nothing here is real: time is a L{Clock<twisted.internet.task.Clock>}, a connection is a
L{Wire<tests.net.wiring.Wire>}.  A wire plays the kernel for one connection to a host: it hands segments to the protocol
while the protocol reads, collects what it writes, and knows how each side closes.  What comes back is told as replies,
C{(kind, call id, number)}, where the number is an HRESULT, a fault status or the reason of a bind_nak.
"""
