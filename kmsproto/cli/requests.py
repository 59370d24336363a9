"""
What to ask for: the options that make up a request, and the request that they make.

By default the request is the one that the product's own client would send.  Every field of it can be set, also to
values that no client has, to see what a host makes of them.  The client machine id is derived from the name of this
machine, so that asking a host again and again does not fill its table of clients; several requests come from several
such clients, which are the same ones next time.
"""

from __future__ import annotations

import re
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import click

from kmsproto.cli.product_type import complete_product
from kmsproto.errors import LocalProtocolError, ProductNotFoundError
from kmsproto.kms.catalog import SKU, Catalog
from kmsproto.kms.entries import guid_from_text
from kmsproto.kms.messages import (
    LICENCE_STATUSES,
    NAME_LENGTH,
    PROTOCOL_VERSIONS,
    RequestBody,
    encode_request_body,
    filetime,
)
from kmsproto.kms.requests import make_request

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: The product that is asked for when none is named, and what the built-in catalogue calls it.
DEFAULT_SKU = UUID("73111121-5638-40f6-bc11-f1d7b0d64300")
DEFAULT_PRODUCT = "Windows 10/11 Enterprise"
#: Seconds that the client time may be off at most: a hundred years.
_MOST_SECONDS = 3_200_000_000
#: The largest number that a field of 32 bits holds.
_MAXIMUM = 0xFFFFFFFF
#: Characters of a NetBIOS name.
_NETBIOS_LENGTH = 15
#: UTF-16 code units of a workstation name.
_NAME_UNITS = NAME_LENGTH // 2 - 1
_VERSION = re.compile(r"(\d{1,5})(?:\.(\d{1,5}))?", re.ASCII)


class GuidType(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases
    """
    A GUID, with or without braces, of any version.
    """

    name = "guid"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> UUID:
        """
        Read it.
        """
        if isinstance(value, UUID):
            return value
        text = str(value).strip()
        if text.startswith("{") and text.endswith("}"):
            text = text[1:-1]
        guid = guid_from_text(text.casefold())
        if guid is None:
            self.fail(
                f"{value!r} is no GUID; write it as 12345678-9abc-def0-1234-56789abcdef0",
                param,
                ctx,
            )
        return guid


class VersionType(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases
    """
    A protocol version: C{6}, C{6.0} or any other, also one that does not exist.
    """

    name = "version"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """
        Read it.

        @return: The major and the minor version.
        """
        if isinstance(value, tuple):
            return value
        match = _VERSION.fullmatch(str(value))
        major, minor = (int(part or 0) for part in match.groups()) if match else (-1, 0)
        if not (0 <= major < 65536 and minor < 65536):
            self.fail(f"{value!r} is no version; write it as 6 or 6.0", param, ctx)
        return major, minor


class StatusType(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases
    """
    A licence status by number or name; numbers that have no name are taken too.
    """

    name = "status"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """
        Read it.
        """
        text = " ".join(str(value).split()).casefold()
        names = [name.casefold() for name in LICENCE_STATUSES]
        if text in names:
            return names.index(text)
        if text.isascii() and text.isdigit() and int(text) <= _MAXIMUM:
            return int(text)
        known = ", ".join(f"{number} {name}" for number, name in enumerate(LICENCE_STATUSES))
        self.fail(f"{value!r} is no licence status; there are {known}", param, ctx)


def _read_workstation(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    if value is not None:
        try:
            units = len(value.encode("utf-16-le")) // 2
        except UnicodeEncodeError as error:
            raise click.BadParameter(f"{value!a} is not text") from error
        if units > _NAME_UNITS:
            raise click.BadParameter(
                f"a workstation name has at most {_NAME_UNITS} UTF-16 code units, not {units}"
            )
    return value


_NUMBER = click.IntRange(0, _MAXIMUM)


def product_option(command: _Command) -> _Command:
    """
    Add C{-l} and C{--product}, which arrive as C{product}: what the user wrote, or L{None}.
    """
    return click.option(
        "-l",
        "--product",
        metavar="PRODUCT",
        shell_complete=complete_product,
        help="Product to ask for: its number, its name (or the beginning of it), or its GUID."
        f"  [default: {DEFAULT_PRODUCT}]",
    )(command)


#: The options, in the order of the help.
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    product_option,
    click.option(
        "-a", "--application-id", type=GuidType(), metavar="GUID", help="Application id to send."
    ),
    click.option(
        "-s", "--sku-id", type=GuidType(), metavar="GUID", help="SKU (activation) id to send."
    ),
    click.option("-k", "--kms-id", type=GuidType(), metavar="GUID", help="KMS counted id to send."),
    click.option(
        "-K",
        "--protocol",
        type=VersionType(),
        metavar="VERSION",
        help="Protocol version to ask in, as 6 or 6.0, also one that does not exist.  [default: the product's own]",
    ),
    *(
        click.option(
            f"-{version}",
            "protocol",
            flag_value=f"{version}.0",
            type=VersionType(),
            default=None,
            help=f"Ask in protocol version {version}.",
        )
        for version in PROTOCOL_VERSIONS
    ),
    click.option(
        "-c",
        "--client-machine-id",
        type=GuidType(),
        metavar="GUID",
        help="Client machine id to send, the same in all requests.  [default: made of this machine's name]",
    ),
    click.option(
        "-o",
        "--previous-client-machine-id",
        type=GuidType(),
        metavar="GUID",
        help="Previous client machine id to send.  [default: zero]",
    ),
    click.option(
        "-w",
        "--workstation",
        callback=_read_workstation,
        metavar="NAME",
        help="Workstation name to send.  [default: this machine's]",
    ),
    click.option(
        "-d",
        "--netbios-name",
        is_flag=True,
        help="Send this machine's name as a NetBIOS name; -w comes before it.",
    ),
    click.option(
        "-r",
        "--required-clients",
        type=_NUMBER,
        metavar="N",
        help="Number of clients to demand (N policy).  [default: the product's]",
    ),
    click.option("-m", "--virtual-machine", is_flag=True, help="Claim to be a virtual machine."),
    click.option(
        "-t",
        "--licence-status",
        type=StatusType(),
        metavar="STATUS",
        help="Licence status to send, by number or name.  [default: 2, OOB grace]",
    ),
    click.option(
        "-g",
        "--binding-expiration",
        type=_NUMBER,
        metavar="MINUTES",
        help="Minutes left in that status.  [default: 0]",
    ),
    click.option(
        "--clock-offset",
        type=click.IntRange(-_MOST_SECONDS, _MOST_SECONDS),
        default=0,
        metavar="SECONDS",
        help="Let the client time be so far ahead, or with a minus behind.  [default: 0]",
    ),
)


def request_options(command: _Command) -> _Command:
    """
    Add the options that make up a request; they arrive under the names of the fields of L{Wishes}.
    """
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Wishes:
    """
    What the user set; L{None} where the product decides.
    """

    product: str | None = None
    application_id: UUID | None = None
    sku_id: UUID | None = None
    kms_id: UUID | None = None
    protocol: tuple[int, int] | None = None
    client_machine_id: UUID | None = None
    previous_client_machine_id: UUID | None = None
    workstation: str | None = None
    netbios_name: bool = False
    required_clients: int | None = None
    virtual_machine: bool = False
    licence_status: int | None = None
    binding_expiration: int | None = None
    clock_offset: int = 0


class RequestMaker:
    """
    Makes the requests.

    @param catalog: Knows the products.
    @param wishes: What the user set.
    @param machine: The name of the machine that asks; by default this one's.
    @param clock: Gives POSIX seconds; by default those of this machine.
    @raise click.BadParameter: If there is no such product, or the request cannot be written.
    """

    def __init__(
        self,
        catalog: Catalog,
        wishes: Wishes,
        machine: str | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._catalog = catalog
        self._wishes = wishes
        self._machine = socket.gethostname() if machine is None else machine
        self._clock = clock or time.time
        self.product = self._choose_product()
        try:
            encode_request_body(self.make(0))
        except LocalProtocolError as error:
            raise click.BadParameter(str(error)) from error

    def _choose_product(self) -> SKU:
        """
        Find the product that the user means, by name or by one of the GUIDs.
        """
        wishes = self._wishes
        if wishes.product is not None and not wishes.product.strip():
            raise click.BadParameter(
                f"{wishes.product!r} names no product; kmsproto products lists them all",
                param_hint="--product",
            )
        try:
            if wishes.product is not None:
                return self._catalog.product(wishes.product)
            if wishes.sku_id is not None and wishes.sku_id in self._catalog.skus:
                return self._catalog.skus[wishes.sku_id]
            if wishes.kms_id is not None:
                for sku in self._catalog.skus.values():
                    if sku.kms_id == wishes.kms_id:
                        return sku
            return self._catalog.product(str(DEFAULT_SKU))
        except ProductNotFoundError as error:
            raise click.BadParameter(
                f"{error}; kmsproto products lists them all", param_hint="--product"
            ) from error

    @property
    def name(self) -> str:
        """
        What is asked for, for people: the product, or the GUID that stands in its place.
        """
        wishes = self._wishes
        if wishes.sku_id is not None:
            return self._catalog.sku_name(wishes.sku_id)
        if wishes.kms_id is not None:
            return f"KMS id {self._catalog.kms_id_name(wishes.kms_id)}"
        return self.product.name

    def make(self, number: int) -> RequestBody:
        """
        Make a request.

        @param number: Its number, counted from 0; each comes from a client of its own.
        """
        wishes = self._wishes
        body = make_request(
            self._catalog,
            self.product,
            client_machine_id=wishes.client_machine_id or self._client(number),
            workstation=self._workstation(),
            now=0,
        )
        given: dict[str, Any] = {
            "application_id": wishes.application_id,
            "sku_id": wishes.sku_id,
            "kms_id": wishes.kms_id,
            "n_policy": wishes.required_clients,
            "licence_status": wishes.licence_status,
            "binding_expiration": wishes.binding_expiration,
            "previous_client_machine_id": wishes.previous_client_machine_id,
        }
        if wishes.protocol is not None:
            given["major_version"], given["minor_version"] = wishes.protocol
        return body._replace(
            client_time=max(filetime(self._clock() + wishes.clock_offset), 0),
            is_virtual_machine=int(wishes.virtual_machine),
            **{name: value for name, value in given.items() if value is not None},
        )

    def _client(self, number: int) -> UUID:
        name = f"{number}.{self._machine}" if number else self._machine
        return uuid.uuid5(uuid.NAMESPACE_DNS, name)

    def _workstation(self) -> str:
        wishes = self._wishes
        if wishes.workstation is not None:
            return wishes.workstation
        if wishes.netbios_name:
            return self._machine.partition(".")[0][:_NETBIOS_LENGTH].upper()
        return self._machine[:_NAME_UNITS]
