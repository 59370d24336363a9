"""
What a user may write for a host and a port.
"""

from __future__ import annotations

from click import UsageError
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli.targets import Target, agree, ip_version, parse_target
from kmsproto.net.activation import KMS_PORT

HOSTS = st.one_of(
    st.ip_addresses().map(str),
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{2,8}){0,3}", fullmatch=True),
    st.ip_addresses(v=6).map(lambda address: f"{address}%eth0"),
)


class TargetTests(SynchronousTestCase):
    """
    Text to target, and back.
    """

    def test_examples(self) -> None:
        """
        A name or address stands alone or with a port; an IPv6 address with a port has brackets.
        """
        for text, target in (
            ("kms.example", ("kms.example", 1688)),
            ("kms.example:1", ("kms.example", 1)),
            ("192.0.2.1", ("192.0.2.1", 1688)),
            ("192.0.2.1:65535", ("192.0.2.1", 65535)),
            ("::1", ("::1", 1688)),
            ("fe80::1%eth0", ("fe80::1%eth0", 1688)),
            ("[::1]", ("::1", 1688)),
            ("[::1]:1700", ("::1", 1700)),
            ("[fe80::1%2]:5", ("fe80::1%2", 5)),
            ("[kms.example]:5", ("kms.example", 5)),
            ("büro.example:80", ("büro.example", 80)),
            ("kms:01688", ("kms", 1688)),
        ):
            self.assertEqual(parse_target(text), Target(*target))

    def test_default_port(self) -> None:
        """
        Without a port it is the registered one.
        """
        self.assertEqual(Target("kms").port, KMS_PORT)
        self.assertEqual(KMS_PORT, 1688)

    def test_no_host(self) -> None:
        """
        A text without a host is an error that shows the text.
        """
        for text in ("", ":1688", "[]", "[]:1688", " ", "a b", "kms\n", "\tkms:1"):
            with self.subTest(text=text), self.assertRaises(ValueError) as caught:
                parse_target(text)
            self.assertEqual(str(caught.exception), f"{text!r} names no host")

    def test_no_host_name(self) -> None:
        """
        What stands around a host in an address of the web, or has too many colons, is an error and no host to look for.
        """
        for text, told in (
            (
                "http://kms",
                "'http://kms' is no host; write HOST or HOST:PORT, and nothing around it",
            ),
            ("http://kms:1688", "write HOST or HOST:PORT"),
            ("kms/", "write HOST or HOST:PORT"),
            ("kms:1688/", "write HOST or HOST:PORT"),
            ("user@kms", "write HOST or HOST:PORT"),
            ("kms:80:80", "'kms:80:80' is no IPv6 address; write HOST:PORT or [IPv6]:PORT"),
            ("::1:17088", "'::1:17088' is no IPv6 address"),
            ("[kms:80]:80", "'kms:80' is no IPv6 address"),
            (
                "fe80::1%eth0:1688",
                "'fe80::1%eth0:1688' is no IPv6 address; write HOST:PORT or [IPv6]",
            ),
            ("[fe80::1%eth0:1688]", "is no IPv6 address"),
        ):
            with self.subTest(text=text), self.assertRaises(ValueError) as caught:
                parse_target(text)
            self.assertIn(told, str(caught.exception))

    def test_ip_version(self) -> None:
        """
        A name has addresses of any version; an address agrees with its own alone.
        """
        for host, version in (("127.0.0.1", 4), ("::1", 6), ("fe80::1%eth0", 6), ("kms", None)):
            self.assertEqual(ip_version(host), version)
            for family in (None, 4, 6):
                if family in (None, version) or version is None:
                    agree(Target(host), family)
                else:
                    with self.assertRaises(UsageError) as caught:
                        agree(Target(host), family)
                    self.assertEqual(
                        str(caught.exception),
                        f"{host} is an IPv{version} address; leave --ip-version {family} away",
                    )

    def test_no_port(self) -> None:
        """
        What is no port number is an error that shows it and tells the bounds.
        """
        for port in (
            "",
            "0",
            "65536",
            "-1",
            "x",
            "1x",
            " 1",
            "1 ",
            "+1",
            "١",
            "²",
            "1_0",
            "9" * 30,
        ):
            for text in (f"kms:{port}", f"[::1]:{port}"):
                with self.subTest(text=text), self.assertRaises(ValueError) as caught:
                    parse_target(text)
                self.assertEqual(
                    str(caught.exception), f"{port!r} is not a port number (1 to 65535)"
                )

    def test_brackets(self) -> None:
        """
        Brackets that do not close, or do not end before the port, are an error.
        """
        for text in ("[::1", "[", "[::1:1688", "[::1]1688", "[::1]x:5", "[::1]]"):
            with self.subTest(text=text), self.assertRaises(ValueError) as caught:
                parse_target(text)
            self.assertIn("bracket", str(caught.exception))

    def test_text(self) -> None:
        """
        A target is written with its port, and with brackets where they are needed.
        """
        self.assertEqual(str(Target("kms.example")), "kms.example:1688")
        self.assertEqual(str(Target("::1", 5)), "[::1]:5")

    @given(HOSTS, st.integers(1, 65535))
    def test_round_trip(self, host: str, port: int) -> None:
        """
        What a target is written as is read as that target.
        """
        target = Target(host, port)
        self.assertEqual(parse_target(str(target)), target)
        self.assertEqual(parse_target(host), Target(host))

    @given(st.text(max_size=30))
    def test_any_text(self, text: str) -> None:
        """
        Any text is a target that can be written and read again, or an error in one line.
        """
        try:
            target = parse_target(text)
        except ValueError as error:
            self.assertNotIn("\n", str(error))
        else:
            self.assertTrue(1 <= target.port <= 65535)
            if not target.host.startswith("[") and "]" not in target.host:
                self.assertEqual(parse_target(str(target)), target)
