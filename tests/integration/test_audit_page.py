"""
The page of an audit, in a real browser.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess

from twisted.trial.unittest import SkipTest

from tests.foreign_hosts import PyKmsLike, running
from tests.integration.processes import PATIENCE, TwistdCase, environment, run

#: What keeps a browser from asking anybody anything.
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--virtual-time-budget=1000"),
)


class Scripting(PyKmsLike):
    """
    A host whose ePID would run a script in a page that lets it.
    """

    @property
    def epid(self) -> str:
        """
        Tell it.
        """
        return "<script>document.title='stolen'</script>"


class PageTests(TwistdCase):
    """
    What a reader sees.
    """

    def setUp(self) -> None:
        """
        Find a browser.
        """
        super().setUp()
        found = shutil.which("chromium") or shutil.which("chromium-browser")
        if found is None:
            raise SkipTest("no Chromium on this machine; the continuous integration installs it")
        self.browser = found

    def shown(self) -> str:
        """
        Let the browser open the page, and tell what it made of it.
        """
        result = subprocess.run(
            [
                self.browser,
                *_QUIET,
                f"--user-data-dir={self.directory / 'browser'}",
                "--dump-dom",
                (self.directory / "audit.html").as_uri(),
            ],
            env=environment(self.directory),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def test_page(self) -> None:
        """
        The page has its title and every verdict, and runs no script that a host put into it.
        """
        with running(Scripting, socket.AF_INET) as port:
            result = run(
                *("kmsproto", "audit", f"127.0.0.1:{port}", "--timeout", "1"),
                *("--area", "identity", "--html", "audit.html"),
                cwd=self.directory,
            )
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
        page = self.shown()
        title = re.search(r"<title>(.*?)</title>", page)
        assert title is not None
        self.assertIn(f"127.0.0.1:{port}", title[1])
        self.assertIn("identity.form", page)
        self.assertIn("&lt;script&gt;document.title", page)
        self.assertNotIn("<script", page)
