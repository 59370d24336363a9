"""
The command line: what it takes, what it says, and with which status it ends.
"""
