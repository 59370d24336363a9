"""
Tells twistd about the KMS host.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker

kms = ServiceMaker(
    "KMS host", "kmsproto.service.tap", "A KMS (Key Management Service) host.", "kms"
)
