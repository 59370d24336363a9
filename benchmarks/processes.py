"""
The servers that are measured, as processes: started, asked what they use, and always ended.

What a server uses is read from C{/proc}, for the process and all its descendants, because a host with workers is
several processes.  Processor time includes that of children which have ended.  Nothing is waited for without a limit,
and a server that does not end when it is told to is killed, together with whatever it has started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

#: Seconds that anything may take on a busy machine.
PATIENCE = 60.0
#: Seconds between two looks at something that is waited for.
INTERVAL = 0.02

#: Where C{benchmarks} is imported from.
ROOT = Path(__file__).resolve().parent.parent

#: Seconds of the unit in which the kernel tells processor time.
CLOCK_TICK = 1 / os.sysconf("SC_CLK_TCK")

_PROC = Path("/proc")
#: The state of an open connection in C{/proc/net/tcp}.
_ESTABLISHED = "01"


class BenchmarkError(Exception):
    """
    Something that is needed to measure does not work; the text says what, and what can be done.
    """


class ProcessTimes(NamedTuple):
    """
    What C{/proc/PID/stat} says of a process.

    @ivar parent: The process id of its parent.
    @ivar started: When it started, in clock ticks since the machine did; with the id it names a process for ever.
    @ivar ticks: Its processor time, in user and system mode, with that of children which it has waited for.
    """

    parent: int
    started: int
    ticks: int


def parse_stat(text: str) -> ProcessTimes:
    """
    Read C{/proc/PID/stat}; the name in it may hold spaces and parentheses.
    """
    fields = text.rpartition(")")[2].split()
    return ProcessTimes(int(fields[1]), int(fields[19]), sum(map(int, fields[11:15])))


def _processes() -> Iterator[tuple[int, ProcessTimes]]:
    for entry in os.listdir(_PROC):
        if entry.isdecimal():
            # A process that has ended meanwhile is none.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield int(entry), parse_stat((_PROC / entry / "stat").read_text(encoding="utf-8"))


def process_tree(root: int) -> dict[int, ProcessTimes]:
    """
    List a process and its descendants.
    """
    everything = dict(_processes())
    tree = {root: everything[root]} if root in everything else {}
    found = [root] if tree else []
    while found:
        parent = found.pop()
        for pid, times in everything.items():
            if times.parent == parent and pid not in tree:
                tree[pid] = times
                found.append(pid)
    return tree


def _resident(pid: int) -> int:
    """
    Read the resident memory of one process, in bytes, counted exactly.
    """
    for line in (_PROC / str(pid) / "smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    return 0


def _sockets(pid: int) -> set[str]:
    """
    List the sockets that a process has open, by inode.
    """
    found = set()
    for entry in (_PROC / str(pid) / "fd").iterdir():
        # It opens and closes them while we look.
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(entry))
    return {name[len("socket:[") : -1] for name in found if name.startswith("socket:[")}


def _established(port: int) -> set[str]:
    """
    List the open connections of the server's side of a port, by inode.
    """
    found = set()
    for name in ("tcp", "tcp6"):
        path = _PROC / "net" / name
        # A kernel without IPv6 has no list of its connections.
        lines = path.read_text(encoding="ascii").splitlines()[1:] if path.exists() else []
        for fields in map(str.split, lines):
            if fields[3] == _ESTABLISHED and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


class Server:
    """
    A server process, with whatever processes it starts.

    @param name: What to call it.
    @param command: The command that runs it in the foreground.
    @param directory: Its working directory, where its output is kept.
    @param environment: Variables to set beside our own.
    @ivar port: The port of 127.0.0.1 where it listens.
    @ivar answers: The answers that it has given, as far as those who measure have counted them.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        directory: Path,
        *,
        port: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self.answers = 0
        self.directory = directory
        directory.mkdir()
        self._output = directory / "output"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                # So that Ctrl-C reaches us alone, and we end it in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """
        The id of the first process.
        """
        return self._process.pid

    def tree(self) -> dict[int, ProcessTimes]:
        """
        List its processes.
        """
        return process_tree(self.pid)

    def children(self) -> set[int]:
        """
        List its processes but the first.
        """
        return self.tree().keys() - {self.pid}

    def processor_time(self) -> float:
        """
        Tell the processor time of all its processes until now, in seconds.
        """
        return sum(each.ticks for each in self.tree().values()) * CLOCK_TICK

    def resident(self) -> int:
        """
        Tell the resident memory of all its processes, in bytes; what they share is counted for each.
        """
        return sum(map(_resident, self.tree()))

    def descriptors(self) -> int:
        """
        Count the open files of all its processes.
        """
        return sum(len(os.listdir(_PROC / str(pid) / "fd")) for pid in self.tree())

    def serves(self, pid: int) -> bool:
        """
        Tell whether one of its processes has a connection in hand, one that lasts while we look.
        """
        try:
            sockets = _sockets(pid)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return not sockets.isdisjoint(_established(self.port))

    def output(self) -> str:
        """
        Get what it has said so far.
        """
        return self._output.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        """
        Wait until a condition holds.

        @param what: What is waited for, for an error.
        @raise BenchmarkError: If the process ends meanwhile, or it takes too long.
        """
        end = time.monotonic() + PATIENCE
        while not condition():
            if self._process.poll() is not None:
                raise BenchmarkError(f"the {self.name} has ended:\n{self.output()}")
            if time.monotonic() > end:
                raise BenchmarkError(f"the {self.name}: {what} takes too long:\n{self.output()}")
            time.sleep(INTERVAL)

    def stop(self) -> None:
        """
        End it, and all that it has started, whatever state that is in.
        """
        tree = self.tree()
        if self._process.poll() is None:
            self._process.terminate()
            # What it does not end by itself is killed below.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        for pid, times in tree.items():
            # The id may belong to a stranger by now, whose start is another.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                stat = parse_stat((_PROC / str(pid) / "stat").read_text(encoding="utf-8"))
                if stat.started == times.started:
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


class Floor(Server):
    """
    The floor, for one protocol version.
    """

    def __init__(self, directory: Path, version: int) -> None:
        command = [sys.executable, "-m", "benchmarks.floor", "--version", str(version)]
        super().__init__(
            f"floor for version {version}",
            command,
            directory,
            environment={
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
            },
        )
        self.wait_for("its port", lambda: self.output().endswith("\n"))
        self.port = int(self.output())


def twistd(*arguments: str) -> list[str]:
    """
    Tell how to run the twistd that belongs to this interpreter.
    """
    path = Path(sys.executable).with_name("twistd")
    if path.exists():
        return [sys.executable, str(path), *arguments]
    code = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
    return [sys.executable, "-c", code, *arguments]


def has_option(name: str) -> bool:
    """
    Tell whether C{twistd kms} has an option.

    @param name: With its two dashes.
    @raise BenchmarkError: If C{twistd kms} does not work at all.
    """
    result = subprocess.run(
        twistd("kms", "--help"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if result.returncode:
        raise BenchmarkError(
            f"twistd kms --help does not work; is kmsproto installed?\n{result.stderr}"
        )
    return any(
        line.strip().startswith((f"{name}=", name + " ")) for line in result.stdout.splitlines()
    )


def _free_port() -> int:
    """
    Find a port that nobody listens on, on any address.
    """
    with socket.create_server(("", 0)) as found:
        return int(found.getsockname()[1])


class Host(Server):
    """
    A host as users run it: C{twistd}, logging to a file.

    @param workers: How many processes serve.
    @param options: Further options of C{twistd kms}.
    """

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 1,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        port = _free_port()
        self._log = directory / "log"
        several = ["--workers", str(workers)] if workers > 1 else []
        arguments = ["--nodaemon", "--pidfile=", "--logfile", str(self._log), "kms"]
        arguments += ["--port", str(port), "--state-directory", str(directory / "state")]
        name = "host" if workers == 1 else f"host with {workers} workers"
        super().__init__(
            name,
            twistd(*arguments, *several, *options),
            directory,
            port=port,
            environment=environment,
        )
        self.wait_for("a connection", self._listens)
        if workers > 1:
            # Listening is one thing, and that each of them takes connections is another.
            self.wait_for("its workers", lambda: self.output().count(" ready worker=") >= workers)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()
        except ConnectionRefusedError:
            return False
        return True

    def output(self) -> str:
        """
        Get what it has said and logged so far.
        """
        log = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        return super().output() + log

    def granted(self) -> int:
        """
        Count the grants in its log, over all the files that twistd makes of it.
        """
        count = 0
        for path in self.directory.glob("log*"):
            with path.open("rb") as lines:
                count += sum(b" granted peer=" in line for line in lines)
        return count

    def troubles(self) -> list[str]:
        """
        List the lines of its log that tell of errors.
        """
        found: list[str] = []
        for path in sorted(self.directory.glob("log*")):
            with path.open(encoding="utf-8", errors="replace") as lines:
                found += [
                    line.strip() for line in lines if "Traceback" in line or "Unhandled" in line
                ]
        return found
