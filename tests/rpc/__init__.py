"""
Tests of connection-oriented DCE/RPC, from the inside: the cores are fed with bytes, and no transport is near.

What arrives in these tests is put together by C{building}, which can write either byte order and any mistake; whole
exchanges that were recorded come from C{tests.golden}.
"""

from __future__ import annotations

from hypothesis import settings

#: How properties are tested here: the same examples each time, however slow the machine is.
PROPERTY = settings(max_examples=100, derandomize=True, database=None)
