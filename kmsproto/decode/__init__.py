"""
What travelled?  From a capture, a dump or raw bytes to the calls in it, without Twisted.
"""
