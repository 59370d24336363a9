"""
What a host presents, as settings: the ePID and hardware id that it answered with for each key group.

A host is asked for one product of each key group that answers for any: the newest protocol version, since only version
6 tells the hardware id.  The file is for C{twistd kms --config}, or, where its name ends in C{.ini}, for vlmcsd C{-i}.
"""

from __future__ import annotations

import json
from pathlib import Path

from kmsproto.kms.catalog import SKU, Catalog, KMSId
from kmsproto.net.activation import Outcome
from kmsproto.net.quoting import printable


def askable(catalog: Catalog) -> list[tuple[KMSId, SKU]]:
    """
    Choose for each key group that answers a KMS id to ask for, and a product of it.
    """
    chosen: dict[str, tuple[KMSId, SKU]] = {}
    for sku in catalog.skus.values():
        kms_id = catalog.kms_ids[sku.kms_id]
        best = chosen.get(kms_id.csvlk)
        if best is None or _rank(kms_id) > _rank(best[0]):
            chosen[kms_id.csvlk] = (kms_id, sku)
    return list(chosen.values())


def _rank(kms_id: KMSId) -> tuple[int, bool, bool]:
    return (kms_id.protocol, not kms_id.is_preview, not kms_id.is_retail)


class Presented:
    """
    Gathers what a host presents.

    @ivar path: The file that it goes to.
    @ivar lines: The ePID, and the hardware id if there is one, by the key of the key group.
    @ivar problems: What cannot be written.
    """

    def __init__(self, catalog: Catalog, path: Path) -> None:
        self._catalog = catalog
        self.path = path
        self.lines: dict[str, tuple[str, str]] = {}
        self.problems: list[str] = []

    def add(self, outcome: Outcome) -> None:
        """
        Take an answer that was granted.
        """
        response = outcome.response
        csvlk = self._catalog.csvlk_for(outcome.request.body.kms_id)
        epid = response.body.epid
        # Quotes and the like would need an escape that not both kinds of files have; no ePID has them.
        if epid and epid.isascii() and printable(epid) == epid:
            self.lines[csvlk.key] = (epid, response.hardware_id.hex().upper())
        else:
            self.problems.append(
                f"the ePID {printable(epid)} for {csvlk.key} is left out: no setting can hold it"
            )


def render(presented: Presented, host: str) -> str:
    """
    Write the file.

    @param host: Who was asked, for a comment.
    """
    if presented.path.suffix.lower() == ".ini":
        return "".join(
            [
                f"; What {printable(host)} presents.\n",
                *(
                    f"{key} = {epid}{f' / {hardware_id}' if hardware_id else ''}\n"
                    for key, (epid, hardware_id) in presented.lines.items()
                ),
            ]
        )
    values = [
        json.dumps(f"{key}={epid}{f'/{hardware_id}' if hardware_id else ''}")
        for key, (epid, hardware_id) in presented.lines.items()
    ]
    return "\n".join(
        [
            f"# What {printable(host)} presents.",
            "[identity]",
            "epids = [",
            *(f"    {value}," for value in values),
            "]",
            "",
        ]
    )
