"""
A host of several processes as twistd runs it: who answers, what happens when one of them ends, and how all stop.

Which worker has answered is told by the association group of the answer, for each worker has a range of its own.
Nothing here depends on how fast a worker starts: everything is waited for, up to a limit that no machine needs.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from kmsproto.rpc import pdu
from kmsproto.rpc.numbers import PacketType
from tests.integration.processes import (
    PATIENCE,
    STOP,
    Host,
    TwistdCase,
    ask,
    ask_and_leave,
    free_port,
    read_all,
    run,
    script,
)
from tests.net.wiring import BOUND, bind, call, calls, granted, payload, read_replies, split

#: A module with a log observer of the operator's own.
OBSERVER = """
from twisted.logger import formatEvent

def make():
    def observe(event):
        with open("observed", "a") as file:
            file.write(f"{event['log_level'].name} {event.get('log_system')}: {formatEvent(event)}\\n")
    return observe
"""


def alive(pid: int) -> bool:
    """
    Tell whether a process runs; one that has ended and that nobody has asked about does not.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


class WorkersCase(TwistdCase):
    """
    Hosts with workers.
    """

    def setUp(self) -> None:
        """
        See that processes can be looked at.
        """
        super().setUp()
        if not Path("/proc/self/stat").exists():
            self.skipTest("there is no /proc here")

    def workers(self, host: Host, count: int = 2) -> dict[int, int]:
        """
        Wait until so many workers accept connections, and get their process ids by number.
        """
        found: dict[int, int] = {}
        while len(found) < count:
            number, pid = self.ready(host)
            found[number] = pid
        return found

    def ready(self, host: Host) -> tuple[int, int]:
        """
        Wait until one more worker accepts connections.
        """
        match = host.wait_for(r"ready worker=(\d+) pid=(\d+)$")
        return int(match[1]), int(match[2])

    def pair(self, *arguments: str) -> tuple[Host, int, dict[int, int]]:
        """
        Start a host with two workers on a port of the loopback address.
        """
        host, port = self.local("--workers=2", *arguments)
        return host, port, self.workers(host)

    @contextlib.contextmanager
    def standing_still(self, *pids: int) -> Iterator[None]:
        """
        Let processes stand still for a while.
        """
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def answering(self, connection: socket.socket) -> int:
        """
        Bind, and tell which of two workers answers.
        """
        connection.settimeout(PATIENCE)
        connection.sendall(bind())
        ((header, data),) = split(connection.recv(65536))
        self.assertEqual(header.packet_type, PacketType.BIND_ACK)
        return 1 + (pdu.decode_bind_ack(header, data).association_group >> 31)

    def assertGone(self, *pids: int) -> None:
        """
        Processes end by themselves.
        """
        self.wait_until(lambda: not any(map(alive, pids)))


class ServingTests(WorkersCase):
    """
    What clients see.
    """

    def test_both_answer(self) -> None:
        """
        Each of two workers answers while the other cannot, and both say the same of the host.
        """
        host, port, pids = self.pair()
        said = set()
        for number, other in ((1, 2), (2, 1)):
            with self.standing_still(pids[other]):
                connection = self.connect(port)
                self.assertEqual(self.answering(connection), number)
                response = ask_and_leave(self.connect(port)).response
                said.add((response.body.epid, response.hardware_id))
                connection.close()
        self.assertEqual(len(said), 1)
        self.assertEqual(len(re.findall("listening address=", host.said)), 1)
        self.assertStopped(host)
        self.assertEqual(len(re.findall("granted peer=127.0.0.1 ", host.said)), 2)
        self.assertGone(*pids.values())

    def test_supervisor_answers_nobody(self) -> None:
        """
        Who connects while no worker can answer waits for one, from the first moment on.
        """
        host, port = self.local("--workers=2")
        early = self.connect(port)
        early.sendall(bind() + call(payload()))
        pids = self.workers(host)
        replies = b""
        while len(read_replies(replies)) < 2:
            replies += early.recv(65536)
        self.assertEqual(read_replies(replies), [BOUND, *granted(2)])
        with self.standing_still(*pids.values()):
            waiting = self.connect(port)
            waiting.sendall(bind())
            waiting.settimeout(0.3)
            self.assertRaises(TimeoutError, waiting.recv, 1)
        waiting.settimeout(PATIENCE)
        self.assertEqual(read_replies(waiting.recv(65536)), [BOUND])

    def test_settings_reach_workers(self) -> None:
        """
        The settings of the command line are in force in each worker.
        """
        _, port, pids = self.pair("-H", "20348", "-C", "1031", "-A", "60", "--max-connections=1")
        for other in pids.values():
            with self.standing_still(other):
                connection = self.connect(port)
                answer = ask(connection).response.body
                self.assertIn("-03-1031-20348.0000-", answer.epid)
                self.assertEqual(answer.activation_interval, 60)
                self.assertEqual(read_all(self.connect(port)), b"")
                connection.close()

    def test_both_families(self) -> None:
        """
        Workers serve a port of both families.
        """
        host = self.start("--port=0", "--workers=2")
        port = host.port()
        ask_and_leave(self.connect(port))
        host.wait_for("granted peer=127.0.0.1 ")

    def test_unix_socket(self) -> None:
        """
        Workers serve a UNIX socket, whose file keeps its mode when one of them ends and is removed at the stop.
        """
        path = self.directory / "kms.socket"
        host = self.start(f"--endpoint=unix:{path}:mode=600", "--workers=2")
        pids = self.workers(host)
        for other in pids.values():
            with self.standing_still(other):
                connection = socket.socket(socket.AF_UNIX)
                self.addCleanup(connection.close)
                connection.settimeout(PATIENCE)
                connection.connect(str(path))
                ask_and_leave(connection)
                host.wait_for("granted peer=local port=0 ")
        os.kill(pids[1], signal.SIGTERM)
        self.assertEqual(self.ready(host)[0], 1)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertTrue(Path(f"{path}.lock").is_symlink())
        self.assertStopped(host)
        self.assertFalse(path.exists())
        self.assertFalse(Path(f"{path}.lock").is_symlink())

    def test_same_reactor_and_nothing_else(self) -> None:
        """
        A worker runs the reactor that twistd was told to, and inherits its own descriptors only.
        """
        host = self.start(
            "--endpoint=tcp:0:interface=127.0.0.1",
            "--workers=2",
            twistd=("--pidfile=", "--reactor=poll", "--logfile=kms.log"),
        )
        log = self.directory / "kms.log"
        self.wait_until(lambda: log.exists() and log.read_text().count("ready worker=") == 2)
        for pid in re.findall(r"ready worker=\d+ pid=(\d+)", log.read_text()):
            targets = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
            self.assertEqual([each for each in targets if "eventpoll" in each], [])
            self.assertEqual(len([each for each in targets if each.startswith("socket:")]), 1)
            self.assertEqual([each for each in targets if each.endswith("kms.log")], [])
        host.stop()


class SupervisionTests(WorkersCase):
    """
    Workers that end, and a supervisor that ends.
    """

    def test_killed_under_load(self) -> None:
        """
        When a worker is killed the other goes on, the dead one is replaced, and no answer is wrong.
        """
        host, port, pids = self.pair()
        right: set[tuple[str, bytes]] = set()
        answers, broken, wrong = [0, 0], [0, 0], []
        finish = threading.Event()

        def load(client: int) -> None:
            while not finish.is_set():
                try:
                    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
                        response = ask(connection).response
                        right.add((response.body.epid, response.hardware_id))
                        answers[client] += 1
                except (ConnectionError, TimeoutError):
                    broken[client] += 1
                except AssertionError as error:
                    if "closed the connection" in str(error):
                        broken[client] += 1
                    else:
                        wrong.append(error)
                time.sleep(0.002)

        clients = [threading.Thread(target=load, args=(client,)) for client in (0, 1)]
        self.addCleanup(finish.set)
        for each in clients:
            each.start()
        self.wait_until(lambda: min(answers) > 10)
        os.kill(pids[1], signal.SIGKILL)
        host.wait_for(rf"ended worker=1 pid={pids[1]} signal=9 restart=")
        before = sum(answers)
        self.wait_until(lambda: sum(answers) > before + 10)
        number, pid = self.ready(host)
        finish.set()
        for each in clients:
            each.join(PATIENCE)
        self.assertEqual(number, 1)
        self.assertNotIn(pid, pids.values())
        self.assertTrue(alive(pids[2]))
        self.assertEqual(wrong, [])
        self.assertEqual(len(right), 1)
        self.assertLessEqual(sum(broken), len(clients))
        with self.standing_still(pids[2]):
            self.assertEqual(self.answering(self.connect(port)), 1)
        self.assertStopped(host)

    def test_worker_told_to_end(self) -> None:
        """
        A worker that gets SIGTERM itself finishes its calls, ends, and is replaced.
        """
        host, port, pids = self.pair()
        with self.standing_still(pids[2]):
            connection = self.connect(port)
            self.assertEqual(self.answering(connection), 1)
            with self.standing_still(pids[1]):
                connection.sendall(call(payload()))
                time.sleep(0.1)
                os.kill(pids[1], signal.SIGTERM)
            self.assertEqual(read_replies(read_all(connection)), granted(2))
            connection.close()
            host.wait_for(rf"ended worker=1 pid={pids[1]} status=0 restart=")
            self.assertEqual(self.ready(host)[0], 1)
        self.assertStopped(host)

    def test_supervisor_killed(self) -> None:
        """
        Workers whose supervisor is killed finish their calls, free the port, and end.
        """
        host, port, pids = self.pair()
        with self.standing_still(pids[2]):
            connection = self.connect(port)
            self.assertEqual(self.answering(connection), 1)
        with self.standing_still(pids[1]):
            connection.sendall(call(payload()))
            time.sleep(0.1)
            host.process.kill()
        self.assertEqual(read_replies(read_all(connection)), granted(2))
        connection.close()
        self.assertGone(*pids.values())
        socket.create_server(("127.0.0.1", port)).close()

    def test_hang_up(self) -> None:
        """
        SIGHUP to the supervisor hands the settings to each worker, and nobody ends of it.
        """
        host, port, pids = self.pair()
        host.process.send_signal(signal.SIGHUP)
        heard = {int(host.wait_for(r"reloaded worker=\d+ pid=(\d+)")[1]) for _ in pids}
        self.assertEqual(heard, set(pids.values()))
        ask_and_leave(self.connect(port))
        self.assertNotIn("ended worker=", host.said)
        self.assertStopped(host)

    def test_working_directory(self) -> None:
        """
        A worker imports nothing that lies in the working directory.
        """
        host, port, pids = self.pair()
        (self.directory / "kmsproto.py").write_text("raise SystemExit('not this one')")
        os.kill(pids[1], signal.SIGKILL)
        self.assertEqual(self.ready(host)[0], 1)
        self.assertNotIn("not this one", host.said)
        ask_and_leave(self.connect(port))
        self.assertStopped(host)


class StoppingTests(WorkersCase):
    """
    The end of all.
    """

    def test_nothing_lost(self) -> None:
        """
        A line for every answer stands in the log, also for those that were given just before the stop.
        """
        host, port, _ = self.pair()
        asked = []
        for _ in range(20):
            connection = self.connect(port)
            asked.append(connection.getsockname()[1])
            connection.sendall(bind() + calls(10))
            replies: list[object] = []
            data = b""
            while len(replies) < 11:
                data += connection.recv(65536)
                replies = list(read_replies(data))
            connection.close()
        self.assertStopped(host)
        for client in asked:
            self.assertEqual(host.said.count(f"granted peer=127.0.0.1 port={client} "), 10)

    def test_answers_in_progress(self) -> None:
        """
        Requests that are there when the supervisor gets SIGTERM are answered by each worker.
        """
        host, port, pids = self.pair()
        connections = []
        for other in pids.values():
            with self.standing_still(other):
                connections.append(self.connect(port))
                self.answering(connections[-1])
        with self.standing_still(*pids.values()):
            for connection in connections:
                connection.sendall(call(payload()))
            time.sleep(0.1)
            host.terminate()
            host.wait_for("Received SIGTERM")
        for connection in connections:
            self.assertEqual(read_replies(read_all(connection)), granted(2))
            connection.close()
        self.assertIn(host.wait(STOP), (0, -signal.SIGTERM))
        self.assertClean(host.said)
        self.assertEqual(host.said.count("granted peer="), 2)

    def test_interrupted(self) -> None:
        """
        Ctrl-C, which reaches all processes of a terminal, is a matter of the supervisor.
        """
        host, port, pids = self.pair()
        ask_and_leave(self.connect(port))
        for pid in (*pids.values(), host.process.pid):
            os.kill(pid, signal.SIGINT)
        self.assertIn(host.wait(STOP), (0, -signal.SIGINT))
        self.assertEqual(len(re.findall(r"ended worker=\d pid=\d+ status=0$", host.said, re.M)), 2)
        self.assertNotIn("stderr", host.said)
        self.assertClean(host.said)

    def test_interrupted_early(self) -> None:
        """
        Ctrl-C while the workers are being born leaves nothing behind, and no complaints.
        """
        host = self.started(
            Host(
                self.directory,
                "--pidfile=",
                "kms",
                "--state-directory=state",
                "--endpoint=tcp:0:interface=127.0.0.1",
                "--workers=2",
            )
        )
        host.port()
        children = Path(f"/proc/{host.process.pid}/task/{host.process.pid}/children")
        self.wait_until(lambda: len(children.read_text().split()) == 2)
        pids = [int(pid) for pid in children.read_text().split()]
        for pid in (*pids, host.process.pid):
            os.kill(pid, signal.SIGINT)
        self.assertIn(host.wait(STOP), (0, -signal.SIGINT))
        self.assertClean(host.said)
        self.assertNotIn("stderr", host.said)
        self.assertGone(*pids)

    def test_told_twice(self) -> None:
        """
        A service manager may send SIGTERM to every process of a service, and more than once.
        """
        host, _, pids = self.pair()
        for _ in range(2):
            for pid in (host.process.pid, *pids.values()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        self.assertIn(host.wait(STOP), (0, -signal.SIGTERM))
        for pid in pids.values():
            self.assertGone(pid)
        self.assertNotIn("stderr", host.said)


class DaemonTests(WorkersCase):
    """
    With workers in the background.
    """

    def test_daemon(self) -> None:
        """
        The pidfile names the supervisor, all write to one log, and the stop leaves nothing running.
        """
        pidfile, log = self.directory / "kms.pid", self.directory / "kms.log"
        port = free_port()
        result = run(
            "twistd",
            "--pidfile=kms.pid",
            "--logfile=kms.log",
            "--rundir=/",
            "kms",
            f"--state-directory={self.directory / 'state'}",
            f"--endpoint=tcp:{port}:interface=127.0.0.1",
            "--workers=2",
            cwd=self.directory,
        )
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))
        supervisor = int(pidfile.read_text())
        self.addCleanup(self.kill, supervisor)
        self.wait_until(lambda: log.read_text().count("ready worker=") == 2)
        workers = [int(pid) for pid in re.findall(r"ready worker=\d pid=(\d+)", log.read_text())]
        for pid in workers:
            self.assertIn(f"\nPPid:\t{supervisor}\n", Path(f"/proc/{pid}/status").read_text())
        ask_and_leave(self.connect(port))
        os.kill(supervisor, signal.SIGTERM)
        self.wait_until(lambda: not pidfile.exists())
        self.wait_until(lambda: "Server Shut Down." in log.read_text())
        self.assertGone(supervisor, *workers)
        text = log.read_text()
        self.assertEqual(text.count("granted peer=127.0.0.1"), 1)
        self.assertClean(text)
        for line in text.splitlines():
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[[^\]]+\] ")

    def kill(self, pid: int) -> None:
        """
        Be sure that a process is gone.
        """
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def test_observer(self) -> None:
        """
        An observer of the operator's own gets the lines of the workers as events, with their levels.
        """
        (self.directory / "own_observer.py").write_text(OBSERVER)
        code = (
            "import sys; sys.path.insert(0, '.'); sys.argv[0] = 'twistd';"
            " from twisted.scripts.twistd import run; run()"
        )
        observed = self.directory / "observed"
        port = free_port()
        process = subprocess.Popen(
            [
                *(
                    script("twistd")[0],
                    "-c",
                    code,
                    "-n",
                    "--pidfile=",
                    "--logger=own_observer.make",
                ),
                *("kms", "--state-directory=state", "--workers=2"),
                f"--endpoint=tcp:{port}:interface=127.0.0.1",
            ],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.addCleanup(process.stdout.close if process.stdout else list)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.wait_until(
            lambda: observed.exists() and observed.read_text().count("ready worker=") == 2
        )
        ask_and_leave(self.connect(port))
        process.terminate()
        process.wait(PATIENCE)
        lines = [line for line in observed.read_text().splitlines() if "granted" in line]
        self.assertEqual(len(lines), 1, lines)
        self.assertRegex(lines[0], r"^info kmsproto#info: granted peer=127\.0\.0\.1 ")


class RefusalTests(WorkersCase):
    """
    Hosts with workers that do not start.
    """

    def test_port_in_use(self) -> None:
        """
        A port that is taken is one line, as without workers.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.assertRefuses(
                f"cannot listen on 127.0.0.1:{port}: Address already in use;"
                " choose another with --port or --endpoint",
                f"--endpoint=tcp:{port}:interface=127.0.0.1",
                "--state-directory=state",
                "--workers=2",
            )

    def test_wrapped_endpoint(self) -> None:
        """
        An endpoint that does more than to accept connections is refused in one line.
        """
        port = free_port()
        self.assertRefuses(
            f"--endpoint: 'haproxy:tcp:{port}:interface=127.0.0.1' is not possible with 2 workers;"
            " use endpoints of the kinds tcp, tcp6, unix or systemd, or --workers=1",
            f"--endpoint=haproxy:tcp:{port}:interface=127.0.0.1",
            "--state-directory=state",
            "--workers=2",
        )

    def test_chroot(self) -> None:
        """
        Workers behind a changed root are refused in one line.
        """
        result = run(
            *("twistd", "-n", "--pidfile=", "--chroot=."),
            *("kms", "--workers=2", "--state-directory=state"),
            cwd=self.directory,
        )
        self.assertEqual(result.returncode, 1)
        self.assertIn("twistd kms: workers cannot be started after twistd --chroot;", result.stderr)
        self.assertClean(result.stderr)

    def test_number(self) -> None:
        """
        A number of workers that is none is one line.
        """
        self.assertRefuses(
            "--workers: 'many' is not a number of workers (1 to 256, or auto)", "--workers=many"
        )
