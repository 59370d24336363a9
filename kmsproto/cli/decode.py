"""
C{kmsproto decode}: what is in a capture or a dump, without a host and without a network.

All the work is done by L{kmsproto.decode}; here stand the options, the reading of the file, and the exit status.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from stat import S_ISREG
from types import FrameType
from typing import BinaryIO, NoReturn

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from kmsproto.cli.decode_report import JsonReport, ListReport, Report, TextReport, flush
from kmsproto.cli.output import ExitStatus, catalog_option, console
from kmsproto.cli.usage import INTERRUPTED
from kmsproto.decode.captures import ByteSource, CaptureError
from kmsproto.decode.decoder import Counts, Decoder, Format
from kmsproto.kms.catalog import Catalog

_EXAMPLES = """\b
Examples:
  kmsproto decode office.pcapng
  kmsproto decode --summary office.pcap
  tcpdump -U -w - port 1688 | kmsproto decode --live --summary -
  xxd request.bin | kmsproto decode
"""


class _Input:
    """
    What is read.

    Whoever watches a network stops that with Ctrl-C, or with SIGTERM as C{timeout} and systemd do, and wants what was
    seen all the same.  So the reading stops, and never the work on what was read.

    @ivar advance: Is told how many bytes were read.
    """

    def __init__(self, file: BinaryIO) -> None:
        # What is there already is wanted at once.
        self._read = getattr(file, "read1", file.read)
        self._is_reading = False
        self._is_stopped = False
        self.advance: Callable[[int], None] = lambda count: None

    def read(self, size: int) -> bytes:
        """
        Read.

        @raise KeyboardInterrupt: If the user wants no more.
        """
        if self._is_stopped:
            raise KeyboardInterrupt
        self._is_reading = True
        try:
            data: bytes = self._read(size)
        finally:
            self._is_reading = False
        self.advance(len(data))
        return data

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._is_reading or self._is_stopped:
            raise KeyboardInterrupt
        self._is_stopped = True

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """
        Let the user stop the reading.
        """
        numbers = signal.SIGINT, signal.SIGTERM
        before = [signal.signal(number, self._stop) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def _fail(report: Report, problem: str, status: ExitStatus = ExitStatus.FAILED) -> NoReturn:
    """
    End with one line on the standard error, and the same for whoever reads the report as JSON.
    """
    report.fail(problem, status)
    flush()
    click.echo(f"{click.get_current_context().command_path}: {problem}", err=True)
    raise SystemExit(status)


def _open(name: str, report: Report) -> BinaryIO:
    """
    Open what is to be read.
    """
    if name == "-":
        if sys.stdin is None:
            _fail(report, "the standard input is closed; name a file", ExitStatus.USAGE)
        return sys.stdin.buffer
    try:
        return open(name, "rb")  # not Path, to which no name is the directory
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem = f"{name or repr(name)}: cannot be read: {reason}; name another, or - for the standard input"
        _fail(report, problem, ExitStatus.USAGE)


@contextmanager
def _watched(source: _Input, size: int) -> Iterator[None]:
    """
    Show how far the reading has come, if there is somebody to see it and an end to see.

    @param size: Bytes that there are; 0 if that is not known.
    """
    err = console(stderr=True)
    # What is decoded and how far it came would be written over each other.
    if not size or not err.is_terminal or (sys.stdout is not None and sys.stdout.isatty()):
        yield
        return
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("reading", total=size)
        source.advance = lambda count: progress.advance(task, count)
        yield


def _size(file: BinaryIO) -> int:
    """
    Tell the size of a regular file; of everything else 0.
    """
    try:
        status = os.fstat(file.fileno())
    except (OSError, ValueError):
        return 0
    return status.st_size if S_ISREG(status.st_mode) else 0


def _number(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def describe_counts(counts: Counts) -> str:
    """
    Say in a line what there was.
    """
    parts = []
    if counts.frames:
        parts.append(_number(counts.frames, "packet"))
        parts.append(
            f"{_number(counts.connections, 'TCP connection')} ({counts.rpc} of DCE/RPC,"
            f" {counts.conversations} of KMS)"
        )
    parts.append(f"{_number(counts.calls, 'call')} ({counts.granted} granted)")
    parts.append(_number(counts.other_pdus, "other PDU"))
    parts.append(_number(counts.problems, "problem"))
    if counts.evicted:
        parts.append(f"{_number(counts.evicted, 'connection')} given up to save memory")
    text = ", ".join(parts)
    noise = ", ".join(f"{count} {reason}" for reason, count in counts.noise.items())
    return f"{text}; passed over: {noise}" if noise else text


def _nothing_found(counts: Counts, is_capture: bool) -> str:
    """
    Say that there was nothing of interest, and what can be done.
    """
    if is_capture and not counts.frames:
        return (
            "the capture has no packets; capture what goes to and from the host's port,"
            " as tcpdump -w FILE port 1688 does"
        )
    if counts.frames:
        return (
            f"no KMS in it; {describe_counts(counts)}; capture what goes to and from the host's port,"
            " and name the port with --port if the beginning of the connection is missing"
        )
    return (
        "no KMS in it; neither a PDU of DCE/RPC nor a message of KMS begins anywhere; what is read are captures,"
        " hexadecimal dumps and raw bytes, and --format says which it is"
    )


@click.command(epilog=_EXAMPLES)
@click.argument("file", default="-", type=click.Path(allow_dash=True), metavar="[FILE]")
@click.option(
    "--format",
    "form",
    type=click.Choice([form.value for form in Format]),
    default=Format.AUTO.value,
    show_default=True,
    help="What FILE is: a capture (pcap or pcapng), a dump in hexadecimal, or PDUs and messages as they travelled.",
)
@click.option(
    "-p",
    "--port",
    "ports",
    type=click.IntRange(1, 65535),
    multiple=True,
    metavar="PORT",
    help="Look at connections to or from this port only, and show everything on them; may be repeated."
    "  [default: all connections that have to do with KMS]",
)
@click.option(
    "-s", "--summary", "--lines", "summary", is_flag=True, help="Print a line for each activation."
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON: one document in each line; the last one has the counts.",
)
@click.option("--errors-only", is_flag=True, help="Show only what is wrong, or was not granted.")
@click.option(
    "--live",
    is_flag=True,
    help="Hand every line on at once; that the input ends in the middle of a packet is no problem.",
)
@click.option("-q", "--quiet", is_flag=True, help="Do not count at the end.")
@catalog_option
def decode(
    file: str,
    form: str,
    ports: tuple[int, ...],
    summary: bool,
    as_json: bool,
    errors_only: bool,
    live: bool,
    quiet: bool,
    catalog: Catalog,
) -> None:
    """
    Show what is in a capture or a dump of KMS traffic.

    FILE is a capture (pcap or pcapng), a dump in hexadecimal (as xxd, hexdump -C, od and Wireshark make them), or raw
    bytes: PDUs of DCE/RPC, or a KMS request or response alone.  Without FILE, or with -, the standard input is read.

    Requests are opened, and answers verified as a client does it.  The status is 0 if all that was found is right, and
    1 if something is wrong, the capture is damaged or cut, or there is no KMS in it; 130 if it is stopped, with Ctrl-C
    or SIGTERM.

    With --summary the words of a line are: time, client, host, protocol version, product, client machine id,
    workstation, result, count of clients, ePID, and how many checks of the answer passed.
    """
    report: Report
    if as_json:
        report = JsonReport(catalog, errors_only=errors_only, live=live, fields=not summary)
    else:
        kind = ListReport if summary else TextReport
        report = kind(catalog, errors_only=errors_only, live=live)
    interrupted = False
    with _open(file, report) as opened:
        source = _Input(opened)
        decoder = Decoder(ByteSource(source), Format(form), frozenset(ports) or None, live=live)
        try:
            with source.stoppable(), _watched(source, _size(opened)):
                for event in decoder.events():
                    report.add(event)
        except CaptureError as error:
            _fail(report, f"{'standard input' if file == '-' else file}: {error}")
        except KeyboardInterrupt:
            interrupted = True
            click.echo(err=True)
            for event in decoder.give_up():
                report.add(event)
        counts = decoder.counts
    report.finish(counts)
    flush()
    for note in counts.notes:
        click.echo(f"note: {note}", err=True)
    if not interrupted and not counts.calls and not counts.other_pdus:
        _fail(report, _nothing_found(counts, decoder.is_capture))
    if not quiet:
        click.echo(describe_counts(counts), err=True)
    if interrupted:
        click.echo(f"{click.get_current_context().command_path}: interrupted", err=True)
        raise SystemExit(INTERRUPTED)
    raise SystemExit(ExitStatus.FAILED if counts.problems else ExitStatus.OK)
