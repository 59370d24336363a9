"""
Settings as users give them: every option and key of vlmcsd, files, and reloads under load.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

from kmsproto.kms.messages import ResponseBody
from kmsproto.net.activation import Activated, Bound, ClientSession
from kmsproto.service.settings import BY_NAME
from kmsproto.service.vlmcsd import ROWS, Row
from tests.integration.processes import (
    PATIENCE,
    TwistdCase,
    ask_and_leave,
    exchange,
    run,
)
from tests.net.wiring import SALT, body

#: FILETIME of 1970-01-01.
FILETIME_OF_1970 = 116444736000000000
KMD = Path(__file__).parents[1] / "golden" / "kmd" / "products-2020.kmd"
EPID = "03612-04919-019-949372-03-1033-26100.0000-0382025"


def connect(port: int) -> socket.socket:
    """
    Connect to a host.
    """
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


class Kept:
    """
    A connection on which a client asks again and again.

    @param port: The port of the host.
    """

    def __init__(self, port: int) -> None:
        self._connection = connect(port)
        self._session = ClientSession(ndr64=True, bind_time_features=True, multiplexed=True)
        if exchange(self._connection, self._session) != [Bound()]:
            raise AssertionError("it was not bound")

    def ask(self) -> ResponseBody:
        """
        Ask once more.
        """
        # Where the host looks at the clock, it has to be right.
        steps = FILETIME_OF_1970 + int(time.time()) * 10_000_000
        self._session.activate(body()._replace(client_time=steps), SALT)
        (event,) = exchange(self._connection, self._session)
        if not isinstance(event, Activated):
            raise AssertionError(event)
        return event.response.body

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *problem: object) -> None:
        self._connection.close()


class VlmcsdTests(TwistdCase):
    """
    The way over from vlmcsd.
    """

    timeout = 600

    def arguments(self, row: Row) -> list[str]:
        """
        Write an option as a user of vlmcsd does: the value behind the letter.
        """
        if row.setting == "vlmcsd-ini":
            path = Path(self.directory) / "option.ini"
            path.write_text("MaxWorkers = 7\n")
            return [row.option, str(path)]
        sample = str(KMD) if row.setting == "kms-data" else row.sample
        # A letter that stands for a value by itself takes none.
        return [row.option] if row.text or not sample else [f"{row.option}{sample}"]

    def serve(self, *arguments: str) -> None:
        """
        Start a host, and have it answer.
        """
        where = () if any(each.startswith("-L") for each in arguments) else ("-P0",)
        host = self.start(*where, *arguments)
        with Kept(host.port()) as kept:
            self.assertTrue(kept.ask().epid)
        self.assertStopped(host)

    def test_options(self) -> None:
        """
        A host starts with every option of vlmcsd and answers; what belongs to twistd is answered with its option.
        """
        for row in ROWS:
            if not row.option or row.option in ("-V", "-P"):
                continue
            with self.subTest(row.option):
                if row.setting:
                    self.serve(*self.arguments(row))
                    continue
                done = run(
                    "twistd", "-n", "--pidfile=", "kms", *self.arguments(row), cwd=self.directory
                )
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(row.instead, done.stderr + done.stdout)
                self.assertNotIn("Traceback", done.stderr + done.stdout)

    def test_one_of_two_addresses(self) -> None:
        """
        Where one of two addresses cannot be listened on, -x0 goes on with the other, also with workers; by default the
        host does not start.
        """
        addresses = ("-L127.0.0.1:0", "-L192.0.2.1:0")
        for workers in ("1", "2"):
            host = self.start("-x0", *addresses, f"--workers={workers}")
            port = host.port()
            host.wait_for("cannot listen on 192.0.2.1")
            if workers == "2":
                host.wait_for("ready worker=2")
            with Kept(port) as kept:
                self.assertTrue(kept.ask().epid)
            self.assertStopped(host)
        self.assertRefuses("cannot listen on 192.0.2.1", *addresses)

    def test_version(self) -> None:
        """
        The option of vlmcsd that asks for the version gets it.
        """
        done = run("twistd", "-n", "--pidfile=", "kms", "-V", cwd=self.directory)
        self.assertEqual(done.returncode, 0)
        self.assertIn("kmsproto", done.stdout)

    def test_keys(self) -> None:
        """
        A host starts with every key of vlmcsd.ini, all of them together, and warns of those that make no sense here.
        """
        path = Path(self.directory) / "all.ini"
        lines = [
            f"{row.ini} = {KMD if row.setting == 'kms-data' else row.sample}"
            for row in ROWS
            # It listens on both addresses then.
            if row.ini and row.setting != "listen"
        ]
        path.write_text("\n".join([*lines, f"Windows = {EPID} / 01 23 45 67 89 AB CD EF"]))
        host = self.start("-i", str(path))
        port = host.port()
        with Kept(port) as kept:
            answer = kept.ask()
        self.assertEqual(answer.epid, EPID)
        self.assertEqual((answer.activation_interval, answer.renewal_interval), (180, 7200))
        self.assertEqual(answer.client_count, 1)
        self.assertStopped(host)
        self.assertIn("ignored: User", host.said)


class ReloadTests(TwistdCase):
    """
    SIGHUP.
    """

    timeout = 300

    def configure(self, text: str) -> Path:
        """
        Write the file of settings.
        """
        path = Path(self.directory) / "kms.toml"
        path.write_text(text)
        return path

    def under_load(self, *arguments: str) -> None:
        """
        Reload twenty times while two clients ask on kept and fresh connections: no call fails, none is dropped.
        """
        path = self.configure("[activation]\nrenewal_interval = 100\n")
        host = self.start("--port=0", f"--config={path}", *arguments)
        port = host.port()
        if arguments:
            host.wait_for("ready worker=2")
        seen: set[int] = set()
        problems: list[Exception] = []
        answers = 0
        done = threading.Event()

        def keep_asking() -> None:
            nonlocal answers
            try:
                with Kept(port) as kept:
                    while not done.is_set():
                        seen.add(kept.ask().renewal_interval)
                        with connect(port) as fresh:
                            ask_and_leave(fresh)
                        answers += 2
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
                problems.append(error)

        threads = [threading.Thread(target=keep_asking) for _ in range(2)]
        for thread in threads:
            thread.start()
        for interval in range(101, 121):
            self.configure(f"[activation]\nrenewal_interval = {interval}\n")
            os.kill(host.process.pid, signal.SIGHUP)
            host.wait_for("reloaded changed=renewal-interval")
        end = time.monotonic() + PATIENCE
        while 120 not in seen and not problems and time.monotonic() < end:
            time.sleep(0.01)
        done.set()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(problems, [])
        self.assertIn(120, seen)
        self.assertGreater(len(seen), 1)
        self.assertGreater(answers, 10)
        self.assertStopped(host)

    def test_under_load(self) -> None:
        """
        With one process.
        """
        self.under_load()

    def test_under_load_with_workers(self) -> None:
        """
        With two workers.
        """
        self.under_load("--workers=2")

    def test_wrong(self) -> None:
        """
        A file, or a catalogue, that has gone wrong changes nothing; what needs a restart is named.
        """
        data = Path(self.directory) / "products.kmd"
        data.write_bytes(KMD.read_bytes())
        head = f"[catalog]\nkms_data = '{data}'\n[activation]\n"
        path = self.configure(f"{head}renewal_interval = 100\n")
        host = self.start("--port=0", f"--config={path}")
        port = host.port()
        with Kept(port) as kept:
            for change, said in (
                (
                    "renewal_interval = 1\n",
                    "not reloaded, the old settings stay: .*renewal_interval",
                ),
                ("renewal_interval = ", "not reloaded, the old settings stay: .*not TOML"),
            ):
                self.configure(head + change)
                os.kill(host.process.pid, signal.SIGHUP)
                host.wait_for(said)
                self.assertEqual(kept.ask().renewal_interval, 100)
            self.configure(f"{head}renewal_interval = 200\n[log]\nlog_format = 'json'\n")
            damaged = bytearray(KMD.read_bytes())
            damaged[0] ^= 1
            data.write_bytes(damaged)
            os.kill(host.process.pid, signal.SIGHUP)
            host.wait_for("not reloaded, the old settings stay: .*products.kmd")
            self.assertEqual(kept.ask().renewal_interval, 100)
            data.write_bytes(KMD.read_bytes())
            os.kill(host.process.pid, signal.SIGHUP)
            host.wait_for("reloaded changed=renewal-interval")
            host.wait_for("a restart is needed to change log-format")
            self.assertEqual(kept.ask().renewal_interval, 200)
        self.assertStopped(host)

    def test_counts_survive(self) -> None:
        """
        The clients that were counted before a reload still count.
        """
        path = self.configure("[activation]\nmaintain_clients = true\nstart_empty = true\n")
        host = self.start("--port=0", f"--config={path}")
        with Kept(host.port()) as kept:
            self.assertEqual(kept.ask().client_count, 1)
            before = BY_NAME["idle-timeout"].initial
            path.write_text(path.read_text() + f"[access]\nidle_timeout = {before + 1}\n")
            os.kill(host.process.pid, signal.SIGHUP)
            host.wait_for("reloaded changed=idle-timeout")
            self.assertEqual(kept.ask().client_count, 1)
        self.assertStopped(host)
