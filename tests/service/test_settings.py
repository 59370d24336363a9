"""
Every setting: its name, help, default, bounds, and what is said of a value that is not allowed.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import KMSProtoError
from kmsproto.net.activation import KMS_PORT
from kmsproto.net.server import Limits
from kmsproto.service.kinds import MAXIMUM_WORKERS, Kind, SettingError, usable_cores
from kmsproto.service.settings import (
    BY_NAME,
    SETTINGS,
    SYSTEM_STATE_DIRECTORY,
    Setting,
    check_common_view,
    default_state_directory,
)

#: What each setting that has a default stands for when nobody gives it.
DEFAULTS: dict[str, object] = {
    "free-bind": False,
    "exit-level": "strict",
    "workers": 1,
    "public-ip-protection": 2,
    "max-connections": 16384,
    "max-connections-per-address": 1024,
    "connection-burst": 20,
    "idle-timeout": 30.0,
    "activation-interval": 120,
    "renewal-interval": 10080,
    "white-listing-level": 0,
    "check-client-time": False,
    "maintain-clients": False,
    "start-empty": False,
    "randomization-level": "stable",
    "ndr64": True,
    "bind-time-features": True,
    "log-format": "text",
    "verbosity": "normal",
    "timestamps": True,
    "summarize-noise": True,
}

_ON_OR_OFF: list[tuple[str, object]] = [
    ("on", True),
    ("OFF", False),
    ("1", True),
    ("0", False),
    ("yes", True),
    ("no", False),
    ("TRUE", True),
    ("false", False),
]
_CONNECTIONS: list[tuple[str, object]] = [("1", 1), ("1000000", 1000000)]
_INTERVAL: list[tuple[str, object]] = [
    ("15", 15),
    ("43200", 43200),
    ("900s", 15),
    ("959s", 15),
    ("90m", 90),
    ("3h", 180),
    ("7D", 10080),
    ("4w", 40320),
]

#: Texts and the values that they mean.
ALLOWED: dict[str, list[tuple[str, object]]] = {
    "config": [("/a", Path("/a"))],
    "vlmcsd-ini": [("/a b", Path("/a b"))],
    "port": [("0", 0), ("1", 1), ("1688", 1688), ("65535", 65535)],
    "listen": [("127.0.0.1", "127.0.0.1"), ("[::1]:1688", "[::1]:1688"), ("::1", "::1")],
    "endpoint": [("tcp:1688", "tcp:1688"), ("x", "x")],
    "free-bind": _ON_OR_OFF,
    "exit-level": [("0", "tolerant"), ("1", "strict"), ("Strict", "strict")],
    "workers": [("1", 1), ("256", 256), ("auto", usable_cores()), ("Auto", usable_cores())],
    "public-ip-protection": [("0", 0), ("3", 3)],
    "allow-public-peers": _ON_OR_OFF,
    "allow-shared-address-space": _ON_OR_OFF,
    "allow": [("10.0.0.0/8", IPv4Network("10.0.0.0/8")), ("::1", IPv6Network("::1/128"))],
    "deny": [("10.0.0.1", IPv4Network("10.0.0.1/32"))],
    "max-connections": _CONNECTIONS,
    "max-connections-per-address": _CONNECTIONS,
    "connection-rate": [("0.5", 0.5), ("1000000", 1000000.0)],
    "connection-burst": _CONNECTIONS,
    "idle-timeout": [("0.001", 0.001), ("1", 1.0), ("86400", 86400.0)],
    "disconnect-after-call": _ON_OR_OFF,
    "activation-interval": _INTERVAL,
    "renewal-interval": _INTERVAL,
    "white-listing-level": [("0", 0), ("3", 3)],
    "deny-product": [("7", "7"), ("Windows 10 Pro", "Windows 10 Pro")],
    "refuse-all": _ON_OR_OFF,
    "check-client-time": _ON_OR_OFF,
    "maintain-clients": _ON_OR_OFF,
    "start-empty": _ON_OR_OFF,
    "state-directory": [("state", Path("state")), ("/var/lib/x y", Path("/var/lib/x y"))],
    "randomization-level": [("stable", "stable"), ("0", "0"), ("1", "1"), ("2", "2")],
    "epid": [("Windows=x", "Windows=x")],
    "host-build": [("1", 1), ("26100", 26100), ("99999", 99999)],
    "lcid": [("1", 1), ("1033", 1033), ("32767", 32767)],
    "ndr64": _ON_OR_OFF,
    "bind-time-features": _ON_OR_OFF,
    "kms-data": [("/a.kmd", Path("/a.kmd"))],
    "kms-data-only": _ON_OR_OFF,
    "log-format": [("text", "text"), ("JSON", "json")],
    "verbosity": [("quiet", "quiet"), ("normal", "normal"), ("verbose", "verbose")],
    "timestamps": _ON_OR_OFF,
    "summarize-noise": _ON_OR_OFF,
    "mask-peers": _ON_OR_OFF,
}

NUMBERLESS = ["", " ", " 7", "1_0", "x", "1688x", "1.5", "0x10", "1e3", "--"]
_NEITHER = ["", "2", "on ", "ja"]
_BEYOND_INTERVAL = ["14", "43201", "0", "899s", "31d", "1y", "9999999999", "1.5h", "h", "", "-15"]
_BEYOND_LEVEL = ["4", "-1", *NUMBERLESS]

#: Texts that mean nothing.
FORBIDDEN: dict[str, list[str]] = {
    "config": ["", "\0"],
    "vlmcsd-ini": [""],
    "port": ["-1", "65536", "99999999999999999999", "0" * 21 + "9999999", *NUMBERLESS],
    "listen": ["", "x", "127.0.0.1:70000", "[::1", "1.2.3.4:x"],
    "endpoint": [""],
    "free-bind": _NEITHER,
    "exit-level": ["", "2", "lax"],
    "workers": ["0", "-1", "257", "auto ", "all", *NUMBERLESS],
    "public-ip-protection": _BEYOND_LEVEL,
    "allow-public-peers": _NEITHER,
    "allow-shared-address-space": _NEITHER,
    "allow": ["", "x", "10.0.0.1/8", "10.0.0.0/33"],
    "deny": ["", "::1/129"],
    "max-connections": ["0", "1000001", *NUMBERLESS],
    "max-connections-per-address": ["0", "1000001", *NUMBERLESS],
    "connection-rate": ["0", "-1", "1000001", "nan", "inf", "", "x"],
    "connection-burst": ["0", "1000001", *NUMBERLESS],
    "idle-timeout": ["0", "-1", "86400.1", "1_0", " 1", "nan", "inf", "-inf", "", "x", "1s"],
    "disconnect-after-call": _NEITHER,
    "activation-interval": _BEYOND_INTERVAL,
    "renewal-interval": _BEYOND_INTERVAL,
    "white-listing-level": _BEYOND_LEVEL,
    "deny-product": [""],
    "refuse-all": _NEITHER,
    "check-client-time": _NEITHER,
    "maintain-clients": _NEITHER,
    "start-empty": _NEITHER,
    "state-directory": [""],
    "randomization-level": ["", "3", "random"],
    "epid": [""],
    "host-build": ["0", "-1", "100000", *NUMBERLESS],
    "lcid": ["0", "-1", "32768", *NUMBERLESS],
    "ndr64": _NEITHER,
    "bind-time-features": _NEITHER,
    "kms-data": [""],
    "kms-data-only": _NEITHER,
    "log-format": ["", "xml"],
    "verbosity": ["", "loud"],
    "timestamps": _NEITHER,
    "summarize-noise": _NEITHER,
    "mask-peers": _NEITHER,
}


class SettingsTests(SynchronousTestCase):
    """
    The rows of the table.
    """

    def test_names(self) -> None:
        """
        The tests know every setting, and no name or short letter stands twice.
        """
        self.assertEqual(list(BY_NAME), list(ALLOWED))
        self.assertEqual(list(BY_NAME), list(FORBIDDEN))
        self.assertEqual(len(BY_NAME), len(SETTINGS))
        letters = [setting.short for setting in SETTINGS if setting.short]
        self.assertEqual(len(letters), len(set(letters)))

    def test_help(self) -> None:
        """
        Every setting has a help that is a sentence of one line, with its unit where it has one.
        """
        for setting in SETTINGS:
            with self.subTest(setting.name):
                self.assertRegex(setting.help, r"^[A-Z0-9].*[.]$")
                self.assertNotIn("\n", setting.help)
        for name, unit in (
            ("activation-interval", "minutes"),
            ("renewal-interval", "minutes"),
            ("idle-timeout", "Seconds"),
        ):
            self.assertIn(unit, BY_NAME[name].help)

    def test_defaults(self) -> None:
        """
        Defaults are the documented ones, and are allowed values.
        """
        for setting in SETTINGS:
            with self.subTest(setting.name):
                if setting.name not in DEFAULTS:
                    self.assertFalse(setting.default)
                    continue
                default: Any = setting.default
                self.assertEqual(setting.value(str(default)), DEFAULTS[setting.name])

    def test_defaults_of_limits(self) -> None:
        """
        The limits of the settings are those of the library.
        """
        limits = Limits()
        self.assertEqual(limits.idle_timeout, DEFAULTS["idle-timeout"])
        self.assertEqual(limits.max_connections, DEFAULTS["max-connections"])
        self.assertEqual(
            limits.max_connections_per_address, DEFAULTS["max-connections-per-address"]
        )

    def test_flags(self) -> None:
        """
        Switches are off by default.
        """
        for setting in SETTINGS:
            if setting.flag:
                self.assertIs(setting.initial, False)

    def test_allowed(self) -> None:
        """
        Every setting reads its values, up to its bounds.
        """
        for name, values in ALLOWED.items():
            for text, value in values:
                with self.subTest(name=name, text=text):
                    found = BY_NAME[name].value(text)
                    self.assertEqual((found, type(found)), (value, type(value)))

    def test_forbidden(self) -> None:
        """
        A value beyond the bounds is an error of one line that names the option, the value and what is allowed.
        """
        for name, texts in FORBIDDEN.items():
            for text in texts:
                setting = BY_NAME[name]
                with self.subTest(name=name, text=text):
                    with self.assertRaises(SettingError) as caught:
                        setting.value(text)
                    self.assertEqual(
                        str(caught.exception), f"--{name}: {text!r} is not {setting.kind.allowed}"
                    )
                    self.assertNotIn("\n", str(caught.exception))

    def test_newline_in_a_value(self) -> None:
        """
        A value with a newline does not break the line of its error.
        """
        with self.assertRaises(SettingError) as caught:
            BY_NAME["port"].value("1\n2")
        self.assertNotIn("\n", str(caught.exception))

    def test_bounds_are_told(self) -> None:
        """
        What is allowed is said with its bounds, for every setting that takes a value with bounds.
        """
        for name, bounds in (
            ("port", ("0", "65535")),
            ("host-build", ("1", "99999")),
            ("lcid", ("1", "32767")),
            ("activation-interval", ("15", "43200")),
            ("renewal-interval", ("15", "43200")),
            ("idle-timeout", ("0", "86400")),
            ("max-connections", ("1", "1000000")),
            ("max-connections-per-address", ("1", "1000000")),
            ("workers", ("1", "256", "auto")),
        ):
            for bound in bounds:
                with self.subTest(name=name, bound=bound):
                    self.assertRegex(BY_NAME[name].kind.allowed, rf"\b{bound}\b")

    def test_error_is_ours(self) -> None:
        """
        The error is one of the package.
        """
        self.assertTrue(issubclass(SettingError, KMSProtoError))

    def test_other_errors_pass(self) -> None:
        """
        A reader that fails otherwise than for its value is not hidden.
        """

        def read(text: str) -> object:
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, Setting("x", Kind("x", read), "X.").value, "1")

    def test_port(self) -> None:
        """
        The port is the one that is registered for KMS, and the help says so.
        """
        self.assertEqual(KMS_PORT, 1688)
        self.assertIn("1688", BY_NAME["port"].help)


class WorkersTests(SynchronousTestCase):
    """
    How many processes serve, and what they cannot do together.
    """

    def test_auto(self) -> None:
        """
        C{auto} is the number of cores that this process may use, not of those that the machine has.
        """
        self.patch(os, "sched_getaffinity", lambda pid: {1, 5, 7})
        self.assertEqual(BY_NAME["workers"].value("auto"), 3)

    def test_auto_without_affinity(self) -> None:
        """
        Where processes cannot be tied to cores, all cores count, and where nobody knows their number, there is one.
        """
        self.patch(os, "sched_getaffinity", None)
        self.patch(os, "cpu_count", lambda: 6)
        self.assertEqual(usable_cores(), 6)
        self.patch(os, "cpu_count", lambda: None)
        self.assertEqual(usable_cores(), 1)

    def test_auto_is_bounded(self) -> None:
        """
        C{auto} is never more than a number could be.
        """
        self.patch(os, "sched_getaffinity", lambda pid: set(range(1000)))
        self.assertEqual(usable_cores(), MAXIMUM_WORKERS)

    def test_limits_are_each_workers(self) -> None:
        """
        The help of the limits says that they are those of one worker.
        """
        for name in ("max-connections", "max-connections-per-address"):
            self.assertIn("in each worker", BY_NAME[name].help)

    def test_what_needs_a_common_view(self) -> None:
        """
        Every setting but the count of clients may be had with any number of workers.
        """
        values = {name: BY_NAME[name].value(texts[0][0]) for name, texts in ALLOWED.items()}
        self.assertRaises(SettingError, check_common_view, values, 2)
        values["maintain-clients"] = False
        for workers in (1, 2, MAXIMUM_WORKERS):
            check_common_view(values, workers)

    def test_common_view(self) -> None:
        """
        A value that needs a common view is refused with more than one worker, in one line that says what to do.
        """
        count = Setting(
            "count", Kind("x", str), "X.", needs_common_view=lambda value: value == "memory"
        )
        check_common_view({"count": "memory"}, 1, [count])
        check_common_view({"count": "file"}, 2, [count])
        with self.assertRaises(SettingError) as caught:
            check_common_view({"count": "memory"}, 2, [count])
        self.assertEqual(
            str(caught.exception),
            "--count: 'memory' is not possible with 2 workers, each of which sees its own clients only;"
            " use --workers=1 with it",
        )


class StateDirectoryTests(SynchronousTestCase):
    """
    Where the state is when nobody says.
    """

    def test_root(self) -> None:
        """
        Root's service has the system's place, whatever its environment.
        """
        self.assertEqual(
            default_state_directory({"XDG_STATE_HOME": "/x", "HOME": "/root"}, 0),
            SYSTEM_STATE_DIRECTORY,
        )

    def test_xdg(self) -> None:
        """
        XDG_STATE_HOME decides for everybody else.
        """
        self.assertEqual(
            default_state_directory({"XDG_STATE_HOME": "/x", "HOME": "/home/u"}, 1000),
            Path("/x/kmsproto"),
        )

    def test_home(self) -> None:
        """
        Without it, or with an empty one, it is below the home directory.
        """
        for environment in ({"HOME": "/home/u"}, {"HOME": "/home/u", "XDG_STATE_HOME": ""}):
            self.assertEqual(
                default_state_directory(environment, 1000),
                Path("/home/u/.local/state/kmsproto"),
            )

    def test_nothing(self) -> None:
        """
        An empty environment gives a path all the same.
        """
        self.assertEqual(default_state_directory({}, 1000), Path("/.local/state/kmsproto"))

    def test_help_tells(self) -> None:
        """
        The help tells both places.
        """
        self.assertIn(str(SYSTEM_STATE_DIRECTORY), BY_NAME["state-directory"].help)
        self.assertIn("~/.local/state/kmsproto", BY_NAME["state-directory"].help)
