"""
The data file of vlmcsd, C{.kmd}, format 2.0: read, checked and written.

The file is one block: a header, five tables of records of 32 bytes, and the texts that the records point to.  Reading
trusts nothing.  The programs that use such files look at a few offsets and believe the rest, so that a damaged file
makes them read where nothing is; here each number is checked before it is used, and at the end every byte of the file
must belong to exactly one table or to a text, or be a NUL.  A field that means nothing must be zero, and a field that
repeats another must agree with it.  Whatever passes can be written again.

A L{KMDFile} has the records as the file has them, references still numbers.  It loses nothing, so that a file which is
read and written is the same file (if its texts stand in the usual order).  L{kmsproto.kms.kmd_catalog} turns
it into a catalogue and back.  Writing reads back what it has written: there is one set of rules, and no file leaves
here that breaks it.

Source: the specification "The .kmd file, format 2.x".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

from kmsproto.errors import CatalogError
from kmsproto.kms.catalog import MAX_KEY_ID
from kmsproto.kms.entries import shown
from kmsproto.kms.epid import EPIDError, ExtendedPID
from kmsproto.kms.messages import PROTOCOL_VERSIONS

#: The first bytes of every such file.
MAGIC = b"KMD\0"
#: Bytes of the longest text.  The format has no limit; without one, a small file could name one long text everywhere.
MAX_TEXT = 255

_MAJOR, _MINOR = 2, 0
_HEADER = struct.Struct("<4sHHBBHiiiii5Q")
_CSVLK = struct.Struct("<QqIIIB3s")
_ITEM = struct.Struct("<16sQ8B")
_HOST_BUILD = struct.Struct("<QqiiII")
_RECORD = 32
#: References to applications and KMS ids have 8 bits.
_MOST_ITEMS = 256
_OFFERS_NDR64 = 1
#: The flags of a host build.
USES_NDR64, FOR_EPID, MAY_BE_SERVER = 1, 2, 4
#: What POSIX seconds count from.
EPOCH = date(1970, 1, 1)
#: A day of POSIX.
SECONDS_OF_DAY = 86_400

_CSVLKS, _HOST_BUILDS = "CSVLK record", "host build record"
_APPLICATIONS, _KMS_IDS, _SKUS = "application record", "KMS id record", "SKU record"


@dataclass(frozen=True, slots=True)
class CSVLKRecord:
    """
    A record of the table of CSVLKs.

    @ivar epid: The extended PID that is sent if nobody wants another.
    @ivar key: What an operator calls it in vlmcsd.ini.
    @ivar name: Its name for people; may be empty.
    @ivar released: POSIX seconds.
    @ivar group_id: The second field of an extended PID.
    @ivar lowest_key_id: The first key id.
    @ivar highest_key_id: The last key id; vlmcsd draws only lower ones.
    @ivar minimum_active_clients: The least number of clients to report, up to 255.
    """

    epid: str
    key: str
    name: str
    released: int
    group_id: int
    lowest_key_id: int
    highest_key_id: int
    minimum_active_clients: int


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """
    A record of the table of applications, KMS ids or SKUs, which share one form.

    @ivar application: The index of its application; 0 for an application.
    @ivar kms_id: The index of its KMS id; 0 for an application or KMS id.
    @ivar protocol: The version its clients speak; 0 for an application.
    @ivar clients: The N policy; for an application, how many clients a host remembers.
    @ivar csvlk: The index of its CSVLK.
    """

    guid: UUID
    name: str
    application: int
    kms_id: int
    protocol: int
    clients: int
    is_retail: int
    is_preview: int
    csvlk: int


@dataclass(frozen=True, slots=True)
class HostBuildRecord:
    """
    A record of the table of host builds.

    @ivar released: POSIX seconds.
    @ivar platform_id: The first field of an extended PID.
    @ivar flags: 1 if it uses NDR64, 2 if it is for extended PIDs, 4 if it may be a server.
    """

    name: str
    released: int
    build: int
    platform_id: int
    flags: int


@dataclass(frozen=True, slots=True)
class KMDFile:
    """
    What a file says.

    @ivar offers_ndr64: Whether vlmcsd offers NDR64 unless it is told.
    @ivar csvlks: The CSVLKs; the first answers for KMS ids that are not known.
    @ivar applications: The applications.
    @ivar kms_ids: The KMS ids.
    @ivar skus: The SKUs in the order of their numbers, which count from 1.
    @ivar host_builds: The host builds, newest first.
    @ivar source: Where it came from, for errors.
    """

    offers_ndr64: bool
    csvlks: tuple[CSVLKRecord, ...]
    applications: tuple[ItemRecord, ...]
    kms_ids: tuple[ItemRecord, ...]
    skus: tuple[ItemRecord, ...]
    host_builds: tuple[HostBuildRecord, ...]
    source: str = field(compare=False)

    def encode(self) -> bytes:
        """
        Write the file.

        @raise CatalogError: If a record cannot be written, or could not be read again.
        """
        items = (*self.applications, *self.kms_ids, *self.skus)
        at_applications = _HEADER.size + _RECORD * len(self.csvlks)
        at_kms_ids = at_applications + _RECORD * len(self.applications)
        at_skus = at_kms_ids + _RECORD * len(self.kms_ids)
        at_host_builds = at_skus + _RECORD * len(self.skus)
        pool = _Pool(self.source, at_host_builds + _RECORD * len(self.host_builds))
        csvlks = [
            self._packed(
                _CSVLK,
                shown(each.key),
                *(pool.add(each.epid, each.key, each.name), each.released, each.group_id),
                *(each.lowest_key_id, each.highest_key_id, each.minimum_active_clients, bytes(3)),
            )
            for each in self.csvlks
        ]
        host_builds = [
            self._packed(
                _HOST_BUILD,
                shown(each.name),
                *(pool.add(each.name), each.released, each.build, each.platform_id, each.flags, 0),
            )
            for each in self.host_builds
        ]
        records = [
            self._packed(
                _ITEM,
                shown(each.name),
                *(each.guid.bytes_le, pool.add(each.name), each.application, each.kms_id),
                *(each.protocol, each.clients, each.is_retail, each.is_preview, each.csvlk, 0),
            )
            for each in items
        ]
        header = self._packed(
            _HEADER,
            "header",
            *(MAGIC, _MINOR, _MAJOR, len(self.csvlks), _OFFERS_NDR64 * self.offers_ndr64, 0),
            *map(len, (self.applications, self.kms_ids, self.skus, self.host_builds)),
            *(0, at_applications, at_kms_ids, at_skus, at_host_builds, 0),
        )
        data = b"".join((header, *csvlks, *records, *host_builds, pool.data))
        read_kmd(data, self.source)
        return data

    def _packed(self, layout: struct.Struct, label: str, *values: object) -> bytes:
        try:
            return layout.pack(*values)
        except struct.error as error:
            raise CatalogError(
                self.source,
                label,
                "has a number for which there is no room in a .kmd file;"
                f" most have 8 bits ({error})",
            ) from error


def read_kmd(data: bytes, source: str) -> KMDFile:
    """
    Read a file.

    @param data: All its bytes.  The work is proportional to their number.
    @param source: Where they came from, for errors.
    @raise CatalogError: If there is anything in the file that should not be.
    """
    return _Reader(data, source).read()


class _Header(NamedTuple):
    """
    The fields of the header, in their order.
    """

    magic: bytes
    minor: int
    major: int
    csvlks: int
    flags: int
    reserved: int
    applications: int
    kms_ids: int
    skus: int
    host_builds: int
    reserved_count: int
    at_applications: int
    at_kms_ids: int
    at_skus: int
    at_host_builds: int
    reserved_offset: int


class _Pool:
    """
    The texts behind the tables.
    """

    def __init__(self, source: str, start: int) -> None:
        self._source = source
        self._start = start
        self.data = bytearray()

    def add(self, *texts: str) -> int:
        """
        Append texts one behind the other, and tell the offset of the first.
        """
        offset = self._start + len(self.data)
        for text in texts:
            # A lone half of a surrogate pair and a NUL are the texts that have no bytes of their own.
            if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
                raise CatalogError(self._source, shown(text), "is no text that UTF-8 can store")
            self.data += text.encode() + b"\0"
        return offset


class _Reader:
    """
    Reads one file.
    """

    def __init__(self, data: bytes, source: str) -> None:
        self._data = data
        self._source = source
        #: Where the texts lie, as pairs of start and end.
        self._texts: set[tuple[int, int]] = set()

    def read(self) -> KMDFile:
        """
        Read it all.
        """
        header = self._header()
        tables = self._tables(header)
        csvlks = self._csvlks(header.csvlks)
        items = self._items(header, len(csvlks))
        host_builds = self._host_builds(header)
        self._check_claims(tables)
        return KMDFile(
            bool(header.flags & _OFFERS_NDR64), csvlks, *items, host_builds, self._source
        )

    def _wrong(self, label: str, problem: str) -> CatalogError:
        return CatalogError(self._source, label, problem)

    def _bounded(self, label: str, name: str, value: int, low: int, high: int) -> int:
        if not low <= value <= high:
            wanted = f"must be from {low} to {high}" if low < high else f"must be {low}"
            raise self._wrong(label, f"{name} {wanted}, not {value}")
        return value

    def _header(self) -> _Header:
        data = self._data
        if data[:4] != MAGIC:
            raise self._wrong("header", "is not that of a .kmd file, which begins with 4B 4D 44 00")
        if len(data) < _HEADER.size:
            raise self._wrong("file", f"ends after {len(data)} bytes, within the header")
        header = _Header._make(_HEADER.unpack_from(data))
        if (header.major, header.minor) != (_MAJOR, _MINOR):
            raise self._wrong(
                "header",
                f"says version {header.major}.{header.minor}, but only {_MAJOR}.{_MINOR} can be read",
            )
        if data[-1]:
            raise self._wrong("file", "does not end with a NUL, so it is probably cut off")
        self._bounded("header", "the field of flags", header.flags, 0, _OFFERS_NDR64)
        for value in (header.reserved, header.reserved_count, header.reserved_offset):
            self._bounded("header", "a reserved field", value, 0, 0)
        # A table larger than the file is found with the offsets; here it is only about numbers that can be none.
        self._bounded("header", "the number of CSVLKs", header.csvlks, 1, 255)
        self._bounded("header", "the number of applications", header.applications, 1, _MOST_ITEMS)
        self._bounded("header", "the number of KMS ids", header.kms_ids, 1, _MOST_ITEMS)
        most = len(data) // _RECORD
        self._bounded("header", "the number of SKUs", header.skus, 0, most)
        self._bounded("header", "the number of host builds", header.host_builds, 0, most)
        return header

    def _tables(self, header: _Header) -> list[tuple[int, int]]:
        """
        See where the tables lie.

        @return: Start and end of each, the header being a part of the first.
        """
        for name, offset, before, count in (
            ("KMS ids", header.at_kms_ids, header.at_applications, header.applications),
            ("SKUs", header.at_skus, header.at_kms_ids, header.kms_ids),
        ):
            if offset != before + _RECORD * count:
                raise self._wrong(
                    "header", f"the table of {name}, at {offset}, does not follow the one before"
                )
        items = header.applications + header.kms_ids + header.skus
        tables = [("CSVLKs", 0, _HEADER.size + _RECORD * header.csvlks)]
        for name, offset, count in (
            ("applications", header.at_applications, items),
            ("host builds", header.at_host_builds, header.host_builds),
        ):
            if offset % 8:
                raise self._wrong(
                    "header", f"the table of {name}, at {offset}, is not at a multiple of 8"
                )
            tables.append((name, offset, offset + _RECORD * count))
        for name, start, end in tables:
            if end > len(self._data):
                raise self._wrong(
                    "header",
                    f"the table of {name}, from {start} to {end}, does not fit into"
                    f" the {len(self._data)} bytes of the file",
                )
        tables = sorted(
            (table for table in tables if table[1] < table[2]), key=lambda each: each[1]
        )
        for first, second in pairwise(tables):
            if first[2] > second[1]:
                raise self._wrong(
                    "header", f"the tables of {first[0]} and {second[0]} lie over one another"
                )
        return [(start, end) for _, start, end in tables]

    def _text(self, label: str, name: str, offset: int) -> tuple[str, int]:
        """
        Read a text.

        @return: The text, and the offset behind its NUL.
        """
        if offset >= len(self._data):
            raise self._wrong(
                label, f"{name} is said to be at {offset}, behind the end of the file"
            )
        end = self._data.find(b"\0", offset, offset + MAX_TEXT + 1)
        if end < 0:
            raise self._wrong(label, f"{name} has more than {MAX_TEXT} bytes")
        self._texts.add((offset, end + 1))
        try:
            text = self._data[offset:end].decode()
        except UnicodeDecodeError as error:
            raise self._wrong(label, f"{name}, at {offset}, is not UTF-8") from error
        if text != text.strip() or not text.isprintable():
            raise self._wrong(
                label,
                f"{name} must be a printable text without space around it, not {shown(text)}",
            )
        return text, end + 1

    def _name(self, label: str, name: str, offset: int) -> tuple[str, int]:
        text, end = self._text(label, name, offset)
        if not text:
            raise self._wrong(label, f"{name} is empty")
        return text, end

    def _released(self, label: str, seconds: int) -> int:
        try:
            day_of(seconds)
        except OverflowError as error:
            raise self._wrong(
                label, f"is released {seconds} seconds after 1970, on no day of a calendar"
            ) from error
        return seconds

    def _csvlks(self, count: int) -> tuple[CSVLKRecord, ...]:
        records = []
        seen: dict[str, int] = {}
        for number in range(1, count + 1):
            label = f"{_CSVLKS} {number}"
            offset, released, group_id, low, high, clients, reserved = _CSVLK.unpack_from(
                self._data, _HEADER.size + _RECORD * (number - 1)
            )
            epid, offset = self._name(label, "the ePID", offset)
            key, offset = self._name(label, "the key", offset)
            name, _ = self._text(label, "the name", offset)
            label += f" ({shown(key)})"
            try:
                ExtendedPID.parse(epid)
            except EPIDError as error:
                raise self._wrong(label, str(error)) from error
            # vlmcsd does not tell capitals from small letters here, and never finds the second.
            other = seen.setdefault(key.casefold(), number)
            if other != number:
                raise self._wrong(label, f"has the same key as {_CSVLKS} {other}")
            if any(reserved):
                raise self._wrong(label, "has a reserved field that is not zero")
            self._bounded(label, "the group id", group_id, 0, 99_999)
            self._bounded(label, "the highest key id", high, 0, MAX_KEY_ID)
            # vlmcsd takes a remainder by the difference: with none, it would end there and then.
            if low >= high:
                raise self._wrong(
                    label, f"has no range of key ids, for {low} is not below {high}; widen it"
                )
            self._released(label, released)
            records.append(CSVLKRecord(epid, key, name, released, group_id, low, high, clients))
        return tuple(records)

    def _items(
        self, header: _Header, csvlks: int
    ) -> tuple[tuple[ItemRecord, ...], tuple[ItemRecord, ...], tuple[ItemRecord, ...]]:
        seen: dict[UUID, str] = {}
        last = header.applications - 1

        def application(label: str, item: ItemRecord) -> None:
            for value in (item.application, item.kms_id, item.protocol):
                self._bounded(label, "a field that says nothing here", value, 0, 0)
            for value in (item.is_retail, item.is_preview):
                self._bounded(label, "a field that says nothing here", value, 0, 0)

        def kms_id(label: str, item: ItemRecord) -> None:
            self._bounded(label, "the index of the application", item.application, 0, last)
            self._bounded(label, "a field that says nothing here", item.kms_id, 0, 0)
            self._check_product(label, item)

        def sku(label: str, item: ItemRecord) -> None:
            self._bounded(label, "the index of the KMS id", item.kms_id, 0, header.kms_ids - 1)
            self._check_product(label, item)
            if repeated(item) != repeated(kms_ids[item.kms_id]):
                raise self._wrong(
                    label,
                    "departs from its KMS id in application, N policy, retail, preview or CSVLK,"
                    " which must be the same",
                )

        def table(
            kind: str, start: int, count: int, check: Callable[[str, ItemRecord], None]
        ) -> tuple[ItemRecord, ...]:
            records = []
            for number in range(1, count + 1):
                label = f"{kind} {number}"
                fields = _ITEM.unpack_from(self._data, start + _RECORD * (number - 1))
                name, _ = self._name(label, "the name", fields[1])
                label += f" ({shown(name)})"
                item = ItemRecord(
                    guid=UUID(bytes_le=fields[0]),
                    name=name,
                    application=fields[2],
                    kms_id=fields[3],
                    protocol=fields[4],
                    clients=fields[5],
                    is_retail=fields[6],
                    is_preview=fields[7],
                    csvlk=fields[8],
                )
                other = seen.setdefault(item.guid, label)
                if other != label:
                    raise self._wrong(label, f"GUID {item.guid} is already that of {other}")
                self._bounded(label, "the reserved field", fields[9], 0, 0)
                self._bounded(label, "the index of the CSVLK", item.csvlk, 0, csvlks - 1)
                # Eight bits keep it below MAX_N_POLICY.
                self._bounded(label, "the number of clients", item.clients, 1, 255)
                check(label, item)
                records.append(item)
            return tuple(records)

        applications = table(
            _APPLICATIONS, header.at_applications, header.applications, application
        )
        kms_ids = table(_KMS_IDS, header.at_kms_ids, header.kms_ids, kms_id)
        return applications, kms_ids, table(_SKUS, header.at_skus, header.skus, sku)

    def _check_product(self, label: str, item: ItemRecord) -> None:
        low, high = min(PROTOCOL_VERSIONS), max(PROTOCOL_VERSIONS)
        self._bounded(label, "the protocol", item.protocol, low, high)
        self._bounded(label, "the field for retail", item.is_retail, 0, 1)
        self._bounded(label, "the field for preview", item.is_preview, 0, 1)

    def _host_builds(self, header: _Header) -> tuple[HostBuildRecord, ...]:
        records: list[HostBuildRecord] = []
        newer = 100_000
        for number in range(1, header.host_builds + 1):
            label = f"{_HOST_BUILDS} {number}"
            offset, released, build, platform_id, flags, reserved = _HOST_BUILD.unpack_from(
                self._data, header.at_host_builds + _RECORD * (number - 1)
            )
            name, _ = self._name(label, "the name", offset)
            label += f" ({shown(name)})"
            self._bounded(label, "the build", build, 1, 99_999)
            if build >= newer:
                raise self._wrong(label, f"builds must descend, but {build} comes after {newer}")
            newer = build
            self._bounded(label, "the platform id", platform_id, 0, 99_999)
            self._bounded(label, "the field of flags", flags, 0, 7)
            self._bounded(label, "the reserved field", reserved, 0, 0)
            self._released(label, released)
            records.append(HostBuildRecord(name, released, build, platform_id, flags))
        return tuple(records)

    def _check_claims(self, tables: list[tuple[int, int]]) -> None:
        """
        See that texts and tables keep apart, and that no byte but a NUL is nobody's.
        """
        for start, end in sorted(self._texts):
            if any(start < to and end > begin for begin, to in tables):
                raise self._wrong("file", f"the text at {start} lies in a table")
        position = 0
        for start, end in sorted([*tables, *self._texts]):
            if self._data[position:start].strip(b"\0"):
                raise self._wrong(
                    "file", f"the bytes from {position} to {start} belong to no table and no text"
                )
            position = max(position, end)
        if self._data[position:].strip(b"\0"):
            raise self._wrong("file", f"the bytes from {position} belong to no table and no text")


def day_of(seconds: int) -> date:
    """
    Tell the day of a time.

    @param seconds: POSIX seconds.

    @raise OverflowError: If the calendar does not go that far.
    """
    return EPOCH + timedelta(days=seconds // SECONDS_OF_DAY)


def repeated(item: ItemRecord) -> tuple[int, int, int, int, int]:
    """
    Tell what a SKU repeats of its KMS id: application, N policy, retail, preview and CSVLK.
    """
    return item.application, item.clients, item.is_retail, item.is_preview, item.csvlk
