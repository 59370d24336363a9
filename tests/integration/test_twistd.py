"""
The host as twistd runs it: processes, sockets, signals and files, all of them real and on this machine only.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from pathlib import Path

from kmsproto.service.settings import SETTINGS
from tests.integration.processes import (
    PATIENCE,
    STOP,
    Host,
    TwistdCase,
    ask,
    ask_and_leave,
    free_port,
    has_ipv6,
    read_all,
    run,
)
from tests.net.wiring import BOUND, bind, call, granted, payload, read_replies

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

    def test_impatience(self) -> None:
        """
        Who presses Ctrl-C again does not wait for the answer, and sees no traceback.
        """
        slow = SLOW_APPLICATION.replace("0.5", "600").replace(
            "policy=policy", "policy=policy, limits=Limits(drain_timeout=600.0)"
        )
        (self.directory / "slow.tac").write_text("from kmsproto.net.server import Limits" + slow)
        host = self.started(Host(self.directory, "--pidfile=", "--python", "slow.tac"))
        connection = self.connect(host.port())
        connection.sendall(bind() + call(payload()))
        host.wait_for("asked")
        host.process.send_signal(signal.SIGINT)
        host.wait_for("Port [0-9]+ Closed")
        host.process.send_signal(signal.SIGINT)
        self.assertIn(host.wait(STOP), (0, -signal.SIGINT))
        connection.close()
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
        # The daemon has told the terminal, and is about to remove it.
        self.wait_until(lambda: not (self.directory / "kms.pid").exists())

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
            (["word"], "'word' is no option, and nothing else is wanted; see twistd kms --help"),
            (["--host-build=12345", "--state-directory=state"], ""),
        ):
            with self.subTest(arguments=arguments):
                self.assertRefuses(problem, *arguments)


class DaemonTests(TwistdCase):
    """
    A host in the background.
    """

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
