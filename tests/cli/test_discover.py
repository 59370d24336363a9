"""
C{kmsproto discover}: what is looked up and asked, what is printed, and the exit status.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from click.testing import Result
from rich.console import Console
from twisted.internet.defer import succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.names import dns
from twisted.names import error as names_error
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli import asking, output
from kmsproto.cli import discover as module
from kmsproto.cli.asking import Asked, Verdict
from kmsproto.cli.discover import MAXIMUM_PLACES, MISTAKEN_NAMES, discover, explain, judge
from kmsproto.cli.targets import Target
from kmsproto.errors import (
    BindRefusedError,
    ContextRefusedError,
    FaultError,
    HostTimeoutError,
    HostUnreachableError,
    HResultError,
    RemoteProtocolError,
    VerificationError,
)
from kmsproto.kms.messages import RequestBody
from kmsproto.net.discovery import Discovered, Found
from tests.cli.running import runner
from tests.net.resolving import (
    SERVICE,
    TableResolver,
    a,
    aaaa,
    cname,
    react_at_once,
    record,
    srv,
)

EPID = "03612-00206-471-000000-03-1033-26100.0000-3182026"
GRANTED = Asked(Verdict.GRANTED, 0.0123, epid=EPID, count=50)


class DiscoverCase(SynchronousTestCase):
    """
    The command, with name servers and hosts that the test makes up.
    """

    def setUp(self) -> None:
        """
        Put fakes in the place of the reactor and the network.
        """
        self.resolver = TableResolver({})
        self.nameservers: object = None
        self.asked: list[tuple[Target, RequestBody, float]] = []
        self.outcomes: dict[str, Asked] = {}
        self.patch(module, "make_resolver", self.make_resolver)
        self.patch(module, "ask", self.ask)
        self.patch(module, "look_for_own_domains", lambda *_: succeed(("corp.example",)))
        self.patch(output, "react", react_at_once(MemoryReactorClock()))

    def make_resolver(self, reactor: object, nameservers: object) -> TableResolver:
        """
        Stand for the maker of resolvers.
        """
        self.nameservers = nameservers
        return self.resolver

    async def ask(
        self, reactor: Any, target: Target, request: RequestBody, timeout: float
    ) -> Asked:
        """
        Stand for the client.
        """
        self.asked.append((target, request, timeout))
        return self.outcomes.get(target.host, GRANTED)

    def answer(self, answers: Mapping[tuple[str, int], Any]) -> None:
        """
        Let the name servers answer so.
        """
        self.resolver.answers.update(answers)

    def hosts(self, *addresses: str) -> None:
        """
        Let the domain have a host for each address, with priorities that ascend.
        """
        names = [f"kms{number}.corp.example" for number, _ in enumerate(addresses, 1)]
        self.answer(
            {(SERVICE, dns.SRV): [srv(name, 1688, index) for index, name in enumerate(names)]}
        )
        for name, address in zip(names, addresses, strict=True):
            make, kind = (aaaa, dns.AAAA) if ":" in address else (a, dns.A)
            self.answer({(name, kind): [make(name, address)]})

    def run_discover(self, *arguments: str, status: int = 0) -> Result:
        """
        Run the command, and see how it ends.
        """
        result = runner().invoke(discover, arguments)
        self.assertEqual(result.exit_code, status, (result.output, result.exception))
        return result

    def document(self, *arguments: str, status: int = 0) -> dict[str, Any]:
        """
        Run the command, and get its JSON.
        """
        document = json.loads(self.run_discover("--json", *arguments, status=status).stdout)
        assert isinstance(document, dict)
        return document


class GoodTests(DiscoverCase):
    """
    Domains in which all is well.
    """

    def test_table(self) -> None:
        """
        A record is printed with its numbers, its address and what the host answered.
        """
        self.hosts("192.0.2.1")
        lines = self.run_discover("corp.example").output.splitlines()
        self.assertEqual(lines[0], SERVICE)
        self.assertEqual(
            " ".join(lines[1].split()), "# target port priority weight use address answer"
        )
        self.assertEqual(
            lines[2].split(),
            [
                *("1", "kms1.corp.example", "1688", "0", "0", "first", "192.0.2.1"),
                *f"granted in 12 ms, 50 clients, {EPID}".split(),
            ],
        )
        self.assertIn("Clients begin with kms1.corp.example:1688.", lines)
        self.assertNotIn("problem", "".join(lines))

    def test_json(self) -> None:
        """
        JSON tells the same as data.
        """
        self.hosts("192.0.2.1")
        self.assertEqual(
            self.document("corp.example"),
            {
                "domain": "corp.example",
                "service": SERVICE,
                "aliases": [],
                "own_domain": False,
                "tried": [],
                "hosts": [
                    {
                        "order": 1,
                        "target": "kms1.corp.example",
                        "port": 1688,
                        "priority": 0,
                        "weight": 0,
                        "ttl": 300,
                        "use": "first",
                        "share": 1.0,
                        "problem": None,
                        "warnings": [],
                        "addresses": [
                            {
                                "address": "192.0.2.1",
                                "verdict": "granted",
                                "seconds": 0.0123,
                                "problem": None,
                                "epid": EPID,
                                "count": 50,
                            }
                        ],
                    }
                ],
                "misplaced": [],
                "problems": [],
                "notes": [
                    "kms1.corp.example:1688 at 192.0.2.1: it is reserved for documentation;"
                    " publish the address of the host"
                ],
            },
        )

    def test_fall_back(self) -> None:
        """
        Which host is used first, and which afterwards, is said in words.
        """
        self.hosts("192.0.2.1", "192.0.2.2", "2001:db8::3")
        text = self.run_discover("corp.example").output
        self.assertIn("Clients begin with kms1.corp.example:1688.\n", text)
        self.assertIn(
            "When it does not answer, they fall back to kms2.corp.example:1688, then kms3.corp.example:1688.",
            text,
        )
        self.assertEqual(
            [str(target) for target, _, _ in self.asked],
            ["192.0.2.1:1688", "192.0.2.2:1688", "[2001:db8::3]:1688"],
        )

    def test_what_is_asked(self) -> None:
        """
        The hosts are asked for the product and in the version that were named, with the timeout.
        """
        self.hosts("192.0.2.1")
        self.run_discover("corp.example", "--protocol", "5", "--timeout", "2.5")
        ((_, request, timeout),) = self.asked
        self.assertEqual((request.major_version, timeout), (5, 2.5))

    def test_no_probe(self) -> None:
        """
        With --no-probe no host is asked, and the table has no answers.
        """
        self.hosts("192.0.2.1")
        text = self.run_discover("corp.example", "--no-probe").output
        self.assertEqual(self.asked, [])
        self.assertNotIn("answer", text)
        self.assertEqual(
            self.document("corp.example", "--no-probe")["hosts"][0]["addresses"],
            [{"address": "192.0.2.1", "verdict": None}],
        )

    def test_asked_once(self) -> None:
        """
        A place that several records name is asked once, and what it answered stands with each of them.
        """
        self.answer(
            {
                (SERVICE, dns.SRV): [srv("x.example"), srv("y.example"), srv("x.example", 1689)],
                ("x.example", dns.A): [a("x.example", "192.0.2.1")],
                ("y.example", dns.A): [a("y.example", "192.0.2.1")],
            }
        )
        hosts = self.document("corp.example")["hosts"]
        self.assertEqual(len(self.asked), 2)
        self.assertEqual([host["addresses"][0]["verdict"] for host in hosts], ["granted"] * 3)

    def test_alias(self) -> None:
        """
        A service that is an alias is said to be one, and that is no problem.
        """
        name = "_vlmcs._tcp.lab.example"
        self.answer(
            {
                (SERVICE, dns.SRV): [cname(SERVICE, name), srv("x.example", name=name)],
                ("x.example", dns.A): [a("x.example", "192.0.2.1")],
            }
        )
        self.assertIn(f"is an alias of {name}\n", self.run_discover("corp.example").output)

    def test_nameservers(self) -> None:
        """
        The name servers that were named are asked.
        """
        self.hosts("192.0.2.1")
        self.run_discover("corp.example")
        self.assertEqual(self.nameservers, ())
        self.run_discover(
            *("corp.example", "--nameserver", "192.0.2.53", "--nameserver", "[::1]:5353")
        )
        self.assertEqual(self.nameservers, (("192.0.2.53", 53), ("::1", 5353)))

    def test_ways_to_write_a_domain(self) -> None:
        """
        The domain may be written as other commands want it, or as the name of the service.
        """
        self.hosts("192.0.2.1")
        for text in (".corp.example", "corp.example.", SERVICE, SERVICE.upper()):
            self.assertEqual(self.document(text)["domain"].lower(), "corp.example")

    def test_one_family(self) -> None:
        """
        With an IP version only its addresses are asked, and a host that has none is never used.
        """
        self.hosts("192.0.2.1", "2001:db8::2")
        document = self.document("corp.example", "-i", "6", status=1)
        self.assertEqual([host["use"] for host in document["hosts"]], ["never", "first"])
        self.assertEqual(document["hosts"][0]["problem"], "it has no address of IPv6")
        self.assertEqual([target.host for target, _, _ in self.asked], ["2001:db8::2"])

    def test_ignore_order(self) -> None:
        """
        With -P the first record of the answer that can be used is the first, whatever its priority.
        """
        self.answer(
            {
                (SERVICE, dns.SRV): [
                    srv("gone", 1, 0),
                    srv("x.example", 1, 9),
                    srv("y.example", 1, 0),
                ],
                ("x.example", dns.A): [a("x.example", "192.0.2.1")],
                ("y.example", dns.A): [a("y.example", "192.0.2.2")],
            }
        )
        document = self.document("corp.example", "-P", status=1)
        self.assertEqual(
            [host["use"] for host in document["hosts"]], ["never", "first", "fall-back"]
        )
        document = self.document("corp.example", status=1)
        self.assertEqual(document["hosts"][-1]["target"], "x.example")


class OwnDomainTests(DiscoverCase):
    """
    Without a domain this machine's own are tried.
    """

    def test_first(self) -> None:
        """
        The suffix that was used is said.
        """
        self.hosts("192.0.2.1")
        text = self.run_discover().output
        self.assertIn(f"{SERVICE} (suffix corp.example of this machine)", text)
        self.assertTrue(self.document()["own_domain"])
        self.assertEqual(self.run_discover("-").output, text)

    def test_later(self) -> None:
        """
        Suffixes without records are passed over, in their order, and that is said.
        """
        self.patch(
            module,
            "look_for_own_domains",
            lambda *_: succeed(("a.example", "b.example", "corp.example")),
        )
        self.hosts("192.0.2.1")
        self.answer({("_vlmcs._tcp.b.example", dns.SRV): []})
        lines = self.run_discover().output.splitlines()
        self.assertTrue(lines[0].startswith("a.example: _vlmcs._tcp.a.example does not exist"))
        self.assertTrue(lines[1].startswith("b.example: _vlmcs._tcp.b.example is in DNS, but"))
        self.assertIn("(suffix corp.example of this machine)", lines[2])
        document = self.document()
        self.assertEqual(
            [(each["domain"], each["hresult"]) for each in document["tried"]],
            [("a.example", "0x8007232B"), ("b.example", "0x8007251D")],
        )

    def test_none_has_records(self) -> None:
        """
        When no suffix has records, each is said, and the command ends with status 3.
        """
        self.patch(module, "look_for_own_domains", lambda *_: succeed(("a.example", "b.example")))
        result = self.run_discover(status=3)
        self.assertTrue(result.stdout.startswith("a.example: "), result.stdout)
        self.assertTrue(result.stderr.startswith("discover: _vlmcs._tcp.b.example does not"))

    def test_silent_name_server(self) -> None:
        """
        Name servers that do not answer for one suffix are not asked about the next.
        """
        self.patch(
            module, "look_for_own_domains", lambda *_: succeed(("corp.example", "b.example"))
        )
        self.answer({(SERVICE, dns.SRV): names_error.DNSQueryTimeoutError(1)})
        self.run_discover(status=3)
        self.assertNotIn(("_vlmcs._tcp.b.example", dns.SRV), self.resolver.asked)


class ProblemTests(DiscoverCase):
    """
    Domains in which something is wrong.
    """

    def test_hosts(self) -> None:
        """
        Each way in which a host can fail is said, and the status is 1 while another one answers.
        """
        self.hosts(*(f"192.0.2.{number}" for number in range(1, 6)))
        for number, verdict in enumerate(list(Verdict)[1:], 2):
            self.outcomes[f"192.0.2.{number}"] = Asked(verdict, 1.0, f"reason {number}")
        text = self.run_discover("corp.example", status=1).output
        for number, verdict in enumerate(list(Verdict)[1:], 2):
            row = next(line for line in text.splitlines() if f" 192.0.2.{number} " in line)
            self.assertTrue(row.rstrip().endswith(f" {verdict.value}"), row)
            host = f"kms{number}.corp.example:1688"
            self.assertIn(f"problem: {host} at 192.0.2.{number}:1688: reason {number}", text)
        self.assertEqual(text.count("problem: "), 4)

    def test_none_answers(self) -> None:
        """
        When no host answers the status is 3; one that refuses has answered.
        """
        self.hosts("192.0.2.1", "192.0.2.2")
        self.outcomes["192.0.2.1"] = Asked(Verdict.UNREACHABLE, 0.1, "no connection")
        self.outcomes["192.0.2.2"] = Asked(Verdict.SILENT, 9.9, "no answer")
        self.run_discover("corp.example", status=3)
        self.outcomes["192.0.2.2"] = Asked(Verdict.REFUSED, 0.1, "no")
        self.run_discover("corp.example", status=1)

    def test_records(self) -> None:
        """
        A record that cannot be used is shown with the reason; it is not asked, and the status is 1.
        """
        self.hosts("192.0.2.1")
        self.resolver.answers[SERVICE, dns.SRV].append(srv("gone.example", 1688, 9))
        text = self.run_discover("corp.example", status=1).output
        self.assertIn("problem: gone.example:1688 is never used: its target does not exist", text)
        self.assertEqual(len(self.asked), 1)
        self.run_discover("corp.example", "--no-probe", status=1)

    def test_no_record_can_be_used(self) -> None:
        """
        When no record can be used the status is 3, and that is said.
        """
        self.answer({(SERVICE, dns.SRV): [srv("")]})
        text = self.run_discover("corp.example", status=3).output
        self.assertIn("No client can use any of these records.", text)
        self.assertIn("the service is not offered here", text)
        self.run_discover("corp.example", "--no-probe", status=3)

    def test_mistaken_names(self) -> None:
        """
        Records under each of the names that people write by mistake are found, with what is wrong with the name.
        """
        for pattern, mistake in MISTAKEN_NAMES:
            name = pattern.format(domain="corp.example")
            with self.subTest(name=name):
                self.resolver.answers.clear()
                self.answer({(name, dns.SRV): [srv("kms.corp.example", name=name)]})
                result = self.run_discover("corp.example", status=3)
                self.assertEqual(
                    result.stdout,
                    f"problem: {name} names kms.corp.example:1688, but no client looks there: {mistake}\n",
                )
                self.assertIn("does not exist in DNS (on Windows 0x8007232B)", result.stderr)

    def test_mistaken_name_beside_the_right_one(self) -> None:
        """
        A record under a wrong name is a problem also when there is one under the right name.
        """
        self.hosts("192.0.2.1")
        self.answer(
            {("_kms._tcp.corp.example", dns.SRV): [srv("x", name="_kms._tcp.corp.example")]}
        )
        document = self.document("corp.example", status=1)
        self.assertEqual(document["misplaced"][0]["name"], "_kms._tcp.corp.example")
        self.assertEqual(document["misplaced"][0]["targets"], ["x:1688"])
        self.assertEqual(len(document["problems"]), 1)

    def test_wildcard(self) -> None:
        """
        Where every name has records, none of them is taken for a mistake.
        """
        self.hosts("192.0.2.1")
        for pattern in [module.NOBODYS_NAME, *(each for each, _ in MISTAKEN_NAMES)]:
            name = pattern.format(domain="corp.example")
            self.answer({(name, dns.SRV): [srv("kms1.corp.example", name=name)]})
        self.assertEqual(self.document("corp.example")["misplaced"], [])

    def test_hostile_texts(self) -> None:
        """
        Nothing that a name server or a host says reaches the terminal as anything but text.
        """
        self.hosts("192.0.2.1", "192.0.2.2")
        self.resolver.answers[SERVICE, dns.SRV] += [
            srv("\x1b[2J[red]x[/red].example", 1688, 5),
            srv("a\nproblem: b", 1688, 6),
        ]
        self.outcomes["192.0.2.1"] = Asked(
            Verdict.GRANTED, 0.1, epid="\x1b[31m[bold]\n\u202e", count=1
        )
        self.outcomes["192.0.2.2"] = Asked(Verdict.REFUSED, 0.1, "[blink]\x9b31m")
        text = self.run_discover("corp.example", status=1).output
        self.assertTrue(text.replace("\n", "").isprintable(), ascii(text))
        self.assertIn("\\x1b[2J[red]x[/red].example", text)
        self.assertIn("\\x1b[31m[bold]\\n\\u202e", text)
        self.assertNotIn("\nproblem: b", text)

    def test_too_many(self) -> None:
        """
        Of too many records and addresses only so many are looked at and asked, and that is said.
        """
        names = [f"h{number}.example" for number in range(70)]
        self.answer({(SERVICE, dns.SRV): [srv(name) for name in names]})
        for number, name in enumerate(names):
            addresses = [a(name, f"192.0.2.{number}"), a(name, f"198.51.100.{number}")]
            self.answer({(name, dns.A): addresses})
        document = self.document("corp.example", status=1)
        self.assertEqual(len(self.asked), MAXIMUM_PLACES)
        self.assertEqual(
            document["problems"],
            [
                "6 more records were not looked at; there are too many",
                "64 more addresses were not asked; there are too many",
            ],
        )

    def test_name_servers(self) -> None:
        """
        Name servers that fail are told from names that do not exist, on the standard error and in JSON.
        """
        for answer, part, hresult in (
            (names_error.DNSServerError(), "SERVFAIL", "0x8007232A"),
            (names_error.DNSNameError(), "does not exist", "0x8007232B"),
            ([], "no SRV record", "0x8007251D"),
            (names_error.DNSQueryTimeoutError(1), "no name server answered", "0x800705B4"),
        ):
            with self.subTest(part=part):
                self.answer({(SERVICE, dns.SRV): answer})
                result = self.run_discover("corp.example", "--json", status=3)
                self.assertIn(part, result.stderr)
                self.assertEqual(result.stderr.count("\n"), 1)
                (tried,) = json.loads(result.stdout)["tried"]
                self.assertEqual(tried["hresult"], hresult)

    def test_usage(self) -> None:
        """
        A wrong command line ends with status 2, before anybody is asked.
        """
        for arguments in (
            ["a..b"],
            ["192.0.2.1"],
            ["corp.example", "more"],
            ["corp.example", "-i", "5"],
            ["corp.example", "--nameserver", "dns.example"],
            ["corp.example", "--timeout", "0"],
            ["corp.example", "-l", "no such product"],
        ):
            with self.subTest(arguments=arguments):
                self.run_discover(*arguments, status=2)
        self.assertEqual(self.resolver.asked, [])

    def test_mistakes_are_not_hidden(self) -> None:
        """
        A mistake of ours is not taken for one of a host.
        """

        async def ask(*_: object) -> Asked:
            raise ZeroDivisionError

        self.hosts("192.0.2.1")
        self.patch(module, "ask", ask)
        result = runner().invoke(discover, ["corp.example"])
        self.assertNotIn(result.exit_code, (0, 3))
        self.assertNotIsInstance(result.exception, SystemExit)


class JudgeTests(SynchronousTestCase):
    """
    What clients make of records.
    """

    def test_weights(self) -> None:
        """
        Among the best priority the weight decides with which host clients begin; the rest is fall-back.
        """
        hosts = tuple(
            Found(record(name, 1688, priority, weight), ("192.0.2.1",))
            for name, priority, weight in (("a", 1, 30), ("b", 1, 10), ("c", 2, 99))
        )
        places = judge(Discovered("corp.example", SERVICE, hosts), None, ignore_order=False)
        self.assertEqual([place.use for place in places], ["first", "first", "fall-back"])
        self.assertAlmostEqual(places[0].share + places[1].share, 1)
        self.assertEqual(places[2].share, 0)
        self.assertEqual(
            explain(places),
            [
                "Clients begin with one of 2 hosts, chosen by weight: a:1688 (74%), b:1688 (26%).",
                "When none of these answers, they fall back to c:1688.",
            ],
        )

    def test_unusable_ones_do_not_count(self) -> None:
        """
        A record that cannot be used leaves its place to the next priority.
        """
        hosts = (
            Found(record("a", 1688, 0), (), "it has a problem"),
            Found(record("b", 1688, 5), ("192.0.2.1",)),
        )
        places = judge(Discovered("corp.example", SERVICE, hosts), 4, ignore_order=False)
        self.assertEqual([place.use for place in places], ["never", "first"])
        self.assertEqual(explain(places), ["Clients begin with b:1688."])

    def test_narrow_terminal(self) -> None:
        """
        On a narrow terminal the table is folded, and nothing of it is lost.
        """
        survey = module.Survey(
            discovered=Discovered("corp.example", SERVICE, ()),
            places=[
                module.Place(
                    Found(record("kms.corp.example"), ("192.0.2.1",)),
                    ("192.0.2.1",),
                    "first",
                    1.0,
                    "",
                    {"192.0.2.1": GRANTED},
                )
            ],
            is_asked=True,
        )
        written = io.StringIO()
        module.show(survey, Console(file=written, width=60))
        self.assertTrue(
            all(
                len(line) <= 60
                for line in written.getvalue().splitlines()
                if not line.startswith("note: ")
            )
        )
        text = "".join(written.getvalue().split())
        self.assertIn("first", text)


class VerdictTests(SynchronousTestCase):
    """
    What is made of the errors of the client.
    """

    def test_verdicts(self) -> None:
        """
        Every error of the client has its verdict, and only hosts that are not there did not answer.
        """
        for error, verdict, answered in (
            (HostTimeoutError("x"), Verdict.SILENT, False),
            (HostUnreachableError("x"), Verdict.UNREACHABLE, False),
            (HResultError(5, "x"), Verdict.REFUSED, True),
            (FaultError(5, "x"), Verdict.REFUSED, True),
            (BindRefusedError(5, "x"), Verdict.REFUSED, True),
            (ContextRefusedError("x"), Verdict.REFUSED, True),
            (RemoteProtocolError("x"), Verdict.WRONG, True),
            (VerificationError("HMAC", "x"), Verdict.WRONG, True),
        ):
            with self.subTest(error=error):
                found = asking.verdict_of(error)
                self.assertIs(found, verdict)
                self.assertIs(found.answered, answered)
