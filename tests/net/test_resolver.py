"""
Names, name servers, and what the system says about both.
"""

from __future__ import annotations

import queue
import socket
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.net import resolver as module
from kmsproto.net.resolver import (
    MAXIMUM_SUFFIXES,
    DomainNameError,
    NoOwnDomainError,
    ResolvConf,
    find_own_domains,
    is_address,
    look_for_own_domains,
    make_resolver,
    normalize_domain,
    own_domain,
    own_domains,
    own_name,
    parse_nameserver,
    parse_resolv_conf,
    read_resolv_conf,
)


class NameTests(SynchronousTestCase):
    """
    What a domain may look like.
    """

    def test_good(self) -> None:
        """
        Letters, digits, hyphens and underscores make names; one dot at the end is left out.
        """
        for text in ("example.com", "a", "x-1.example", "_msdcs.example", "XN--BCHER-KVA.example"):
            self.assertEqual(normalize_domain(text), text)
            self.assertEqual(normalize_domain(text + "."), text)
        longest = ".".join(["x" * 63] * 3 + ["y" * 61])
        self.assertEqual(normalize_domain(longest), longest)

    def test_bad(self) -> None:
        """
        What cannot be a name, or would mean something to a shell or a zone file, is refused.
        """
        for text in (
            *("", ".", "..", "a..b", ".a", "a.b..", "-a", "a-", "x" * 64),
            *(
                "a b",
                "a\n",
                "a\tb",
                "a;b",
                "$(a)",
                "`a`",
                'a"b',
                "a'b",
                "a|b",
                "a\\b",
                "a/b",
                "@",
                "*",
            ),
            *("192.0.2.1", "::1", "b\u00fccher.example", ".".join(["x" * 63] * 4), "a\x00"),
        ):
            with self.subTest(text=text), self.assertRaises(DomainNameError):
                normalize_domain(text)

    @given(st.text(max_size=80))
    def test_any_text(self, text: str) -> None:
        """
        Whatever is accepted is harmless, and stays what it is when it is read again.
        """
        try:
            name = normalize_domain(text)
        except DomainNameError as error:
            self.assertTrue(str(error).isprintable())
        else:
            self.assertRegex(name, r"\A[A-Za-z0-9_.-]+\Z")
            self.assertEqual(normalize_domain(name), name)

    def test_addresses(self) -> None:
        """
        Addresses of both families are told from names.
        """
        self.assertTrue(is_address("192.0.2.1") and is_address("2001:db8::1"))
        self.assertFalse(is_address("kms") or is_address("1.2.3") or is_address(""))


class ResolvConfTests(SynchronousTestCase):
    """
    The system's file.
    """

    def test_usual(self) -> None:
        """
        Name servers and suffixes are read in their order, and all else is passed over.
        """
        text = (
            "# comment\n; comment\nnameserver 192.0.2.53\nnameserver\t2001:db8::53  # note\n"
            "options ndots:2\nsearch corp.example lab.example\nnameserver\nnameserver dns.example\n"
        )
        self.assertEqual(
            parse_resolv_conf(text),
            ResolvConf(("192.0.2.53", "2001:db8::53"), ("corp.example", "lab.example")),
        )

    def test_last_one_counts(self) -> None:
        """
        Of several lines with suffixes the last one counts, whether it is a domain or a search list.
        """
        self.assertEqual(parse_resolv_conf("domain a.b\nsearch c.d e.f\n").search, ("c.d", "e.f"))
        self.assertEqual(parse_resolv_conf("search c.d e.f\ndomain a.b x.y\n").search, ("a.b",))

    def test_suffixes_that_are_none(self) -> None:
        """
        The root and what cannot be a suffix are passed over, and none is there twice or too often.
        """
        self.assertEqual(
            parse_resolv_conf("search . a..b Corp.example corp.EXAMPLE.").search, ("Corp.example",)
        )
        many = "search " + " ".join(f"s{number}.example" for number in range(100))
        self.assertEqual(len(parse_resolv_conf(many).search), MAXIMUM_SUFFIXES)

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """
        Any text can be read.
        """
        found = parse_resolv_conf(text)
        self.assertTrue(all(map(is_address, found.nameservers)))

    def test_files(self) -> None:
        """
        A file that is not there says nothing; bytes that are no text do no harm.
        """
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "resolv.conf")
            self.assertEqual(read_resolv_conf(path), ResolvConf())
            path.write_bytes(b"\xff\xfe\nnameserver 192.0.2.1\n")
            self.assertEqual(read_resolv_conf(path), ResolvConf(("192.0.2.1",)))


class OwnDomainTests(SynchronousTestCase):
    """
    This machine's own domain.
    """

    def setUp(self) -> None:
        """
        Make a file of the system's.
        """
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name, "resolv.conf")
        self.patch(socket, "gethostname", lambda: "desk-17")
        self.patch(socket, "getfqdn", lambda: "desk-17")

    def test_pure(self) -> None:
        """
        The domain in the name comes before the suffixes, and none comes twice.
        """
        self.assertEqual(
            own_domains("pc.corp.example", ("lab.example", "CORP.example")),
            ("corp.example", "lab.example"),
        )
        self.assertEqual(own_domains("pc", ()), ())
        self.assertEqual(own_domains("pc.", ("a.b",)), ("a.b",))

    def test_names_that_say_nothing(self) -> None:
        """
        What a system without a name calls itself is no domain.
        """
        for name in ("localhost", "localhost.localdomain", "1.0.0.127.in-addr.arpa", ""):
            self.assertEqual(own_domains(name, ("a.b",)), ("a.b",))

    def test_name(self) -> None:
        """
        The full name of the system is taken.
        """
        self.patch(socket, "getfqdn", lambda: "desk-17.corp.example")
        self.assertEqual(own_name(), "desk-17.corp.example")
        self.assertEqual(own_domain(self.path), "corp.example")

    def test_suffix(self) -> None:
        """
        A machine whose name has no domain has that of the suffixes.
        """
        self.path.write_text("search lab.example corp.example\n")
        self.assertEqual(find_own_domains(self.path), ("lab.example", "corp.example"))
        self.assertEqual(own_domain(self.path), "lab.example")

    def test_none(self) -> None:
        """
        A machine without a domain is an error that says what to do.
        """
        with self.assertRaises(NoOwnDomainError) as raised:
            own_domain(self.path)
        self.assertEqual(str(raised.exception), "this machine has no DNS suffix; name the domain")

    def test_system_that_hangs(self) -> None:
        """
        A system that does not tell the full name is not waited for: the short one has to do.
        """
        done = threading.Event()
        self.addCleanup(done.set)

        def hang() -> str:
            done.wait(30)
            return "late.example"

        self.patch(socket, "getfqdn", hang)
        self.assertEqual(own_name(0), "desk-17")

    def test_without_waiting(self) -> None:
        """
        The domains are looked for in a thread, and handed to the reactor; an error as well.
        """
        for name, path in (("desk-17.corp.example", "search x.example"), ("localhost", "")):
            handed: queue.Queue[tuple[Any, ...]] = queue.Queue()
            reactor: Any = SimpleNamespace(callFromThread=lambda *call: handed.put(call))  # noqa: B023
            self.patch(socket, "getfqdn", lambda name=name: name)
            self.path.write_text(path)
            self.patch(module, "read_resolv_conf", lambda _: read_resolv_conf(self.path))
            looking = look_for_own_domains(reactor)
            self.assertNoResult(looking)
            function, *arguments = handed.get(timeout=30)
            function(*arguments)
            if path:
                self.assertEqual(self.successResultOf(looking), ("corp.example", "x.example"))
            else:
                self.failureResultOf(looking, NoOwnDomainError)


class NameServerTests(SynchronousTestCase):
    """
    Whom to ask.
    """

    def test_texts(self) -> None:
        """
        Addresses with and without a port are read, and written in one way.
        """
        for text, expected in (
            ("192.0.2.53", ("192.0.2.53", 53)),
            ("192.0.2.53:5353", ("192.0.2.53", 5353)),
            ("2001:DB8:0::53", ("2001:db8::53", 53)),
            ("[::1]", ("::1", 53)),
            ("[::1]:5353", ("::1", 5353)),
        ):
            self.assertEqual(parse_nameserver(text), expected)

    def test_bad_texts(self) -> None:
        """
        Names and impossible ports are refused.
        """
        for text in (
            *("", "dns.example", "dns.example:53", "192.0.2.53:", "192.0.2.53:0", "192.0.2.53:x"),
            *("192.0.2.53:65536", "[::1", "[::1]:", "[::1]5", "[]", "192.0.2.53:\u0665"),
        ):
            with self.subTest(text=text), self.assertRaises(DomainNameError) as raised:
                parse_nameserver(text)
            self.assertIn(repr(text), str(raised.exception))

    def test_resolver(self) -> None:
        """
        Those that are named are asked; otherwise those of the system; otherwise this machine.
        """
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "resolv.conf")
            reactor = MemoryReactorClock()

            def servers(named: list[tuple[str, int]] | None) -> object:
                resolver: Any = make_resolver(reactor, named, path)
                return resolver.servers

            self.assertEqual(servers([("192.0.2.1", 5353)]), [("192.0.2.1", 5353)])
            self.assertEqual(servers(None), [("127.0.0.1", 53)])
            path.write_text("nameserver 2001:DB8:0::53\nnameserver 192.0.2.53\n")
            self.assertEqual(servers(None), [("2001:db8::53", 53), ("192.0.2.53", 53)])
            self.assertEqual(servers([]), [("2001:db8::53", 53), ("192.0.2.53", 53)])
            # Nothing reads the file again behind our back.
            self.assertEqual(reactor.getDelayedCalls(), [])
