"""
Tests of the KMS domain.
"""

from __future__ import annotations
