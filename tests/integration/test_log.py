"""
The log of a host as an operator meets it: which file it is, when a new one begins, and that nothing is missing in it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path

from tests.integration.processes import Host, TwistdCase, ask_and_leave, free_port, run
from tests.net.wiring import bind, calls, read_replies


class LogTests(TwistdCase):
    """
    Hosts whose log is a file, and hosts whose log is their output.
    """

    def into_file(self, name: str, *arguments: str) -> tuple[Host, Path, int]:
        """
        Start a host in the foreground whose log is a file, and wait until it listens.
        """
        port = free_port()
        host = self.start(
            f"--endpoint=tcp:{port}:interface=127.0.0.1",
            twistd=("--pidfile=", f"--logfile={name}", *arguments),
        )
        path = self.directory / name
        self.wait_until(lambda: path.exists() and "listening address=" in path.read_text())
        return host, path, port

    def assertStamped(self, text: str) -> None:
        """
        Every line has the form that twistd gives it.
        """
        for line in text.splitlines():
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[[^\]]+\] ")

    def test_nothing_lost(self) -> None:
        """
        Answers that were given just before the stop stand in the log, in order, and the last line is twistd's.
        """
        host, path, port = self.into_file("kms.log")
        connection = self.connect(port)
        connection.sendall(bind() + calls(500))
        data = b""
        while len(read_replies(data)) < 501:
            data += connection.recv(1 << 20)
        connection.close()
        self.assertIn(host.stop(), (0, -signal.SIGTERM))
        text = path.read_text()
        self.assertStamped(text)
        self.assertEqual(text.count("granted peer=127.0.0.1 "), 500)
        self.assertTrue(text.endswith("Server Shut Down.\n"))
        self.assertLess(text.rindex("granted peer="), text.index("Server Shut Down."))

    def test_written_soon(self) -> None:
        """
        A line is in the file before anything else happens.
        """
        _, path, port = self.into_file("kms.log")
        ask_and_leave(self.connect(port))
        self.wait_until(lambda: "granted peer=127.0.0.1 " in path.read_text())

    def test_directory(self) -> None:
        """
        The name of the file counts from where twistd was started, not from where it runs.
        """
        (self.directory / "elsewhere").mkdir()
        self.into_file("kms.log", "--rundir=elsewhere")
        # The state directory is made before twistd goes elsewhere, as the log is.
        self.assertEqual(list((self.directory / "elsewhere").iterdir()), [])

    def test_new_file(self) -> None:
        """
        SIGUSR1 begins a new file, and the old one keeps what was written.
        """
        host, path, port = self.into_file("kms.log")
        ask_and_leave(self.connect(port))
        self.wait_until(lambda: "granted peer=127.0.0.1 " in path.read_text())
        host.process.send_signal(signal.SIGUSR1)
        old = self.directory / "kms.log.1"
        self.wait_until(lambda: old.exists() and path.exists())
        ask_and_leave(self.connect(port))
        self.wait_until(lambda: "granted peer=127.0.0.1 " in path.read_text())
        self.assertEqual(old.read_text().count("granted peer=127.0.0.1 "), 1)
        self.assertEqual(path.read_text().count("granted peer=127.0.0.1 "), 1)

    def test_cannot_be_opened(self) -> None:
        """
        A log that cannot be opened is one line, in the foreground and in the background.
        """
        (self.directory / "file").write_text("")
        for arguments in (["--nodaemon"], []):
            result = run(
                *("twistd", *arguments, "--pidfile=kms.pid", "--logfile=file/kms.log"),
                *("kms", "--state-directory=state", "--port=0"),
                cwd=self.directory,
            )
            self.assertEqual((result.returncode, result.stdout), (1, ""))
            self.assertEqual(
                result.stderr,
                "twistd kms: the log file/kms.log cannot be written: Not a directory;"
                " choose another with twistd --logfile\n",
            )
            self.assertFalse((self.directory / "kms.pid").exists())

    def test_default_file(self) -> None:
        """
        A daemon writes to twistd.log where it was started, with every line of its start.
        """
        port = free_port()
        result = run(
            *("twistd", "--pidfile=kms.pid", "kms", "--state-directory=state"),
            f"--endpoint=tcp:{port}:interface=127.0.0.1",
            cwd=self.directory,
        )
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))
        pidfile = self.directory / "kms.pid"
        pid = int(pidfile.read_text())
        self.addCleanup(self.kill, pid)
        ask_and_leave(self.connect(port))
        os.kill(pid, signal.SIGTERM)
        log = self.directory / "twistd.log"
        self.wait_until(lambda: "Server Shut Down." in log.read_text())
        text = log.read_text()
        self.assertStamped(text)
        for line in ("starting version=", "starting up", "listening address=", "granted peer="):
            self.assertEqual(len(re.findall(re.escape(line), text)), 1, line)

    def kill(self, pid: int) -> None:
        """
        Be sure that a process is gone.
        """
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
