"""
What is known of KMS products, as one object that is read once and never changes.

The facts live in a TOML file (C{catalog.toml} beside this module, or one that a program names) and the rest of the
package asks a L{Catalog}: which key group answers for this KMS id, what is this GUID called, which product did the
user mean.  Reading trusts nothing: the fields of an entry are had from L{kmsproto.kms.entries.Entry}, one by one and
checked, and what entries refer to is indexed before they are read.  So a catalogue that was loaded at all can be
relied upon: no GUID in it means two things, and every name and GUID that it mentions leads somewhere.

Sources: the specification "KMS messages, versions 4, 5 and 6" for what the identifiers do; the comments in
C{catalog.toml} for the facts themselves.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar
from uuid import UUID

from kmsproto.errors import CatalogError, ProductNotFoundError
from kmsproto.kms.entries import Entry, Targets, guid_from_text
from kmsproto.kms.messages import MAX_N_POLICY, PROTOCOL_VERSIONS

_Key = TypeVar("_Key", UUID, str)

#: What errors call the catalogue that comes with the package.
BUILT_IN = "built-in catalogue"
_OLDEST, _NEWEST = min(PROTOCOL_VERSIONS), max(PROTOCOL_VERSIONS)

#: The highest key id: an extended PID has nine digits for it.
MAX_KEY_ID = 999_999_999

_FIELDS = {
    "applications": frozenset({"guid", "name", "csvlk", "minimum_clients"}),
    "host_builds": frozenset(
        {"build", "name", "platform_id", "release_date", "uses_ndr64", "for_epid", "may_be_server"}
    ),
    "kms_ids": frozenset(
        {
            *("guid", "name", "application", "csvlk", "protocol", "n_policy"),
            *("is_retail", "is_preview", "aliases"),
        }
    ),
    "skus": frozenset({"number", "guid", "name", "kms_id", "protocol"}),
    "csvlks": frozenset(
        {
            *("key", "name", "guid", "group_id", "key_id_ranges", "release_date", "oldest_host"),
            *("minimum_active_clients", "is_lab", "is_preview", "kms_ids"),
        }
    ),
}


@dataclass(frozen=True, slots=True)
class Application:
    """
    What a host counts clients by: Windows, Office 2010, or Office 2013 and later.

    @ivar csvlk: The L{CSVLK.key} of the key group that speaks for the application as a whole.
    @ivar minimum_clients: How many clients a host remembers when it keeps a list of fixed size.
    """

    guid: UUID
    name: str
    csvlk: str
    minimum_clients: int


@dataclass(frozen=True, slots=True)
class KMSId:
    """
    What a host grants or refuses by ("KMS counted id" in a request).

    @ivar application: The GUID of its application.
    @ivar protocol: The version its clients speak, 4 to 6.
    @ivar n_policy: The number of clients that its clients want to hear of.
    @ivar csvlk: The L{CSVLK.key} of the key group whose extended PID answers for it.
    @ivar aliases: Made-up GUIDs that product lists in the field have for it.
    """

    guid: UUID
    name: str
    application: UUID
    protocol: int
    n_policy: int
    is_retail: bool
    is_preview: bool
    csvlk: str
    aliases: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class SKU:
    """
    One exact product, by its activation id.  All it does not say itself is what its KMS id says.

    @ivar number: Its number in the list that users choose from, counted from 1; never given to another product.
    @ivar kms_id: The GUID of its KMS id.
    @ivar protocol: The version its clients speak, 4 to 6.
    """

    number: int
    guid: UUID
    name: str
    kms_id: UUID
    protocol: int


@dataclass(frozen=True, slots=True)
class CSVLK:
    """
    A group of KMS host keys: what an extended PID tells about the key of its host.

    @ivar key: The name that the other tables use.
    @ivar guid: The activation id of the key group, if known.  It may be the GUID of a KMS id as well.
    @ivar group_id: The second field of an extended PID.
    @ivar key_id_ranges: The key ids of the group, as ascending, inclusive pairs.
    @ivar release_date: The earliest day on which a host can have been activated with such a key.
    @ivar minimum_active_clients: The least number of clients that a charged host with such a key reports.
    @ivar invalid_host_builds: The host builds of the catalogue that are too old for such a key.
    @ivar is_lab: Whether Microsoft keeps these keys to itself.
    @ivar kms_ids: The GUIDs of the KMS ids that such a key activates, or L{None} if that is not known.
    @ivar default_epid: The extended PID that the file of the catalogue gives for it; empty if it gives none.
    """

    key: str
    name: str
    guid: UUID | None
    group_id: int
    key_id_ranges: tuple[tuple[int, int], ...]
    release_date: date
    minimum_active_clients: int
    invalid_host_builds: frozenset[int]
    is_lab: bool
    is_preview: bool
    kms_ids: frozenset[UUID] | None
    default_epid: str = ""


@dataclass(frozen=True, slots=True)
class HostBuild:
    """
    A build of Windows that a host may claim to be.

    @ivar platform_id: The first field of an extended PID.
    @ivar uses_ndr64: Whether its RPC server offers NDR64.
    @ivar for_epid: Whether it is known as a KMS host, so that an extended PID with it looks plausible.
    @ivar may_be_server: Whether there is a Windows Server of this build, or L{None} if that is not known.
    """

    build: int
    name: str
    platform_id: int
    release_date: date
    uses_ndr64: bool
    for_epid: bool
    may_be_server: bool | None


class Catalog:
    """
    The products, and the look-ups that a host and a client need.  Never changes once it is made.

    The entries given are trusted; L{parse_catalog} is what checks them.

    @ivar source: Where it came from, for errors.
    @ivar applications: The applications by GUID.
    @ivar kms_ids: The KMS ids by GUID, without aliases.
    @ivar skus: The products by activation id, in the order of their numbers.
    @ivar csvlks: The key groups by L{CSVLK.key}; the first one answers for unknown KMS ids.
    @ivar host_builds: The host builds by number, newest first.
    """

    def __init__(
        self,
        source: str,
        applications: Iterable[Application],
        kms_ids: Iterable[KMSId],
        skus: Iterable[SKU],
        csvlks: Iterable[CSVLK],
        host_builds: Iterable[HostBuild],
    ) -> None:
        self.source = source
        self.applications = MappingProxyType({entry.guid: entry for entry in applications})
        self.kms_ids = MappingProxyType({entry.guid: entry for entry in kms_ids})
        self.skus = MappingProxyType({entry.guid: entry for entry in skus})
        self.csvlks = MappingProxyType({entry.key: entry for entry in csvlks})
        self.host_builds = MappingProxyType({entry.build: entry for entry in host_builds})
        self._first_csvlk = next(iter(self.csvlks.values()))
        self._aliases = {alias: entry for entry in self.kms_ids.values() for alias in entry.aliases}
        self._csvlk_by_kms_id = {
            guid: self.csvlks[entry.csvlk]
            for guid, entry in (*self._aliases.items(), *self.kms_ids.items())
        }
        self._by_number = {str(entry.number): entry for entry in self.skus.values()}
        self._by_name = {_folded(entry.name): entry for entry in self.skus.values()}

    def kms_id(self, guid: UUID) -> KMSId | None:
        """
        Look a KMS id up, also by a made-up GUID that is known for it.
        """
        return self.kms_ids.get(guid) or self._aliases.get(guid)

    def csvlk_for(self, kms_id_guid: UUID) -> CSVLK:
        """
        Find the key group whose extended PID answers a request for a KMS id.

        A KMS id that is not known takes the first key group (Windows), as hosts in the field do.
        """
        return self._csvlk_by_kms_id.get(kms_id_guid, self._first_csvlk)

    def product(self, text: str) -> SKU:
        """
        Find the product that a user means.

        @param text: Its number, its activation id (braces or not), its name, or a beginning of its name that no other
            product has.  Case and the amount of white space do not matter.  Of products with the same name only the
            last is found by it.
        @raise ProductNotFoundError: If there is none, or if there are several; up to five names are suggested.
        """
        wanted = _folded(text)
        if wanted.isascii() and wanted.isdigit():
            return self._found(text, self._by_number.get(wanted.lstrip("0")))
        guid = guid_from_text(wanted[1:-1] if wanted[:1] + wanted[-1:] == "{}" else wanted)
        if guid is not None:
            return self._found(text, self.skus.get(guid))
        if wanted in self._by_name:
            return self._by_name[wanted]
        fitting = [sku for name, sku in self._by_name.items() if name.startswith(wanted)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            problem = f"{len(fitting)} products have names that begin with {text!r}"
            raise ProductNotFoundError(problem, tuple(sku.name for sku in fitting[:5]))
        close = get_close_matches(wanted, self._by_name, n=5)
        raise ProductNotFoundError(
            f"there is no product {text!r}", tuple(self._by_name[name].name for name in close)
        )

    def _found(self, text: str, sku: SKU | None) -> SKU:
        if sku is None:
            raise ProductNotFoundError(f"there is no product {text!r}")
        return sku

    def sku_name(self, guid: UUID) -> str:
        """
        Name a product by its activation id, or give the GUID back as text.
        """
        return _name(self.skus.get(guid), guid)

    def kms_id_name(self, guid: UUID) -> str:
        """
        Name a KMS id, also by an alias, or give the GUID back as text.
        """
        return _name(self.kms_id(guid), guid)

    def application_name(self, guid: UUID) -> str:
        """
        Name an application, or give the GUID back as text.
        """
        return _name(self.applications.get(guid), guid)

    def host_build(self, number: int) -> HostBuild:
        """
        Look a host build up by its exact number.

        @raise CatalogError: If the catalogue does not have it.
        """
        known = self.host_builds.get(number)
        if known is None:
            raise CatalogError(self.source, f"host build {number}", "is not in the catalogue")
        return known


def load_catalog(path: Path | None = None) -> Catalog:
    """
    Read a catalogue from a TOML file.

    @param path: The file; the built-in catalogue if there is none.
    @raise CatalogError: If the file cannot be read, is no TOML, or says something that cannot be.
    """
    file: Traversable = path or resources.files("kmsproto.kms").joinpath("catalog.toml")
    source = BUILT_IN if path is None else str(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CatalogError(source, "file", f"cannot be read: {error.strerror}") from error
    return read_toml(data, source)


def read_toml(data: bytes, source: str) -> Catalog:
    """
    Make a catalogue of the bytes of a TOML file.

    @param data: All bytes of the file.
    @param source: Where they came from, for errors.
    @raise CatalogError: If they are no TOML, or say something that cannot be.
    """
    try:
        document = tomllib.loads(data.decode("utf-8-sig"))
    # TOMLDecodeError and UnicodeDecodeError are ValueErrors; nesting without end exhausts the stack of the parser.
    except (ValueError, RecursionError) as error:
        raise CatalogError(source, "file", f"is no TOML: {' '.join(str(error).split())}") from error
    return parse_catalog(document, source)


def parse_catalog(document: Mapping[str, object], source: str) -> Catalog:
    """
    Make a catalogue of what a TOML file of that shape says, wherever it came from.

    @param document: The five tables, with the fields that the comments in C{catalog.toml} explain.
    @param source: Where the document came from, for errors.
    @raise CatalogError: If anything in it is missing, unknown, of the wrong type, out of range or contradicted.
    """
    for name in document:
        if name not in _FIELDS:
            raise CatalogError(source, "file", f"has an unknown table {name!r}")
    tables = {name: _table(document, source, name) for name in _FIELDS}
    if not tables["csvlks"]:
        raise CatalogError(
            source, "csvlks", "there must be at least one, to answer for unknown KMS ids"
        )
    return _Reader(source, tables).read()


def _table(document: Mapping[str, object], source: str, name: str) -> list[Entry]:
    """
    Wrap the entries of one table.
    """
    if name not in document:
        raise CatalogError(source, "file", f"lacks the table {name!r}")
    rows = document[name]
    if not isinstance(rows, list):
        raise CatalogError(source, name, "must be an array of tables")
    return [
        Entry(source, name, position, row, _FIELDS[name]) for position, row in enumerate(rows, 1)
    ]


class _Reader:
    """
    Reads the five tables into a L{Catalog}.  What entries refer to is indexed before the entries are read.
    """

    def __init__(self, source: str, tables: Mapping[str, list[Entry]]) -> None:
        self._source = source
        self._tables = tables
        self._applications = self._targets("applications")
        self._kms_ids = self._targets("kms_ids")
        self._csvlk_keys: dict[str, Entry] = {}
        for entry in tables["csvlks"]:
            self._claim(self._csvlk_keys, entry.name("key"), entry, "key")
        self._check_guids()

    def read(self) -> Catalog:
        """
        Read all there is.
        """
        host_builds = self._host_builds()
        kms_ids = [self._kms_id(entry) for entry in self._tables["kms_ids"]]
        protocols = {entry.guid: entry.protocol for entry in kms_ids}
        return Catalog(
            self._source,
            [self._application(entry) for entry in self._tables["applications"]],
            kms_ids,
            [self._sku(entry, protocols) for entry in self._tables["skus"]],
            [self._csvlk(entry, host_builds) for entry in self._tables["csvlks"]],
            host_builds.values(),
        )

    def _targets(self, table: str) -> Targets:
        found: dict[str, list[UUID]] = {}
        for entry in self._tables[table]:
            guid = entry.guid("guid")
            for text in (str(guid), str(guid)[:8]):
                found.setdefault(text, []).append(guid)
        return found

    def _claim(self, seen: dict[_Key, Entry], value: _Key, entry: Entry, field: str) -> None:
        if value in seen:
            raise entry.wrong(f"{field} {value} is already that of {seen[value].label}")
        seen[value] = entry

    def _check_guids(self) -> None:
        """
        See that no GUID means two things.  Only a CSVLK and a KMS id may share one: Windows Vista's do.
        """
        seen: dict[UUID, Entry] = {}
        for table in ("applications", "kms_ids", "skus"):
            for entry in self._tables[table]:
                self._claim(seen, entry.guid("guid"), entry, "guid")
        for entry in self._tables["kms_ids"]:
            for alias in entry.guids("aliases"):
                self._claim(seen, alias, entry, "alias")
        for entry in self._tables["kms_ids"]:
            del seen[entry.guid("guid")]
        for entry in self._tables["csvlks"]:
            if entry.has("guid"):
                self._claim(seen, entry.guid("guid"), entry, "guid")

    def _application(self, entry: Entry) -> Application:
        return Application(
            guid=entry.guid("guid"),
            name=entry.name("name"),
            csvlk=entry.key_in("csvlk", self._csvlk_keys),
            minimum_clients=entry.integer("minimum_clients", 1, 2000),
        )

    def _host_builds(self) -> dict[int, HostBuild]:
        builds: dict[int, HostBuild] = {}
        newer = 100_000
        for entry in self._tables["host_builds"]:
            number = entry.integer("build", 1, 99_999)
            if number >= newer:
                raise entry.wrong(f"builds must descend, but {number} comes after {newer}")
            newer = number
            builds[number] = HostBuild(
                build=number,
                name=entry.name("name"),
                platform_id=entry.integer("platform_id", 0, 99_999),
                release_date=entry.day("release_date"),
                uses_ndr64=entry.flag("uses_ndr64"),
                for_epid=entry.flag("for_epid"),
                may_be_server=entry.flag("may_be_server") if entry.has("may_be_server") else None,
            )
        return builds

    def _kms_id(self, entry: Entry) -> KMSId:
        return KMSId(
            guid=entry.guid("guid"),
            name=entry.name("name"),
            application=entry.reference("application", self._applications),
            protocol=entry.integer("protocol", _OLDEST, _NEWEST),
            n_policy=entry.integer("n_policy", 1, MAX_N_POLICY),
            is_retail=entry.flag("is_retail", False),
            is_preview=entry.flag("is_preview", False),
            csvlk=entry.key_in("csvlk", self._csvlk_keys),
            aliases=entry.guids("aliases"),
        )

    def _sku(self, entry: Entry, protocols: Mapping[UUID, int]) -> SKU:
        number = entry.integer("number", 1, 999_999)
        if number != entry.position:
            raise entry.wrong(
                f"numbers must run 1, 2, 3 ..., but {number} stands at {entry.position}"
            )
        kms_id = entry.reference("kms_id", self._kms_ids)
        return SKU(
            number=number,
            guid=entry.guid("guid"),
            name=entry.name("name"),
            kms_id=kms_id,
            protocol=entry.integer("protocol", _OLDEST, _NEWEST, protocols[kms_id]),
        )

    def _csvlk(self, entry: Entry, host_builds: Mapping[int, HostBuild]) -> CSVLK:
        oldest = entry.integer("oldest_host", 0, 99_999, 0)
        if oldest and oldest not in host_builds:
            raise entry.wrong(f"oldest_host names {oldest}, which no host build has")
        return CSVLK(
            key=entry.name("key"),
            name=entry.name("name"),
            guid=entry.guid("guid") if entry.has("guid") else None,
            group_id=entry.integer("group_id", 0, 99_999),
            key_id_ranges=entry.ranges("key_id_ranges", MAX_KEY_ID),
            release_date=entry.day("release_date"),
            minimum_active_clients=entry.integer("minimum_active_clients", 0, 2000, 0),
            invalid_host_builds=frozenset(build for build in host_builds if build < oldest),
            is_lab=entry.flag("is_lab", False),
            is_preview=entry.flag("is_preview", False),
            kms_ids=entry.references("kms_ids", self._kms_ids) if entry.has("kms_ids") else None,
        )


def _name(known: SKU | KMSId | Application | None, guid: UUID) -> str:
    return str(guid) if known is None else known.name


def _folded(name: str) -> str:
    """
    The form in which names are compared.
    """
    return " ".join(name.casefold().split())
