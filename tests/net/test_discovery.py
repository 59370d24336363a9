"""
Discovery by DNS: the order of records, and what becomes of everything that name servers may answer.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import pairwise, permutations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names import error as names_error
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.errors import HostTimeoutError, HostUnreachableError
from kmsproto.net.discovery import (
    MAXIMUM_ADDRESSES,
    MAXIMUM_RECORDS,
    Candidate,
    Discovered,
    Found,
    ServiceRecord,
    discover,
    order,
    share,
    uniform,
)
from kmsproto.net.resolver import (
    AliasLoopError,
    DiscoveryError,
    DomainNameError,
    NameServerError,
    NameServerTimeoutError,
    NoServiceRecordError,
    NoSuchNameError,
)
from tests.net.resolving import (
    SERVICE,
    TableResolver,
    a,
    aaaa,
    cname,
    lowest,
    record,
    srv,
    start,
)

_records = st.lists(
    st.builds(
        ServiceRecord,
        target=st.text("abc", min_size=1, max_size=3),
        port=st.integers(1, 3),
        priority=st.integers(0, 3),
        weight=st.integers(0, 5),
    ),
    max_size=12,
)


class OrderTests(SynchronousTestCase):
    """
    The order of RFC 2782.
    """

    @given(_records, st.data())
    def test_permutation_by_priority(
        self, records: list[ServiceRecord], data: st.DataObject
    ) -> None:
        """
        Whatever is drawn, no record is lost or doubled, and priorities ascend.
        """
        ordered = order(records, lambda limit: data.draw(st.integers(0, limit)))
        self.assertEqual(Counter(ordered), Counter(records))
        priorities = [each.priority for each in ordered]
        self.assertEqual(priorities, sorted(priorities))

    def test_running_sum(self) -> None:
        """
        The first record whose running sum reaches the number that was drawn is taken.
        """
        records = [record("x", weight=10), record("y", weight=20), record("z", weight=30)]
        for drawn, first in ((0, "x"), (10, "x"), (11, "y"), (30, "y"), (31, "z"), (60, "z")):
            numbers = iter([drawn, 0, 0])
            ordered = order(records, lambda limit, numbers=numbers: next(numbers))
            self.assertEqual(ordered[0].target, first, drawn)

    def test_limits_that_are_asked_for(self) -> None:
        """
        Each draw has the sum of the weights that are left as its limit.
        """
        limits: list[int] = []

        def random(limit: int) -> int:
            limits.append(limit)
            return limit

        ordered = order(
            [record("x", weight=1), record("y", weight=2), record("z", 1, 1, 7)], random
        )
        self.assertEqual([each.target for each in ordered], ["y", "x", "z"])
        self.assertEqual(limits, [3, 1, 7])

    def test_weight_zero_comes_first(self) -> None:
        """
        Records without weight stand at the beginning, so that the number 0 takes them and any other does not.
        """
        records = [record("heavy", weight=9), record("light")]
        self.assertEqual(order(records, lowest)[0].target, "light")
        self.assertEqual(order(records, lambda limit: min(1, limit))[0].target, "heavy")

    def test_number_out_of_range(self) -> None:
        """
        A source of randomness that gives more than it was asked for is an error, not a lost record.
        """
        with self.assertRaises(ValueError):
            order([record("x", weight=1)], lambda limit: limit + 1)

    @given(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    def test_share_is_the_frequency(self, weights: list[int]) -> None:
        """
        The share of a record is how often it comes first, over all numbers that may be drawn and all orders.
        """
        records = [record(f"host{index}", weight=weight) for index, weight in enumerate(weights)]
        total = sum(weights)
        first: Counter[str] = Counter()
        orders = list(permutations(records))
        for each in orders:
            for drawn in range(total + 1):
                numbers = iter([drawn])
                first[order(each, lambda limit, it=numbers: next(it, 0))[0].target] += 1
        for each_record in records:
            frequency = Fraction(first[each_record.target], len(orders) * (total + 1))
            self.assertAlmostEqual(share(each_record, records), float(frequency))
        self.assertAlmostEqual(sum(share(each, records) for each in records), 1)

    def test_uniform(self) -> None:
        """
        The source of randomness that is used by default gives both ends and nothing beyond them.
        """
        self.assertEqual({uniform(1) for _ in range(200)}, {0, 1})
        self.assertEqual(uniform(0), 0)


class DiscoverCase(SynchronousTestCase):
    """
    A clock and a resolver.
    """

    def setUp(self) -> None:
        """
        Make a clock.
        """
        self.clock = Clock()

    def find(
        self, resolver: TableResolver, domain: str = "corp.example", *, ignore_order: bool = False
    ) -> Discovered:
        """
        Discover what is answered at once.
        """
        found = self.successResultOf(
            start(
                discover(
                    self.clock,
                    resolver,
                    domain,
                    timeout=10,
                    ignore_order=ignore_order,
                    random=lowest,
                )
            )
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])
        assert isinstance(found, Discovered)
        return found

    def fails(self, answer: object, kind: type[DiscoveryError]) -> DiscoveryError:
        """
        Discover, and get the error.
        """
        resolver = TableResolver({(SERVICE, dns.SRV): answer})
        failed = start(discover(self.clock, resolver, "corp.example", timeout=10))
        error = self.failureResultOf(failed, kind).value
        assert isinstance(error, DiscoveryError)
        self.assertIn(";", str(error), "there is no way out in it")
        return error

    def only(self, target: str, answers: dict[tuple[str, int], object], **fields: int) -> Found:
        """
        Discover a domain with one record.
        """
        resolver = TableResolver({(SERVICE, dns.SRV): [srv(target, **fields)], **answers})
        (found,) = self.find(resolver).hosts
        return found


class DiscoverTests(DiscoverCase):
    """
    Records that can be used.
    """

    def test_asking_for_addresses(self) -> None:
        """
        Addresses that did not come along are asked for, in both families.
        """
        resolver = TableResolver(
            {
                (SERVICE, dns.SRV): [srv("kms.corp.example", 1689)],
                ("kms.corp.example", dns.A): [
                    a("kms.corp.example", "192.0.2.1"),
                    a("kms.corp.example", "192.0.2.2"),
                    a("kms.corp.example", "192.0.2.1"),
                ],
                ("kms.corp.example", dns.AAAA): [aaaa("kms.corp.example", "2001:db8::1")],
            }
        )
        found = self.find(resolver)
        self.assertEqual(
            found.hosts,
            (
                Found(
                    record("kms.corp.example", 1689),
                    ("192.0.2.1", "192.0.2.2", "2001:db8::1"),
                ),
            ),
        )
        self.assertEqual((found.domain, found.service), ("corp.example", SERVICE))
        self.assertEqual((found.aliases, found.omitted), ((), 0))
        self.assertEqual(
            list(found.candidates()),
            [
                Candidate("kms.corp.example", address, 1689)
                for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1")
            ],
        )
        self.assertEqual([each.address for each in found.candidates(6)], ["2001:db8::1"])
        self.assertEqual(len(list(found.candidates(4))), 2)

    def test_additional_records(self) -> None:
        """
        Addresses that came along are not asked for again, whatever the case of the names.
        """
        resolver = TableResolver(
            {
                (SERVICE, dns.SRV): (
                    [srv("KMS.corp.example")],
                    [
                        a("kms.CORP.example", "192.0.2.1"),
                        aaaa("kms.corp.example", "2001:db8::1"),
                        a("other.example", "192.0.2.66"),
                    ],
                )
            }
        )
        (found,) = self.find(resolver).hosts
        self.assertEqual(found.addresses, ("192.0.2.1", "2001:db8::1"))
        self.assertEqual(resolver.asked, [(SERVICE, dns.SRV)])

    def test_one_family_came_along(self) -> None:
        """
        Of the family that did not come along the addresses are asked for.
        """
        resolver = TableResolver(
            {
                (SERVICE, dns.SRV): ([srv("kms.example")], [a("kms.example", "192.0.2.1")]),
                ("kms.example", dns.AAAA): [aaaa("kms.example", "2001:db8::1")],
            }
        )
        (found,) = self.find(resolver).hosts
        self.assertEqual(found.addresses, ("192.0.2.1", "2001:db8::1"))
        self.assertEqual(resolver.asked[1:], [("kms.example", dns.AAAA)])

    def test_only_ipv6(self) -> None:
        """
        A host with an AAAA record alone can be used, whether its A records are none or its name is said not to exist.
        """
        for nothing in ([], names_error.DNSNameError()):
            found = self.only(
                "kms.example",
                {
                    ("kms.example", dns.A): nothing,
                    ("kms.example", dns.AAAA): [aaaa("kms.example", "2001:db8::1")],
                },
            )
            self.assertEqual((found.addresses, found.problem), (("2001:db8::1",), ""))
            self.assertEqual(found.warnings, ())

    def test_order(self) -> None:
        """
        Records are put into order, or keep that of the answer.
        """
        records = [srv("c", 1, 10), srv("b", 1, 0, 5), srv("a", 1, 0, 0)]
        resolver = TableResolver({(SERVICE, dns.SRV): records})
        for ignore_order, expected in ((False, "abc"), (True, "cba")):
            found = self.find(resolver, ignore_order=ignore_order)
            self.assertEqual("".join(each.record.target for each in found.hosts), expected)

    def test_aliases(self) -> None:
        """
        A service that is an alias is followed, within the answer and by asking again.
        """
        last = [srv("kms.example", name="_vlmcs._tcp.last.example")]
        resolver = TableResolver(
            {
                (SERVICE, dns.SRV): [
                    cname(SERVICE, "_vlmcs._tcp.next.example"),
                    cname("_vlmcs._tcp.next.example", "_vlmcs._tcp.last.example"),
                ],
                ("_vlmcs._tcp.last.example", dns.SRV): last,
            }
        )
        expected = ("_vlmcs._tcp.next.example", "_vlmcs._tcp.last.example")
        self.assertEqual(self.find(resolver).aliases, expected)
        resolver.answers[SERVICE, dns.SRV] += last
        resolver.asked.clear()
        found = self.find(resolver)
        self.assertEqual((found.aliases, len(found.hosts)), (expected, 1))
        self.assertEqual(resolver.asked.count((SERVICE, dns.SRV)), 1)
        self.assertNotIn(("_vlmcs._tcp.last.example", dns.SRV), resolver.asked)

    def test_records_of_other_names(self) -> None:
        """
        Records that nobody asked for do not count.
        """
        self.fails([srv("kms.example", name="_ldap._tcp.corp.example")], NoServiceRecordError)

    def test_domain_is_normalized(self) -> None:
        """
        A dot at the end of the domain makes no difference; what is no domain is refused before anybody is asked.
        """
        resolver = TableResolver({(SERVICE, dns.SRV): [srv("kms")]})
        self.assertEqual(self.find(resolver, "corp.example.").domain, "corp.example")
        resolver.asked.clear()
        for domain in ("", ".", "a..b", "x" * 64, "a b", "192.0.2.1", "b\u00fccher.example"):
            failed = start(discover(self.clock, resolver, domain, timeout=10))
            self.failureResultOf(failed, DomainNameError)
        # The domain itself would do, but not the name of the service in it.
        long = ".".join(["x" * 49] * 5)
        self.failureResultOf(
            start(discover(self.clock, resolver, long, timeout=10)), DomainNameError
        )
        self.assertEqual(resolver.asked, [])


class BoundsTests(DiscoverCase):
    """
    Answers that are too long, and answers that do not come.
    """

    def test_too_many_records(self) -> None:
        """
        Of too many records only so many are looked at, and the rest is counted.
        """
        records = [srv(f"host{index}") for index in range(MAXIMUM_RECORDS + 3)]
        found = self.find(TableResolver({(SERVICE, dns.SRV): records}))
        self.assertEqual((len(found.hosts), found.omitted), (MAXIMUM_RECORDS, 3))

    def test_too_many_addresses(self) -> None:
        """
        Of too many addresses only so many are kept.
        """
        addresses = [a("kms.example", f"192.0.2.{number}") for number in range(100)]
        found = self.only("kms.example", {("kms.example", dns.A): addresses})
        self.assertEqual(len(found.addresses), MAXIMUM_ADDRESSES)

    def test_aliases_in_a_ring(self) -> None:
        """
        Aliases that go round end in an error, within an answer and over several.
        """
        other = "_vlmcs._tcp.other.example"
        self.fails([cname(SERVICE, other), cname(other, SERVICE)], AliasLoopError)
        resolver = TableResolver(
            {
                (SERVICE, dns.SRV): [cname(SERVICE, other)],
                (other, dns.SRV): [cname(other, SERVICE)],
            }
        )
        failed = start(discover(self.clock, resolver, "corp.example", timeout=10))
        failure = self.failureResultOf(failed, AliasLoopError)
        self.assertIn("is an alias that leads back to", str(failure.value))
        self.assertLess(len(resolver.asked), 20)

    def test_endless_aliases(self) -> None:
        """
        Aliases of aliases without an end are given up, and told as what they are.
        """
        names = [SERVICE, *(f"n{number}.example" for number in range(40))]
        resolver = TableResolver(
            {(one, dns.SRV): [cname(one, other)] for one, other in pairwise(names)}
        )
        failed = start(discover(self.clock, resolver, "corp.example", timeout=10))
        failure = self.failureResultOf(failed, AliasLoopError)
        self.assertIn("an alias of an alias, more than 8 times", str(failure.value))
        self.assertLess(len(resolver.asked), 20)

    def test_aliases_of_a_target_in_a_ring(self) -> None:
        """
        A target whose aliases go round has no address.
        """
        found = self.only(
            "x.example",
            {
                ("x.example", dns.A): [cname("x.example", "y.example")],
                ("y.example", dns.A): [cname("y.example", "x.example")],
            },
        )
        self.assertIn("its target", found.problem)

    def test_silent_name_server(self) -> None:
        """
        A name server that does not answer is given up in time, and nothing is left waiting.
        """
        resolver = TableResolver({(SERVICE, dns.SRV): None})
        found = start(discover(self.clock, resolver, "corp.example", timeout=10))
        self.clock.advance(9.5)
        self.assertNoResult(found)
        self.clock.advance(0.5)
        error = self.failureResultOf(found, NameServerTimeoutError).value
        self.assertIn("within 10.0 seconds", str(error))
        self.assertIsInstance(error, HostTimeoutError)
        self.assertEqual((resolver.waiting, self.clock.getDelayedCalls()), (0, []))

    def test_silent_about_addresses(self) -> None:
        """
        All addresses together have the timeout once more, however many there are; what is known by then counts.
        """
        answers: dict[tuple[str, int], object] = {
            (SERVICE, dns.SRV): [srv(f"h{index}.example") for index in range(40)]
        }
        for index in range(1, 40):
            for kind in (dns.A, dns.AAAA):
                answers[f"h{index}.example", kind] = None
        answers["h0.example", dns.A] = [a("h0.example", "192.0.2.1")]
        resolver = TableResolver(answers)
        found = start(discover(self.clock, resolver, "corp.example", timeout=10, ignore_order=True))
        self.assertLess(resolver.waiting, 16)
        self.clock.advance(10)
        hosts = self.successResultOf(found).hosts
        self.assertEqual(hosts[0].addresses, ("192.0.2.1",))
        for host in hosts[1:]:
            self.assertIn("its addresses are not known", host.problem)
        self.assertEqual((resolver.waiting, self.clock.getDelayedCalls()), (0, []))

    def test_one_family_is_refused(self) -> None:
        """
        That a name server refuses to tell of one family is nothing to warn of when it tells of the other.
        """
        found = self.only(
            "kms.example",
            {
                ("kms.example", dns.A): [a("kms.example", "192.0.2.1")],
                ("kms.example", dns.AAAA): names_error.DNSQueryRefusedError(),
            },
        )
        self.assertEqual((found.problem, found.warnings), ("", ()))

    def test_one_family_is_not_answered(self) -> None:
        """
        A host of which one family is not answered can be used over the other, with a warning.
        """
        found = self.only(
            "kms.example",
            {
                ("kms.example", dns.A): [a("kms.example", "192.0.2.1")],
                ("kms.example", dns.AAAA): names_error.DNSServerError(),
            },
        )
        self.assertEqual((found.addresses, found.problem), (("192.0.2.1",), ""))
        self.assertIn("SERVFAIL", found.warnings[0])


class ErrorTests(DiscoverCase):
    """
    Domains without records.
    """

    def test_no_such_name(self) -> None:
        """
        A name that does not exist is told apart, with the HRESULT that Windows shows.
        """
        for answer in (names_error.DNSNameError(), names_error.AuthoritativeDomainError()):
            error = self.fails(answer, NoSuchNameError)
            self.assertEqual(error.hresult, 0x8007232B)
            self.assertIn("0x8007232B", str(error))
            self.assertIsInstance(error, HostUnreachableError)

    def test_no_records(self) -> None:
        """
        A name without records of the kind is told apart.
        """
        error = self.fails([], NoServiceRecordError)
        self.assertEqual(error.hresult, 0x8007251D)
        self.assertIn("0x8007251D", str(error))

    def test_name_servers_that_do_not_do_it(self) -> None:
        """
        A name server that fails or refuses is named by its response code, and with what Windows shows for it.
        """
        for answer, code, hresult in (
            (names_error.DNSServerError(), "SERVFAIL", 0x8007232A),
            (names_error.DNSQueryRefusedError(), "REFUSED", 0x8007232D),
            (names_error.DNSFormatError(), "FORMERR", 0x80072329),
            (names_error.DNSNotImplementedError(), "NOTIMP", 0x8007232C),
            (names_error.DNSUnknownError(), "an error", 0x8007232A),
        ):
            error = self.fails(answer, NameServerError)
            self.assertEqual(error.hresult, hresult)
            self.assertIn(f"{code} (on Windows 0x{hresult:08X})", str(error))

    def test_resolver_gives_up(self) -> None:
        """
        A resolver that gives up by itself is a timeout too.
        """
        for answer in (names_error.DNSQueryTimeoutError(1), DeferredTimeoutError()):
            self.fails(answer, NameServerTimeoutError)

    def test_network_errors(self) -> None:
        """
        A name server that cannot be reached is an error with the reason.
        """
        for answer in (OSError(101, "Network is unreachable"), ConnectionRefusedError()):
            error = self.fails(answer, NameServerError)
            self.assertIn(str(answer), str(error))

    def test_alias_that_leads_nowhere(self) -> None:
        """
        An alias of what does not exist, or of what is no name, is an error that names the end of the way.
        """
        error = self.fails([cname(SERVICE, "_vlmcs._tcp.gone.example")], NoSuchNameError)
        self.assertIn("_vlmcs._tcp.gone.example", str(error))
        error = self.fails([cname(SERVICE, "\x1b[2J.example")], NoServiceRecordError)
        self.assertTrue(str(error).isprintable())

    def test_mistakes_are_not_hidden(self) -> None:
        """
        A mistake of ours is not taken for one of the name server.
        """
        resolver = TableResolver({(SERVICE, dns.SRV): ZeroDivisionError()})
        failed = start(discover(self.clock, resolver, "corp.example", timeout=10))
        self.failureResultOf(failed, ZeroDivisionError)


class ProblemTests(DiscoverCase):
    """
    Records that cannot be used, each with the reason.
    """

    def assertProblem(self, target: str, part: str, **fields: int) -> None:
        """
        A record cannot be used, its reason has a part, and nobody was asked for what cannot be.
        """
        resolver = TableResolver({(SERVICE, dns.SRV): [srv(target, **fields)]})
        (found,) = self.find(resolver).hosts
        self.assertEqual(found.addresses, ())
        self.assertIn(part, found.problem)
        self.assertEqual(list(self.find(resolver).candidates()), [])

    def test_flaws(self) -> None:
        """
        Targets and ports that cannot be are found without asking for addresses.
        """
        for target, part in (
            ("", "the service is not offered"),
            ("192.0.2.1", "its target is an address"),
            ("\x1b[31m.example", "no name that a host can have"),
            ("a b.example", "no name that a host can have"),
            ("x" * 64 + ".example", "no name that a host can have"),
            ("b\u00fccher.example", "no name that a host can have"),
        ):
            with self.subTest(target=target):
                resolver = TableResolver({(SERVICE, dns.SRV): [srv(target)]})
                (found,) = self.find(resolver).hosts
                self.assertIn(part, found.problem)
                self.assertEqual(resolver.asked, [(SERVICE, dns.SRV)])
        self.assertProblem("kms.example", "its port is 0", port=0)

    def test_root(self) -> None:
        """
        The root as target is written as a dot.
        """
        self.assertEqual(self.only("", {}).record.target, ".")

    def test_missing_addresses(self) -> None:
        """
        A target without addresses is told apart by what is probably wrong with it.
        """
        self.assertProblem("kms.example", "does not exist in DNS")
        self.assertProblem("KMS", "write kms.corp.example.")
        self.assertProblem("kms.corp.example.corp.example", "has the domain twice")
        nothing = {("kms.example", kind): [] for kind in (dns.A, dns.AAAA)}
        self.assertIn("its target has no address", self.only("kms.example", dict(nothing)).problem)

    def test_unknown_addresses(self) -> None:
        """
        A target about which the name servers fail may be right, and that is said.
        """
        failing = {
            ("kms.example", kind): names_error.DNSServerError() for kind in (dns.A, dns.AAAA)
        }
        problem = self.only("kms.example", dict(failing)).problem
        self.assertIn("its addresses are not known", problem)
        self.assertIn("SERVFAIL", problem)

    def test_target_is_an_alias(self) -> None:
        """
        A target that is an alias can be used, with a warning; it is followed by asking again where it has to be.
        """
        answers: dict[tuple[str, int], object] = {
            ("kms.example", dns.A): [
                cname("kms.example", "real.example"),
                a("real.example", "192.0.2.1"),
            ],
            ("kms.example", dns.AAAA): [cname("kms.example", "real.example")],
            ("real.example", dns.AAAA): [aaaa("real.example", "2001:db8::1")],
        }
        found = self.only("kms.example", answers)
        self.assertEqual((found.addresses, found.problem), (("192.0.2.1", "2001:db8::1"), ""))
        self.assertIn("an alias of real.example", found.warnings[0])

    def test_alias_of_no_name(self) -> None:
        """
        A target that is an alias of what is no name has no address, and that name is not asked for.
        """
        answers = {
            ("kms.example", kind): [cname("kms.example", "\x07.example")]
            for kind in (dns.A, dns.AAAA)
        }
        found = self.only("kms.example", dict(answers))
        self.assertIn("its target has no address", found.problem)
