"""
The Debian packaging agrees with what it packages.

Nothing is built here, which C{.ci/debian} does: the files of C{debian/} are read as the texts they are, and held to the
metadata, the settings and the limits of the host.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
from twisted.application.app import ServerOptions
from twisted.scripts.twistd import ServerOptions as TwistdOptions
from twisted.trial.unittest import SynchronousTestCase

from kmsproto import __version__
from kmsproto.cli.serve_socket import serve_socket
from kmsproto.net.activation import KMS_PORT
from kmsproto.net.server import Limits
from kmsproto.service.listener import SPARE_DESCRIPTORS
from kmsproto.service.settings import (
    ENVIRONMENT_PREFIX,
    SETTINGS,
    SYSTEM_CONFIGURATION,
    SYSTEM_STATE_DIRECTORY,
)
from kmsproto.service.sources import OTHER_VARIABLES
from kmsproto.service.tap import Options

ROOT = Path(__file__).resolve().parent.parent
DEBIAN = ROOT / "debian"
#: The user that the service is.
USER = "_kmsproto"


def read(name: str) -> str:
    """
    Read a file of C{debian/}.
    """
    return (DEBIAN / name).read_text(encoding="utf-8")


def paragraphs(text: str) -> list[dict[str, str]]:
    """
    Read a file in the format of C{debian/control}.
    """
    found = []
    for paragraph in re.split(r"\n\n+", text.strip()):
        fields = re.findall(r"^([A-Za-z0-9-]+):[ \t]*(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE)
        found.append(dict(fields))
    return found


def relations(field: str) -> dict[str, str]:
    """
    Read a list of packages: the names, and the restriction of each or nothing.
    """
    found = {}
    for relation in field.split(","):
        match = re.match(r"([^\s(<]+)(?:\s*\(([^)]*)\))?", relation.strip())
        if match:
            found[match[1]] = match[2] or ""
    return found


def options(words: list[str]) -> list[str]:
    """
    Take the names of long options out of a command line.
    """
    return [word[2:].partition("=")[0] for word in words if re.match(r"--\w", word)]


class Unit(configparser.RawConfigParser):
    """
    A unit of systemd; where a key is given more than once, the last one counts.
    """

    def __init__(self, name: str) -> None:
        super().__init__(strict=False, delimiters=("=",), comment_prefixes=("#",))
        self.read_string(read(name))

    def optionxform(self, optionstr: str) -> str:
        """
        Leave the case of a key.
        """
        return optionstr


class ControlTests(SynchronousTestCase):
    """
    What the packages are called, and what they need.
    """

    def setUp(self) -> None:
        """
        Read C{setup.cfg} and C{debian/control}.
        """
        config = configparser.ConfigParser(interpolation=None)
        config.read_string((ROOT / "setup.cfg").read_text(encoding="utf-8"))
        self.required = {}
        for line in config["options"]["install_requires"].split("\n"):
            match = re.match(r"([\w.-]+)(?:\[\w+\])?\s*(.*)", line.strip())
            if match:
                self.required[f"python3-{match[1]}"] = match[2]
        self.source, *binaries = paragraphs(read("control"))
        self.binaries = {each["Package"]: each for each in binaries}

    def test_dependencies(self) -> None:
        """
        The package of the library needs what C{setup.cfg} says, in the versions that it says, and nothing else.
        """
        depends = relations(self.binaries["python3-kmsproto"]["Depends"])
        ours = {name: version for name, version in depends.items() if not name.startswith("$")}
        self.assertEqual(ours, self.required)

    def test_build_dependencies(self) -> None:
        """
        The same is there when the packages are built, for the manual pages and the tests.
        """
        built_with = relations(self.source["Build-Depends"])
        self.assertEqual({name: built_with.get(name) for name in self.required}, self.required)

    def test_library_of_the_same_version(self) -> None:
        """
        The service needs the library of its own version, since each may have files that the other counts on.
        """
        depends = self.binaries["kmsproto"]["Depends"]
        self.assertIn("python3-kmsproto (>= ${source:Version})", depends)
        self.assertIn("python3-kmsproto (<< ${source:Version}.~)", depends)

    def test_version(self) -> None:
        """
        The latest entry of the changelog is for the version in the package, in Debian's notation.
        """
        match = re.match(r"kmsproto \(([^)]+)\)", read("changelog"))
        assert match is not None
        expected = re.sub(r"\.?(dev|a|b|rc)(\d+)", r"~\1\2", __version__)
        self.assertEqual(match[1], expected)

    def test_licence(self) -> None:
        """
        The licence in C{debian/copyright} is that of the project, word for word.
        """
        stated = " ".join(re.sub(r"^ \.?", "", read("copyright"), flags=re.MULTILINE).split())
        licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
        self.assertIn(" ".join(licence.partition("authors")[2].split()), stated)

    def test_plugin_cache(self) -> None:
        """
        Debian's Twisted is asked to make its cache of plugins anew, before the service starts.
        """
        self.assertEqual(
            read("python3-kmsproto.triggers"), "activate-await twisted-plugins-cache\n"
        )


class ScriptsTests(SynchronousTestCase):
    """
    The scripts are scripts.
    """

    SCRIPTS = (
        "rules",
        "tests/import",
        "tests/inetd",
        "tests/run-trial",
        "tests/service",
        "tests/trial",
    )

    def test_executable(self) -> None:
        """
        What is started by its name is executable.
        """
        paths = [*(DEBIAN / name for name in self.SCRIPTS), ROOT / ".ci" / "debian"]
        self.assertEqual([path for path in paths if not os.access(path, os.X_OK)], [])

    def test_syntax(self) -> None:
        """
        The scripts for a shell can be read by it.
        """
        scripts = {
            "sh": [
                *(DEBIAN / name for name in self.SCRIPTS if name.startswith("tests/")),
                *(DEBIAN / f"kmsproto.{name}" for name in ("init", "postinst", "prerm", "postrm")),
                DEBIAN / "kmsproto.default",
            ],
            "bash": [ROOT / ".ci" / "debian"],
        }
        for shell, paths in scripts.items():
            if shutil.which(shell) is None:
                continue
            for path in paths:
                command = [shell, "-n", str(path)]
                result = subprocess.run(command, capture_output=True, timeout=60, check=False)
                self.assertEqual((result.returncode, result.stderr), (0, b""), path)

    def test_package_tests(self) -> None:
        """
        Every test that autopkgtest is told of is there.
        """
        names = [each["Tests"] for each in paragraphs(read("tests/control"))]
        self.assertEqual([name for name in names if not (DEBIAN / "tests" / name).is_file()], [])


class ServiceTests(SynchronousTestCase):
    """
    How the host is started.
    """

    def setUp(self) -> None:
        """
        Read how the two start it.
        """
        self.unit = Unit("kmsproto.service")
        self.init = read("kmsproto.init")
        started = re.search(r'"\$DAEMON" (--uid.*?) \|\| return', self.init.replace("\\\n", ""))
        assert started is not None
        self.by_init = shlex.split(started[1])
        (_, _, command) = shlex.split(self.unit["Service"]["ExecStart"])
        self.by_systemd = shlex.split(command)

    def test_options(self) -> None:
        """
        Both give twistd options of twistd, and the plugin options of the plugin.
        """
        known = {
            "twistd": set(TwistdOptions().longOpt) | set(ServerOptions().longOpt),
            "kms": set(Options().longOpt),
        }
        known = {who: {name.rstrip("=") for name in names} for who, names in known.items()}
        for words in (self.by_init, self.by_systemd):
            at = words.index("kms")
            self.assertEqual([n for n in options(words[:at]) if n not in known["twistd"]], [])
            named = options(re.findall(r"--[\w-]+", " ".join(words[at:])))
            self.assertIn("state-directory", named)
            self.assertEqual([name for name in named if name not in known["kms"]], [])

    def test_twistd(self) -> None:
        """
        The init script has twistd give up its privileges, write a pidfile and a log; systemd does these itself.
        """
        by_init = options(self.by_init[: self.by_init.index("kms")])
        self.assertEqual(sorted(by_init), ["gid", "logfile", "pidfile", "rundir", "uid", "umask"])
        self.assertIn("--nodaemon", self.by_systemd)
        self.assertIn("--pidfile=", self.by_systemd)

    def test_user(self) -> None:
        """
        The user is the same everywhere.
        """
        self.assertEqual(self.unit["Service"]["User"], USER)
        self.assertEqual(self.unit["Service"]["Group"], USER)
        self.assertIn(f"\nACCOUNT={USER}\n", self.init)
        for name in ("kmsproto.postinst", "kmsproto.postrm", "kmsproto.logrotate"):
            self.assertIn(f" {USER}", read(name), name)

    def test_places(self) -> None:
        """
        State and settings are where the host looks for them.
        """
        state = str(SYSTEM_STATE_DIRECTORY)
        self.assertEqual(f"/var/lib/{self.unit['Service']['StateDirectory']}", state)
        self.assertIn(f"--state-directory={state}", self.by_systemd)
        self.assertIn(f"\nSTATE={state}\n", self.init)
        self.assertIn(state.lstrip("/"), read("kmsproto.dirs").split())
        source, target = read("kmsproto.install").split()
        self.assertEqual(Path("/", target, Path(source).name), SYSTEM_CONFIGURATION)
        self.assertTrue((ROOT / source).is_file())

    def test_time_to_stop(self) -> None:
        """
        Whoever stops the host gives it the time that it gives its clients.
        """
        limits = Limits()
        needed = limits.drain_timeout + limits.linger_timeout
        self.assertGreater(int(self.unit["Service"]["TimeoutStopSec"]), needed)
        retry = re.search(r"--retry=TERM/(\d+)/KILL/", self.init)
        assert retry is not None
        self.assertGreater(int(retry[1]), needed)

    def test_descriptors(self) -> None:
        """
        The unit allows as many open files as the default number of connections needs.
        """
        needed = Limits().max_connections + SPARE_DESCRIPTORS
        self.assertGreaterEqual(int(self.unit["Service"]["LimitNOFILE"]), needed)

    def test_socket(self) -> None:
        """
        The socket unit opens the port of KMS, and the service takes it over as what it is.
        """
        socket = Unit("kmsproto.socket")["Socket"]
        self.assertEqual(int(socket["ListenStream"]), KMS_PORT)
        self.assertEqual(socket["BindIPv6Only"], "both")
        self.assertIn("$${LISTEN_FDS:+--endpoint=systemd:domain=INET6:index=0}", self.by_systemd)

    def test_variables(self) -> None:
        """
        Variables that look like settings are settings, also those that are only an example.
        """
        known = {setting.variable for setting in SETTINGS} | OTHER_VARIABLES
        names = re.findall(
            rf"\b{ENVIRONMENT_PREFIX}[A-Z_]+", read("kmsproto.default") + read("kmsproto.service")
        )
        self.assertIn("KMSPROTO_PORT", names)
        self.assertEqual([name for name in names if name not in known], [])


class InetdTests(SynchronousTestCase):
    """
    The example for inetd.
    """

    def test_line(self) -> None:
        """
        It is one line, with the command's own options before the dashes and the host's behind them.
        """
        text = (ROOT / "etc" / "inetd.conf").read_text(encoding="utf-8")
        (line,) = [each for each in text.splitlines() if not each.startswith("#")]
        port, kind, protocol, wait, user, program, *words = line.split()
        self.assertEqual((int(port), kind, protocol, wait), (KMS_PORT, "stream", "tcp", "nowait"))
        self.assertEqual((user, program), (USER, "/usr/bin/kmsproto"))
        self.assertEqual(words[:2], ["kmsproto", "serve-socket"])
        at = words.index("--")
        with click.Context(serve_socket) as context:
            known = {
                name
                for each in serve_socket.get_params(context)
                for name in each.opts
                if "-" in name
            }
        self.assertLessEqual(set(words[2:at]), known)
        host = Options()
        host.parseOptions(words[at + 1 :])
        self.assertEqual(host.effective["state-directory"], SYSTEM_STATE_DIRECTORY)

    def test_shipped(self) -> None:
        """
        The package of the service has it among its examples.
        """
        self.assertIn("etc/inetd.conf", read("kmsproto.examples").split())
