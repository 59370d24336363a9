"""
The commands of the image, run without an image: its health check, and its host as process 1.

Process 1 is special: a signal for which it has no handler does nothing to it, and whoever loses a parent becomes its
child.  So the host is started in a namespace of processes of its own, which needs no more than a kernel that allows it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.containers import entry_point, health_check
from tests.integration.processes import (
    PATIENCE,
    STOP,
    TwistdCase,
    environment,
    free_port,
    script,
)

#: A namespace of processes, which anybody may make who may make one of users.
NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]


def namespaces_missing() -> str:
    """
    Tell why no host can be process 1 here; empty if one can.
    """
    if shutil.which("unshare") is None:
        return "there is no unshare on this machine"
    tried = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"unshare: {tried.stderr.strip()}"


class HealthCheckTests(TwistdCase):
    """
    The health check.
    """

    def check(self, port: int) -> tuple[int, str]:
        """
        Run it with a port in the environment, as a container has it.
        """
        programs = self.directory / "bin"
        programs.mkdir(exist_ok=True)
        program = programs / "kmsproto"
        program.write_text(
            f"#!{sys.executable}\nimport sys; sys.argv[0] = 'kmsproto'\n"
            "from kmsproto.cli.main import main; main()\n"
        )
        program.chmod(0o755)
        variables = environment(self.directory)
        variables["PATH"] = f"{programs}:{variables['PATH']}"
        variables["PYTHONPATH"] = ":".join(filter(None, sys.path))
        variables["KMSPROTO_PORT"] = str(port)
        result = subprocess.run(
            health_check(),
            cwd=self.directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return result.returncode, result.stdout + result.stderr

    def test_healthy(self) -> None:
        """
        A host that grants is healthy, and there is one line about it.
        """
        host, port = self.local()
        status, said = self.check(port)
        self.assertEqual(status, 0, said)
        self.assertRegex(said, r"\AKMS OK - .*\n\Z")
        host.wait_for(r"granted peer=127\.0\.0\.1 ")

    def test_refusing(self) -> None:
        """
        One that answers and refuses is not, and what the engine keeps tells why.
        """
        _, port = self.local("--refuse-all")
        status, said = self.check(port)
        self.assertEqual(status, 1, said)
        self.assertIn("0xC004F042", said)

    def test_nobody(self) -> None:
        """
        Nor is a container in which nobody listens.
        """
        status, said = self.check(free_port())
        self.assertEqual(status, 1, said)
        self.assertIn("KMS CRITICAL", said)


class ProcessOneTests(TwistdCase):
    """
    The entry point.
    """

    def start_as_process_one(self, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
        """
        Start the host as the image does, and wait until it listens.

        @return: The process around it, which ends as the host does, and the host's id as it is outside.
        """
        if reason := namespaces_missing():
            raise SkipTest(reason)
        self.log = self.directory / "log"
        _, *options = entry_point()
        command = [*NAMESPACE, *script("twistd"), *options, "--state-directory", "state"]
        with self.log.open("wb") as log:
            around = subprocess.Popen(
                [*command, "--endpoint", "tcp:0:interface=127.0.0.1", *arguments],
                cwd=self.directory,
                env=environment(self.directory),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.addCleanup(around.wait)
        self.addCleanup(around.kill)
        self.wait_until(lambda: around.poll() is not None or "listening address=" in self.said())
        children = Path(f"/proc/{around.pid}/task/{around.pid}/children").read_text()
        return around, int(children)

    def said(self) -> str:
        """
        Get what the host has said so far.
        """
        return self.log.read_text()

    def assertEnds(self, around: subprocess.Popen[bytes], host: int) -> None:
        """
        SIGTERM ends it in time and in order, with status 0: process 1 cannot end by that signal.
        """
        os.kill(host, signal.SIGTERM)
        self.assertEqual(around.wait(STOP), 0, self.said())
        self.assertIn("Server Shut Down.", self.said())
        self.assertClean(self.said())

    def test_terminate(self) -> None:
        """
        A host that is process 1 ends when it is told to.
        """
        around, host = self.start_as_process_one()
        status = Path(f"/proc/{host}/status").read_text()
        self.assertRegex(status, r"\nNSpid:\t\d+\t1\n")
        self.assertEnds(around, host)

    def test_hang_up(self) -> None:
        """
        SIGHUP reaches it too, and only lets it read its settings.
        """
        around, host = self.start_as_process_one()
        os.kill(host, signal.SIGHUP)
        self.wait_until(lambda: "reloaded changed=nothing" in self.said())
        self.assertEnds(around, host)

    def test_workers(self) -> None:
        """
        With workers it ends with all of them.
        """
        around, host = self.start_as_process_one("--workers", "2")
        self.wait_until(lambda: self.said().count("ready worker=") == 2)
        self.assertEnds(around, host)
        self.assertEqual(self.said().count("ended worker="), 2)
