"""
Where settings come from: each source, their order, and what is said of what is wrong in one.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import KMSProtoError
from kmsproto.service import sources
from kmsproto.service.kinds import SettingError
from kmsproto.service.sources import (
    MAXIMUM_FILE,
    ConfigurationError,
    Effective,
    Given,
    Source,
    combine,
    from_document,
    from_environment,
    from_file,
    gather,
)


class SourceCase(SynchronousTestCase):
    """
    A directory for files, and no file of the system's.
    """

    def setUp(self) -> None:
        """
        Make the directory.
        """
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.patch(sources, "SYSTEM_CONFIGURATION", self.directory / "system" / "kms.toml")

    def file(self, text: str | bytes, name: str = "kms.toml") -> Path:
        """
        Write a file.
        """
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def gather(self, environment: dict[str, str] | None = None, **given: str) -> Effective:
        """
        Gather from a command line and an environment.
        """
        command_line = {
            name.replace("_", "-"): Given((text,), "--" + name.replace("_", "-"))
            for name, text in given.items()
        }
        return gather(command_line, environment or {}, 0)

    def fails(self, environment: dict[str, str] | None = None, **given: str) -> str:
        """
        Gather what cannot be, and get the line about it.
        """
        with self.assertRaises(KMSProtoError) as caught:
            self.gather(environment, **given)
        text = str(caught.exception)
        self.assertNotIn("\n", text)
        return text


class OrderTests(SourceCase):
    """
    Which source wins.
    """

    def test_order(self) -> None:
        """
        The command line comes before the environment, that before the file, that before a vlmcsd.ini, that before the
        default; and each value knows where it comes from.
        """
        ini = self.file("Port = 1\nLCID = 1031\nHostBuild = 20348\nMaxWorkers = 5\n", "vlmcsd.ini")
        config = self.file("[listen]\nport = 2\n[identity]\nlcid = 1036\nhost_build = 17763\n")
        environment = {
            "KMSPROTO_PORT": "3",
            "KMSPROTO_LCID": "1040",
            "KMSPROTO_VLMCSD_INI": str(ini),
            "KMSPROTO_CONFIG": str(config),
        }
        found = self.gather(environment, port="4")
        self.assertEqual(
            [(found[name], found.origin(name)) for name in ("port", "lcid", "host-build")],
            [(4, "--port"), (1040, "KMSPROTO_LCID"), (17763, f"{config}: identity.host_build")],
        )
        self.assertEqual(
            (found["max-connections"], found.origin("max-connections")),
            (5, f"{ini}: line 4: MaxWorkers"),
        )
        self.assertEqual((found["idle-timeout"], found.origin("idle-timeout")), (30.0, "default"))

    def test_system_file(self) -> None:
        """
        The system's file is read if it is there, unless another is named.
        """
        self.assertIs(self.gather()["config"], None)
        system = self.file("[listen]\nport = 9\n", "system/kms.toml")
        self.assertEqual((self.gather()["port"], self.gather()["config"]), (9, system))
        other = self.file("")
        found = self.gather(config=str(other))
        self.assertEqual((found["port"], found["config"]), (1688, other))

    def test_port(self) -> None:
        """
        The port has a default only where no endpoint is given.
        """
        self.assertEqual(self.gather()["port"], 1688)
        self.assertIs(self.gather(endpoint="tcp:1")["port"], None)
        self.assertEqual(self.gather(endpoint="tcp:1", port="2")["port"], 2)

    def test_ndr64(self) -> None:
        """
        NDR64 is offered in keeping with the host build, unless somebody says otherwise.
        """
        for build, offered in (("7601", False), ("9200", True), ("26100", True)):
            self.assertIs(self.gather(host_build=build)["ndr64"], offered)
            self.assertIs(self.gather(host_build=build, ndr64="on")["ndr64"], True)
        self.assertIs(self.gather()["ndr64"], True)

    def test_state_directory(self) -> None:
        """
        The state directory depends on who starts the host.
        """
        self.assertEqual(self.gather()["state-directory"], Path("/var/lib/kmsproto"))
        self.assertEqual(
            gather({}, {"HOME": "/home/x"}, 1)["state-directory"],
            Path("/home/x/.local/state/kmsproto"),
        )

    def test_relative_files(self) -> None:
        """
        The name of a file that is read again later does not depend on the working directory.
        """
        found = self.gather(kms_data="x.kmd")
        self.assertEqual(found["kms-data"], Path(os.getcwd()) / "x.kmd")

    def test_cumulative(self) -> None:
        """
        Of ePIDs all count, those of the first source last; of other settings that may be given more than once only
        those of the first.
        """
        first: Source = {"epid": Given(("a", "b"), "x"), "allow": Given(("c",), "x")}
        second: Source = {"epid": Given(("d",), "y"), "allow": Given(("e",), "y")}
        combined = combine([first, second])
        self.assertEqual(combined["epid"], Given(("d", "a", "b"), "y, x"))
        self.assertEqual(combined["allow"], Given(("c",), "x"))

    def test_changes(self) -> None:
        """
        Two gatherings know what differs.
        """
        one, other = self.gather(port="1", lcid="1031"), self.gather(port="2")
        self.assertEqual(one.changes(other), ["port", "lcid"])
        self.assertEqual(one.changes(one), [])
        self.assertEqual(len(one), len(list(one)))

    def test_workers(self) -> None:
        """
        What needs a common view is refused with more than one worker, whatever gave the two.
        """
        line = self.fails({"KMSPROTO_MAINTAIN_CLIENTS": "1"}, workers="2")
        self.assertIn("KMSPROTO_MAINTAIN_CLIENTS: 'on' is not possible with 2 workers", line)

    def test_warnings(self) -> None:
        """
        What counts for nothing is warned of: a misspelt variable, and a setting that needs another one.
        """
        found = self.gather(
            {
                "KMSPROTO_PROT": "1",
                "KMSPROTO_ZZZZZZ": "1",
                "KMSPROTO_CIPHER": "Python",
                "PORT": "1",
            },
            kms_data_only="on",
            start_empty="on",
        )
        self.assertEqual(
            list(found.warnings),
            [
                "KMSPROTO_PROT is not a setting and counts for nothing; did you mean KMSPROTO_PORT?",
                "KMSPROTO_ZZZZZZ is not a setting and counts for nothing",
                "kms-data-only counts for nothing without kms-data",
                "start-empty counts for nothing without maintain-clients",
            ],
        )
        self.assertEqual(self.gather().warnings, ())


class EnvironmentTests(SourceCase):
    """
    Variables.
    """

    def test_lists(self) -> None:
        """
        Several values have commas between them.
        """
        found = from_environment({"KMSPROTO_ALLOW": "10.0.0.0/8, ::1", "KMSPROTO_PORT": "1,2"})
        self.assertEqual(found["allow"], Given(("10.0.0.0/8", "::1"), "KMSPROTO_ALLOW"))
        self.assertEqual(found["port"].texts, ("1,2",))

    def test_others(self) -> None:
        """
        Other variables are not looked at.
        """
        self.assertEqual(from_environment({"KMSPROTO_CIPHER": "x", "PORT": "1"}), {})

    def test_bad_value(self) -> None:
        """
        A bad value is reported with the variable.
        """
        self.assertEqual(
            self.fails({"KMSPROTO_PORT": "x"}),
            "KMSPROTO_PORT: 'x' is not a port number (0 to 65535; 0 lets the system choose)",
        )


class FileTests(SourceCase):
    """
    Files of settings.
    """

    def test_types(self) -> None:
        """
        Values may have the type that TOML has for them, or be texts.
        """
        found = self.gather(
            config=str(
                self.file(
                    "[listen]\naddresses = ['127.0.0.1', '::1']\nfree_bind = true\n"
                    "[access]\nidle_timeout = 2.5\nallow = '10.0.0.0/8'\n"
                    "[activation]\nrenewal_interval = '7d'\nrefuse_all = 'on'\ndeny_products = [1]\n"
                )
            )
        )
        self.assertEqual(found["listen"], ["127.0.0.1", "::1"])
        self.assertIs(found["free-bind"], True)
        self.assertEqual((found["idle-timeout"], found["renewal-interval"]), (2.5, 10080))
        self.assertEqual([str(each) for each in found["allow"]], ["10.0.0.0/8"])
        self.assertIs(found["refuse-all"], True)
        self.assertEqual(found["deny-product"], ["1"])

    def test_wrong(self) -> None:
        """
        Whatever is wrong in a file is one line that names the file, the key and a way out.
        """
        for text, said in (
            ("x = ", "not TOML: "),
            ("[lissten]\n", "lissten is not a setting; did you mean [listen]?"),
            ("qq = 1\n", "qq is not a setting; kmsproto config lists all that there are"),
            ("listen = 1\n", "listen: a table is wanted: [listen]"),
            ("[listen]\nprot = 1\n", "listen.prot is not a setting; did you mean listen.port?"),
            ("[listen]\nport = [1]\n", "listen.port: '[1]' is not a single value: a port number"),
            ("[listen]\nport = 70000\n", "listen.port: '70000' is not a port number"),
            ("[listen]\nport = 1979-05-27\n", "listen.port: '1979-05-27' is not a port number"),
            ("[listen]\nport = true\n", "listen.port: 'on' is not a port number"),
            (
                "[access]\nallow = [['x']]\n",
                "access.allow: \"['x']\" is not an address or a network",
            ),
            ("[access]\nallow = ['x']\n", "access.allow: 'x' is not an address or a network"),
        ):
            with self.subTest(text):
                path = self.file(text)
                line = self.fails(config=str(path))
                self.assertTrue(line.startswith(f"{path}: {said}"), line)

    def test_unreadable(self) -> None:
        """
        A file that is not there, too large, or no UTF-8 is a clear error.
        """
        line = self.fails(config=str(self.directory / "none"))
        self.assertIn("none: No such file or directory; name another, or make it readable", line)
        self.assertIn("has at most", self.fails(config=str(self.file(b" " * (MAXIMUM_FILE + 1)))))
        self.assertIn("not UTF-8, at byte 1", self.fails(config=str(self.file(b"a\xff"))))
        self.assertIn("Is a directory", self.fails(config=str(self.directory)))

    def test_byte_order_mark(self) -> None:
        """
        A mark that editors put first is no part of the text.
        """
        path = self.file(b"\xef\xbb\xbf[listen]\nport = 3\n")
        self.assertEqual(from_file(path)["port"].texts, ("3",))

    def test_unsearchable(self) -> None:
        """
        A file of the system's that we may not even look for is an error, not as if it were not there.
        """

        class Forbidden:
            def stat(self) -> None:
                raise PermissionError(13, "Permission denied")

            def open(self, mode: str) -> None:
                raise PermissionError(13, "Permission denied")

            def __str__(self) -> str:
                return "/etc/kms.toml"

        self.patch(sources, "SYSTEM_CONFIGURATION", Forbidden())
        self.assertIn("/etc/kms.toml: Permission denied", self.fails())

    def test_document(self) -> None:
        """
        A document can come from elsewhere; it has the name that it is given.
        """
        with self.assertRaises(ConfigurationError) as caught:
            from_document("[", "the file")
        self.assertTrue(str(caught.exception).startswith("the file: not TOML"))
        with self.assertRaises(SettingError):
            from_document("[listen]\nport = [1, 2]", "x")
