"""
Tests of the decoder.
"""

from __future__ import annotations
