"""
Does a host keep the rules?  A battery of named cases, without I/O: each says what to send and judges what comes back.
"""
