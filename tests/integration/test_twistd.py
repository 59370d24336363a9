"""
The host as twistd runs it: processes, sockets, signals and files, all of them real and on this machine only.

Nothing is waited for without a limit.  A process that does not get on is killed, and the test fails with what it said.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
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
from kmsproto.rpc import client, management, pdu
from kmsproto.rpc.numbers import PacketType
from kmsproto.service.settings import SETTINGS
from tests.net import (
    BOUND,
    PROTO_ERROR,
    SALT,
    bind,
    body,
    call,
    calls,
    granted,
    payload,
    read_replies,
    split,
)

#: Seconds that anything may take on a busy machine.
PATIENCE = 30.0
#: Seconds within which a host has to stop.
STOP = 4.0

#: An application of somebody else's, whose policy takes half a second.
SLOW_APPLICATION = """
import sys
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import deferLater
from kmsproto.kms.policy import Grant
from kmsproto.service.listener import HostService
from kmsproto.testing import host_factory

def policy(request, peer, now):
    sys.stdout.write("asked\\n")
    sys.stdout.flush()
    return deferLater(reactor, 0.5, lambda: Grant(50))

application = Application("slow")
service = HostService(
    host_factory(reactor, policy=policy),
    [serverFromString(reactor, "tcp:0:interface=127.0.0.1")],
)
service.setServiceParent(application)
"""


def script(name: str) -> list[str]:
    """
    Tell how to run a script of this environment.
    """
    path = Path(sys.executable).with_name(name)
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


class ForegroundTests(TwistdCase):
    """
    A host in the foreground.
    """

    def test_serves_and_stops(self) -> None:
        """
        A host on a port of its own answers over IPv4 and IPv6, logs one line for each, and stops on SIGTERM.
        """
        host = self.start("--port", "0")
        port = host.port()
        self.assertEqual(ask_and_leave(self.connect(port)).response.body.client_count, 50)
        host.wait_for("granted peer=127.0.0.1 ")
        if has_ipv6():
            ask_and_leave(self.connect(port, "::1"))
            host.wait_for("granted peer=::1 ")
        self.assertStopped(host)
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", port), PATIENCE).close()

    def test_stops_on_sigint(self) -> None:
        """
        A host stops on SIGINT too, with connections open.
        """
        host, port = self.local()
        silent, bound = self.connect(port), self.connect(port)
        ask(bound)
        host.process.send_signal(signal.SIGINT)
        self.assertIn(host.wait(STOP), (0, -signal.SIGINT))
        self.assertEqual((read_all(silent), read_all(bound)), (b"", b""))
        self.assertClean(host.said)

    def test_asked_and_stopped_at_once(self) -> None:
        """
        A request that is there when SIGTERM comes is answered.
        """
        host, port = self.local()
        connection = self.connect(port)
        connection.sendall(bind())
        connection.recv(65536)
        # While the host stands still, the request and then the signal arrive.
        host.process.send_signal(signal.SIGSTOP)
        connection.sendall(call(payload()))
        time.sleep(0.1)
        host.terminate()
        host.process.send_signal(signal.SIGCONT)
        self.assertEqual(read_replies(read_all(connection)), granted(2))
        connection.close()
        host.wait(STOP)
        self.assertClean(host.said)

    def test_answer_in_progress(self) -> None:
        """
        A call whose policy still decides when SIGTERM comes is answered before the host stops.
        """
        (self.directory / "slow.tac").write_text(SLOW_APPLICATION)
        host = self.started(Host(self.directory, "--pidfile=", "--python", "slow.tac"))
        connection = self.connect(host.port())
        connection.sendall(bind() + call(payload()))
        host.wait_for("asked")
        host.terminate()
        self.assertEqual(read_replies(read_all(connection)), [BOUND, *granted(2)])
        connection.close()
        self.assertIn(host.wait(STOP), (0, -signal.SIGTERM))
        self.assertClean(host.said)

    def test_two_endpoints(self) -> None:
        """
        A host may listen on several endpoints, here on TCP and on a UNIX socket, and removes the latter.
        """
        path = self.directory / "kms.socket"
        host = self.start("--endpoint", "tcp:0:interface=127.0.0.1", "--endpoint", f"unix:{path}")
        port = host.port()
        host.wait_for("kms.socket")
        ask_and_leave(self.connect(port))
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(path))
            ask(connection)
            host.wait_for("granted peer=local port=0 ")
        self.assertStopped(host)
        self.assertFalse(path.exists())

    def test_same_identity(self) -> None:
        """
        After a restart the ePID is the same; with another state directory it is another.
        """
        identities = []
        for state in ("state", "state", "elsewhere"):
            host, port = self.local("--state-directory", state)
            response = ask_and_leave(self.connect(port)).response
            identities.append((response.body.epid, response.hardware_id))
            self.assertStopped(host)
        self.assertEqual(identities[0], identities[1])
        self.assertNotEqual(identities[0][0], identities[2][0])
        self.assertNotEqual(identities[0][1], identities[2][1])

    def test_settings_reach_clients(self) -> None:
        """
        Build, locale and intervals of the command line stand in the answer.
        """
        _, port = self.local("-H", "20348", "-C", "1031", "-A", "60", "-R", "20160")
        answer = ask(self.connect(port)).response.body
        self.assertIn("-03-1031-20348.0000-", answer.epid)
        self.assertEqual((answer.activation_interval, answer.renewal_interval), (60, 20160))

    def test_default_state_directory(self) -> None:
        """
        Without a state directory the identity is kept where the help says.
        """
        if os.geteuid() == 0:
            self.skipTest("root's default directory is the system's")
        host = self.started(
            Host(self.directory, "--pidfile=", "kms", "--endpoint", "tcp:0:interface=127.0.0.1")
        )
        host.port()
        self.assertTrue((self.directory / "home-state/kmsproto/installation.json").exists())

    def test_open_files(self) -> None:
        """
        The host allows itself the open files that its connections need.
        """
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if hard != resource.RLIM_INFINITY and hard < 1100:
            self.skipTest("this process may not open as many files")
        host = self.started(
            Host(
                self.directory,
                "--pidfile=",
                "kms",
                "--state-directory=state",
                "--endpoint=tcp:0:interface=127.0.0.1",
                "--max-connections=1000",
            )
        )
        host.port()
        self.assertGreaterEqual(resource.prlimit(host.process.pid, resource.RLIMIT_NOFILE)[0], 1064)

    def test_privileges(self) -> None:
        """
        As root it opens a privileged port and all files that it needs, then gives its privileges up, and serves.

        What Python itself loads late counts too: its library may be out of reach then, as in a chroot.
        """
        if os.geteuid() != 0:
            self.skipTest("only root has privileges to give up")
        port = free_port(below=1024)
        host = self.start(
            f"--endpoint=tcp:{port}:interface=127.0.0.1",
            twistd=("--pidfile=", "--uid=65534", "--gid=65534"),
        )
        self.assertEqual(host.port(), port)
        ask_and_leave(self.connect(port))
        status = Path(f"/proc/{host.process.pid}/status").read_text()
        for name in ("Uid", "Gid"):
            self.assertRegex(status, rf"(?m)^{name}:\s+65534\s+65534\s")
        self.assertStopped(host)


class RefusalTests(TwistdCase):
    """
    Hosts that do not start.
    """

    def test_port_in_use(self) -> None:
        """
        A port that is taken is one line.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.assertRefuses(
                f"cannot listen on 127.0.0.1:{port}: Address already in use;"
                " choose another with --port or --endpoint",
                f"--endpoint=tcp:{port}:interface=127.0.0.1",
                "--state-directory=state",
            )

    def test_port_in_use_by_a_host(self) -> None:
        """
        Two hosts do not share a port, over both families.
        """
        host = self.start("--port", "0")
        port = host.port()
        self.assertRefuses(
            f"cannot listen on {port}: Address already in use",
            f"--port={port}",
            "--state-directory=state",
        )
        ask(self.connect(port))

    def test_daemon_port_in_use(self) -> None:
        """
        A daemon that cannot start says so in the terminal it was started from, and leaves no pidfile.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            result = run(
                "twistd",
                "--pidfile=kms.pid",
                "--logfile=kms.log",
                "kms",
                "--state-directory=state",
                f"--endpoint=tcp:{port}:interface=127.0.0.1",
                cwd=self.directory,
            )
        self.assertEqual(result.returncode, 1)
        self.assertIn(f"cannot listen on 127.0.0.1:{port}: Address already", result.stderr)
        self.assertClean(result.stdout + result.stderr + (self.directory / "kms.log").read_text())
        self.assertFalse((self.directory / "kms.pid").exists())

    def test_endpoints(self) -> None:
        """
        An endpoint that is none is one line.
        """
        for description in ("nonsense:1", "tcp:x", "", "ssl:1688"):
            with self.subTest(description=description):
                self.assertRefuses(
                    f"--endpoint: {description!r} is not a server endpoint",
                    f"--endpoint={description}",
                    "--state-directory=state",
                )

    def test_state_directory(self) -> None:
        """
        A state directory that cannot be written is one line.
        """
        (self.directory / "file").write_text("")
        self.assertRefuses(
            "the state directory file/state cannot be used: Not a directory;"
            " choose another with --state-directory",
            "--state-directory=file/state",
        )

    def test_damaged_state(self) -> None:
        """
        A damaged state file is one line.
        """
        (self.directory / "state").mkdir()
        for content in (b"", b"\xff"):
            (self.directory / "state/installation.json").write_bytes(content)
            with self.subTest(content=content):
                self.assertRefuses("state/installation.json is damaged;", "--state-directory=state")

    def test_options(self) -> None:
        """
        An option that does not exist, and a value that is not allowed, are one line that says where help is.
        """
        for arguments, problem in (
            (["--port=65536"], "--port: '65536' is not a port number"),
            (["--idle-timeout=0"], "--idle-timeout: '0' is not a number of seconds"),
            (["--nonsense"], "option --nonsense not recognized; see twistd kms --help"),
            (["word"], "Wrong number of arguments.; see twistd kms --help"),
            (["--host-build=12345", "--state-directory=state"], ""),
        ):
            with self.subTest(arguments=arguments):
                self.assertRefuses(problem, *arguments)


class DaemonTests(TwistdCase):
    """
    A host in the background.
    """

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """
        Look again and again, for as long as anything may take.
        """
        end = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), end, "nothing happened")
            time.sleep(0.05)

    def test_start_and_stop(self) -> None:
        """
        A daemon listens when twistd returns, writes pidfile and log, and removes the pidfile when it stops.
        """
        pidfile, log = self.directory / "kms.pid", self.directory / "kms.log"
        port = free_port()
        result = run(
            "twistd",
            "--pidfile=kms.pid",
            "--logfile=kms.log",
            "kms",
            "--state-directory=state",
            f"--endpoint=tcp:{port}:interface=127.0.0.1",
            cwd=self.directory,
        )
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))
        pid = int(pidfile.read_text())
        self.addCleanup(self._kill, pid)
        ask_and_leave(self.connect(port))
        os.kill(pid, signal.SIGTERM)
        self.wait_until(lambda: not pidfile.exists())
        text = log.read_text()
        self.assertIn(f"listening address=127.0.0.1:{port}\n", text)
        self.assertEqual(text.count("granted peer=127.0.0.1"), 1)
        self.wait_until(lambda: "Server Shut Down." in log.read_text())
        self.assertClean(text)

    def _kill(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class HelpTests(TwistdCase):
    """
    What twistd says of the host.
    """

    def test_listed(self) -> None:
        """
        twistd lists the host among its commands.
        """
        result = run("twistd", "--help", cwd=self.directory)
        self.assertEqual(result.returncode, 0)
        self.assertRegex(result.stdout, r"(?m)^ +kms +A KMS ")

    def test_help(self) -> None:
        """
        The help names every setting, and whose duty licences are.
        """
        result = run("twistd", "kms", "--help", cwd=self.directory)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        text = " ".join(result.stdout.split())
        self.assertIn("It grants no licence", text)
        self.assertIn("must own the volume licences", text)
        for setting in SETTINGS:
            self.assertIn(f"--{setting.name}", text)
        self.assertEqual(list(self.directory.iterdir()), [])


class SocketTests(TwistdCase):
    """
    What only real sockets show.
    """

    def test_byte_by_byte(self) -> None:
        """
        A client that sends single bytes is answered.
        """
        _, port = self.local()
        connection = self.connect(port)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in bind() + call(payload()):
            connection.send(bytes((byte,)))
        connection.shutdown(socket.SHUT_WR)
        self.assertEqual(read_replies(read_all(connection)), [BOUND, *granted(2)])

    def test_half_close(self) -> None:
        """
        A client that closes its side right after its calls gets every answer.
        """
        _, port = self.local()
        connection = self.connect(port)
        connection.sendall(bind() + calls(500))
        connection.shutdown(socket.SHUT_WR)
        self.assertEqual(read_replies(read_all(connection)), [BOUND, *granted(*range(2, 502))])

    def test_answer_survives_the_close(self) -> None:
        """
        The answer that precedes a close arrives, although the client has sent more that nobody reads.
        """
        _, port = self.local()
        connection = self.connect(port)
        connection.sendall(bind() + b"\4" + call(payload(), 9)[1:] + bytes(300_000))
        self.assertEqual(read_replies(read_all(connection)), [BOUND, ("fault", 9, PROTO_ERROR)])

    def test_linger(self) -> None:
        """
        A client that does not close after the host did is cut off.
        """
        _, port = self.local()
        connection = self.connect(port)
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(read_all(connection), b"")
        with self.assertRaises(OSError):
            for _ in range(100):
                connection.sendall(b"more")
                time.sleep(0.1)

    def test_client_that_does_not_read(self) -> None:
        """
        A client that sends calls and does not read is not read from, until it reads; then all is answered.
        """
        host, port = self.local()
        connection = socket.socket()
        self.addCleanup(connection.close)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection.connect(("127.0.0.1", port))
        # Small questions with large answers, which are not logged: those of the management interface.
        elements = client.offer(management.MANAGEMENT.syntax, ndr64=False, bind_time_features=False)
        question = b"".join(pdu.encode_request(2, 0, 0, b"", 5840))
        connection.sendall(
            pdu.encode_bind(PacketType.BIND, 3, 1, pdu.Bind(5840, 5840, 0, elements))
        )
        self.assertEqual(len(split(connection.recv(65536))), 1)
        stream = question * 1_000_000
        connection.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < len(stream):
                sent += connection.send(stream[sent : sent + 65536])
        self.assertLess(sent, len(stream), "the host took everything")
        # What was begun is sent to its end while the answers are read.
        connection.settimeout(PATIENCE)
        count = -(-sent // len(question))
        rest = stream[sent : count * len(question)]
        sender = threading.Thread(target=connection.sendall, args=(rest,))
        sender.start()
        self.addCleanup(sender.join, PATIENCE)
        size, received = 0, 0
        while not size or received < count * size:
            data = connection.recv(65536)
            self.assertNotEqual(data, b"")
            size = size or int.from_bytes(data[8:10], "little")
            received += len(data)
        self.assertEqual(received, count * size)
        self.assertGreater(count, 1000)
        connection.close()
        self.assertStopped(host)

    def test_caps(self) -> None:
        """
        Connections beyond the cap of an address get no byte; a place that gets free is given away again.
        """
        host, port = self.local("--max-connections-per-address", "2")
        first, second = self.connect(port), self.connect(port)
        ask(first)
        ask(second)
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(read_all(self.connect(port)), b"")
        host.wait_for('turned away .*reason="2 connections of this address are open"')
        first.close()
        end = time.monotonic() + PATIENCE
        while True:
            try:
                ask(self.connect(port))
                break
            except (AssertionError, ConnectionError):
                self.assertLess(time.monotonic(), end)
                time.sleep(0.05)

    def test_idle_timeout(self) -> None:
        """
        A client that says nothing is closed.
        """
        host, port = self.local("--idle-timeout", "0.3")
        self.assertEqual(read_all(self.connect(port)), b"")
        host.wait_for('closed peer=127.0.0.1 .*reason="timed out: it never bound"')

    def test_many_clients(self) -> None:
        """
        Two hundred clients at a time are served, good ones between bad ones.
        """
        host, port = self.local()
        connections = [self.connect(port) for _ in range(200)]
        for number, connection in enumerate(connections):
            connection.sendall(bind() + call(payload()) if number % 2 else bytes(1000))
        for number, connection in enumerate(connections):
            connection.shutdown(socket.SHUT_WR)
            expected = [BOUND, *granted(2)] if number % 2 else []
            self.assertEqual(read_replies(read_all(connection)), expected)
        self.assertStopped(host)

    def test_names_the_port(self) -> None:
        """
        The bind_ack names the port that the host listens on.
        """
        _, port = self.local()
        connection = self.connect(port)
        connection.sendall(bind())
        ((header, data),) = split(connection.recv(65536))
        self.assertEqual(header.packet_type, PacketType.BIND_ACK)
        self.assertIn(f"{port}\0".encode(), data)
