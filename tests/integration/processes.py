"""
twistd as a process of its own, and what the tests need to talk to it: scripts, sockets, and a directory for each test.

Nothing is waited for without a limit.  A process that does not get on is killed, and the test fails with what it said.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import TestCase

from kmsproto.net.activation import Activated, Bound, ClientEvent, ClientSession
from tests.net.wiring import SALT, body

#: Seconds that anything may take on a busy machine.
PATIENCE = 30.0
#: Seconds within which a host has to stop.
STOP = 4.0


def script(name: str) -> list[str]:
    """
    Tell how to run a script of this environment.
    """
    # Debian calls twistd twistd3.
    for path in (Path(sys.executable).with_name(each) for each in (name, f"{name}3")):
        if path.exists():
            return [sys.executable, str(path)]
    modules = {"twistd": "twisted.scripts.twistd:run", "kmsproto": "kmsproto.cli.main:main"}
    module, _, function = modules[name].partition(":")
    code = f"import sys; sys.argv[0] = {name!r}; from {module} import {function} as f; f()"
    return [sys.executable, "-c", code]


def run(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """
    Run a script to its end.
    """
    return subprocess.run(
        [*script(name), *arguments],
        cwd=cwd,
        env=environment(cwd),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def environment(home: Path) -> dict[str, str]:
    """
    Make an environment in which nothing of the user's is found.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "PYTHONPATH", "TMPDIR", "COVERAGE_PROCESS_START")
    }
    return kept | {
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "home-state"),
        "PYTHONUNBUFFERED": "1",
        "LC_ALL": "C.UTF-8",
    }


class Host:
    """
    A twistd that stays in the foreground.

    What it says is read all the time, for a host that cannot write its log would stand still.

    @ivar said: What it has said so far.
    """

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*script("twistd"), "--nodaemon", *arguments],
            cwd=directory,
            env=environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        self._seen = 0
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        output = self.process.stdout
        assert output is not None
        for line in output:
            with self._news:
                self._lines.append(line)
                self.said += line
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """
        Wait for a line that matches, among those that were not looked at yet.
        """
        end = time.monotonic() + PATIENCE
        with self._news:
            while True:
                while self._seen < len(self._lines):
                    line = self._lines[self._seen]
                    self._seen += 1
                    if found := re.search(pattern, line.rstrip("\n")):
                        return found
                left = end - time.monotonic()
                if self._ended or left <= 0:
                    raise AssertionError(f"no line with {pattern!r} came:\n{self.said}")
                self._news.wait(left)

    def port(self) -> int:
        """
        Wait until it listens on TCP, and get the port.
        """
        return int(self.wait_for(r"listening address=\S+:(\d+)$")[1])

    def terminate(self) -> None:
        """
        Send SIGTERM.
        """
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = PATIENCE) -> int:
        """
        Wait for its end, and get its status.
        """
        status = self.process.wait(seconds)
        self._reader.join(PATIENCE)
        return status

    def stop(self) -> int:
        """
        Stop it in time, and get its status.
        """
        self.terminate()
        return self.wait(STOP)

    def kill(self) -> None:
        """
        Be sure that it is gone.
        """
        self.process.kill()
        self.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def exchange(connection: socket.socket, session: ClientSession) -> list[ClientEvent]:
    """
    Send what a client has to say, and get what happens next.
    """
    connection.settimeout(PATIENCE)
    connection.sendall(session.data_to_send())
    events: list[ClientEvent] = []
    while not events:
        data = connection.recv(65536)
        if not data:
            raise AssertionError("the host closed the connection")
        events = session.receive_data(data)
    return events


def ask(connection: socket.socket) -> Activated:
    """
    Ask for one activation.
    """
    session = ClientSession(ndr64=True, bind_time_features=True, multiplexed=True)
    events = exchange(connection, session)
    if events != [Bound()]:
        raise AssertionError(events)
    session.activate(body(), SALT)
    (event,) = exchange(connection, session)
    if not isinstance(event, Activated):
        raise AssertionError(event)
    return event


def ask_and_leave(connection: socket.socket) -> Activated:
    """
    Ask for one activation, and close the connection, so that a host which stops need not wait for that.
    """
    with connection:
        return ask(connection)


def read_all(connection: socket.socket) -> bytes:
    """
    Read until the host closes its side.
    """
    connection.settimeout(PATIENCE)
    data = b""
    while more := connection.recv(65536):
        data += more
    return data


def free_port(*, below: int = 65536) -> int:
    """
    Find a port that is free on the loopback address.
    """
    if below == 65536:
        with socket.create_server(("127.0.0.1", 0)) as found:
            return int(found.getsockname()[1])
    for port in range(below - 1, 0, -1):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


def has_ipv6() -> bool:
    """
    Tell whether this machine has an IPv6 loopback address.
    """
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


class TwistdCase(TestCase):
    """
    A directory for each test, and hosts that do not outlive it.
    """

    timeout = 120

    def setUp(self) -> None:
        """
        Make a directory whose path is short enough for UNIX sockets.
        """
        temporary = tempfile.TemporaryDirectory(prefix="kms-")
        self.addCleanup(temporary.cleanup)
        self.directory = Path(temporary.name)

    def start(self, *arguments: str, twistd: tuple[str, ...] = ("--pidfile=",)) -> Host:
        """
        Start a host.
        """
        return self.started(
            Host(self.directory, *twistd, "kms", "--state-directory", "state", *arguments)
        )

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """
        Look again and again, for as long as anything may take.
        """
        end = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), end, "nothing happened")
            time.sleep(0.05)

    def started(self, host: Host) -> Host:
        """
        See to the end of a host.
        """
        self.addCleanup(host.kill)
        return host

    def local(self, *arguments: str) -> tuple[Host, int]:
        """
        Start a host on a port of the loopback address.
        """
        host = self.start("--endpoint", "tcp:0:interface=127.0.0.1", *arguments)
        return host, host.port()

    def connect(self, port: int, host: str = "127.0.0.1") -> socket.socket:
        """
        Connect.
        """
        connection = socket.create_connection((host, port), PATIENCE)
        self.addCleanup(connection.close)
        return connection

    def assertStopped(self, host: Host) -> None:
        """
        A host stops in time when it is told to, without any error.

        twistd shuts down in order and then ends by the signal that asked for it.
        """
        self.assertIn(host.stop(), (0, -signal.SIGTERM), host.said)
        self.assertIn("Server Shut Down.", host.said)
        self.assertClean(host.said)

    def assertClean(self, text: str) -> None:
        """
        Nothing went wrong that nobody foresaw.
        """
        self.assertNotIn("Traceback", text)
        self.assertNotIn("Unhandled", text)

    def assertRefuses(self, line: str, *arguments: str) -> None:
        """
        twistd ends at once with status 1 and one line about the problem, and leaves no pidfile.
        """
        result = run("twistd", "--nodaemon", "kms", *arguments, cwd=self.directory)
        text = result.stdout + result.stderr
        self.assertEqual(result.returncode, 1, text)
        self.assertClean(text)
        lines = [each for each in text.splitlines() if "twistd kms: " in each]
        self.assertEqual(len(lines), 1, text)
        self.assertIn(f"twistd kms: {line}", lines[0])
        self.assertEqual(list(self.directory.glob("*.pid")), [])
