"""
The parts together, over real sockets on this machine, with clients and tools that others wrote.
"""
