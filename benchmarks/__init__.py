"""
How fast kmsproto is, measured: single operations, and a whole host beside the least that a Twisted server can do.

C{python -m benchmarks} measures a host as users run it, a C{twistd} process that logs to a file, with load from
outside, beside L{the floor<benchmarks.floor>}.  C{python -m benchmarks.micro} measures single operations with pyperf.
Neither is a test: nothing here has an opinion on how fast is fast enough but the table L{benchmarks.targets}, and even
that only shows.  C{docs/benchmarks.rst} tells how to run them and how to read what they print.

The package does not ship with kmsproto, and nothing in kmsproto imports it.
"""

from __future__ import annotations
