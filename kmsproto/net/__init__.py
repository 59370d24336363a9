"""
KMS over Twisted: the protocols and factories of both sides, and what is around them.

C{activation} is the one place where RPC and KMS meet; it knows no Twisted.  C{server} and C{client} put it on
transports, of which C{transports} knows the peculiarities.  C{access} tells which peers are served, C{deadlines}
closes what does not get on, C{listening} opens the sockets, C{reporting} and C{quoting} write the log.
"""
