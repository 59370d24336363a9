"""
What C{twistd kms} makes of its command line: options without a reactor, and a service with every setting in place.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from twisted.application.service import IServiceMaker
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError
from twisted.scripts import twistd as twistd_script
from twisted.trial.unittest import SynchronousTestCase

from kmsproto import __version__
from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.policy import Grant, Peer
from kmsproto.kms.rijndael import IMPLEMENTATION
from kmsproto.net.server import HostFactory
from kmsproto.service import tap
from kmsproto.service.handover import Handover
from kmsproto.service.hosting import make_site
from kmsproto.service.kinds import FILE
from kmsproto.service.listener import HostService
from kmsproto.service.settings import SETTINGS, default_state_directory
from kmsproto.service.startup import StartupError
from kmsproto.service.supervisor import SupervisorService
from kmsproto.service.tap import Options, makeService
from tests.net.wiring import body, payload
from tests.service.test_settings import ALLOWED, DEFAULTS, FORBIDDEN


def parse(*arguments: str) -> Options:
    """
    Parse a command line.
    """
    options = Options()
    options.parseOptions(list(arguments))
    return options


def squeeze(text: str) -> str:
    """
    Leave the white space out, since help is wrapped, also at hyphens.
    """
    return "".join(text.split())


class OptionsTests(SynchronousTestCase):
    """
    The command line.
    """

    def test_defaults(self) -> None:
        """
        Without options the host listens on port 1688, and every setting has its default.
        """
        options = parse()
        self.assertEqual(options["port"], 1688)
        self.assertEqual(options["endpoint"], [])
        self.assertEqual(
            options["state-directory"], default_state_directory(os.environ, os.geteuid())
        )
        self.assertIs(options["allow-public-peers"], False)
        self.assertIs(options["allow-shared-address-space"], False)
        for name, value in DEFAULTS.items():
            self.assertEqual((options[name], type(options[name])), (value, type(value)), name)

    def test_values(self) -> None:
        """
        Every setting that takes a value takes its values, in both spellings.
        """
        for setting in SETTINGS:
            if setting.flag:
                continue
            for text, value in ALLOWED[setting.name]:
                if setting.kind is FILE and not setting.section:
                    continue  # It would be read at once.
                expected = [value] if setting.repeatable else value
                for arguments in ([f"--{setting.name}={text}"], [f"--{setting.name}", text]):
                    with self.subTest(arguments=arguments):
                        self.assertEqual(parse(*arguments)[setting.name], expected)

    def test_short_letters(self) -> None:
        """
        Settings with a short letter take it too.
        """
        for letter, name, text, value in (
            ("P", "port", "5", 5),
            ("H", "host-build", "20348", 20348),
            ("C", "lcid", "1031", 1031),
            ("A", "activation-interval", "15", 15),
            ("R", "renewal-interval", "15", 15),
            ("t", "idle-timeout", "5", 5.0),
            ("m", "max-connections", "5", 5),
        ):
            self.assertEqual(parse(f"-{letter}", text)[name], value)

    def test_flags(self) -> None:
        """
        Switches are on when they are given.
        """
        for setting in SETTINGS:
            if setting.flag:
                self.assertIs(parse(f"--{setting.name}")[setting.name], True)

    def test_bad_values(self) -> None:
        """
        A value that is not allowed is a usage error of one line that names the option and what is allowed.
        """
        for setting in SETTINGS:
            if setting.flag:
                continue
            for text in FORBIDDEN[setting.name]:
                with self.subTest(name=setting.name, text=text):
                    with self.assertRaises(UsageError) as caught:
                        parse(f"--{setting.name}={text}")
                    self.assertEqual(
                        str(caught.exception),
                        f"--{setting.name}: {text!r} is not {setting.kind.allowed}",
                    )

    def test_unknown_option(self) -> None:
        """
        An option that does not exist, and a word too many, are usage errors.
        """
        for arguments in (["--prot", "5"], ["--port"], ["word"], ["--allow-public-peers=on"]):
            with self.subTest(arguments=arguments):
                self.assertRaises(UsageError, parse, *arguments)

    def test_port_and_endpoints(self) -> None:
        """
        With an endpoint and no port there is no port; with both there are both.
        """
        options = parse("--endpoint", "tcp:1", "--endpoint", "tcp:2")
        self.assertEqual((options["port"], options["endpoint"]), (None, ["tcp:1", "tcp:2"]))
        options = parse("--endpoint", "tcp:1", "--port", "7")
        self.assertEqual((options["port"], options["endpoint"]), (7, ["tcp:1"]))

    def test_parsed_twice(self) -> None:
        """
        Options of one command line are not those of another.
        """
        parse("--endpoint", "tcp:1")
        self.assertEqual(parse()["endpoint"], [])

    def test_help(self) -> None:
        """
        The help tells every setting with its help and default, and whose duty licences are.
        """
        text = squeeze(str(Options()))
        self.assertIn(squeeze("It grants no licence"), text)
        self.assertIn(squeeze("must own the volume licences"), text)
        for setting in SETTINGS:
            with self.subTest(setting.name):
                self.assertIn(f"--{setting.name}", text)
                if setting.short:
                    self.assertIn(f"-{setting.short},--{setting.name}", text)
                default = f"[default: {setting.default}]" if setting.default else ""
                self.assertIn(squeeze(setting.help + default), text)

    def within_twistd(self, *arguments: str) -> None:
        """
        Parse as twistd does.
        """
        script: Any = twistd_script
        options = script.ServerOptions()
        options.parseOptions(["--nodaemon", "kms", *arguments])

    def test_errors_within_twistd(self) -> None:
        """
        Within twistd an error ends the process with one line that says where help is.
        """
        for arguments, problem in (
            (["--port", "x"], "--port: 'x' is not a port number"),
            (["--endpoint", ""], "--endpoint: '' is not a server endpoint"),
            (["--prot", "5"], "option --prot not recognized"),
            (["word"], "'word' is no option, and nothing else is wanted"),
        ):
            with self.subTest(arguments=arguments):
                with self.assertRaises(SystemExit) as caught:
                    self.within_twistd(*arguments)
                line = str(caught.exception.code)
                self.assertTrue(line.startswith(f"twistd kms: {problem}"), line)
                self.assertTrue(line.endswith("; see twistd kms --help"), line)
                self.assertNotIn("\n", line)

    def test_good_within_twistd(self) -> None:
        """
        Within twistd a good command line parses.
        """
        self.within_twistd("--port", "5")

    def test_plugin(self) -> None:
        """
        twistd finds the host under its name, and learns its options from this module.
        """
        plugin: Any
        (plugin,) = [each for each in getPlugins(IServiceMaker) if each.tapname == "kms"]
        self.assertEqual(plugin.module, "kmsproto.service.tap")
        self.assertIs(plugin.options, Options)
        self.assertIs(plugin.makeService, makeService)
        self.assertIn("KMS", plugin.description)


class MakeServiceTests(SynchronousTestCase):
    """
    The service that the options ask for.
    """

    def setUp(self) -> None:
        """
        Choose a state directory, and be no reactor.
        """
        self.state = self.mktemp()
        self.reactor = MemoryReactorClock()

    def make(self, *arguments: str) -> HostService:
        """
        Make a service.
        """
        options = parse("--state-directory", self.state, *arguments)
        service = makeService(options, self.reactor)
        assert isinstance(service, HostService)
        return service

    def fails(self, *arguments: str) -> str:
        """
        Make no service, and get the line about it.
        """
        with self.assertRaises(StartupError) as caught:
            self.make(*arguments)
        text = str(caught.exception)
        self.assertNotIn("\n", text)
        return text

    def grant(self, service: HostService) -> Grant:
        """
        Ask the policy.
        """
        decision = service.factory.host.policy(body(), Peer("10.0.0.1", 1), 0)
        assert isinstance(decision, Grant)
        return decision

    def served(self, factory: HostFactory) -> list[str]:
        """
        Tell which of three peers are served: a private, a shared and a public one.
        """
        return [
            host
            for host in ("10.0.0.1", "100.64.0.1", "8.8.8.8")
            if factory.buildProtocol(IPv4Address("TCP", host, 1)) is not None
        ]

    def test_defaults(self) -> None:
        """
        Without options the service has the defaults of the library.
        """
        factory = self.make().factory
        self.assertEqual(factory.limits, type(factory.limits)())
        self.assertIs(factory.clock, self.reactor)
        self.assertTrue(factory.rpc_server.ndr64)
        self.assertTrue(factory.rpc_server.bind_time_features)
        self.assertEqual(self.served(factory), ["10.0.0.1"])

    def test_real_reactor(self) -> None:
        """
        Without a reactor the installed one is used.
        """
        service: Any = makeService(parse("--state-directory", self.state))
        self.assertIs(service.factory.clock, reactor)

    def test_limits(self) -> None:
        """
        Limits reach the factory.
        """
        limits = self.make(
            "--idle-timeout=7.5", "--max-connections=8", "--max-connections-per-address=9"
        ).factory.limits
        self.assertEqual(
            (limits.idle_timeout, limits.max_connections, limits.max_connections_per_address),
            (7.5, 8, 9),
        )

    def test_transfer_syntaxes(self) -> None:
        """
        NDR64 and bind-time features are switched on the RPC layer.
        """
        server = self.make("--ndr64=off").factory.rpc_server
        self.assertEqual((server.ndr64, server.bind_time_features), (False, True))
        server = self.make("--bind-time-features=off").factory.rpc_server
        self.assertEqual((server.ndr64, server.bind_time_features), (True, False))

    def test_peers(self) -> None:
        """
        Public peers and the shared address space are served where they are allowed.
        """
        factory = self.make("--allow-shared-address-space").factory
        self.assertEqual(self.served(factory), ["10.0.0.1", "100.64.0.1"])
        factory = self.make("--allow-public-peers").factory
        self.assertEqual(self.served(factory), ["10.0.0.1", "100.64.0.1", "8.8.8.8"])

    def test_intervals(self) -> None:
        """
        Intervals reach the policy.
        """
        self.assertEqual(self.grant(self.make()), Grant(50, 120, 10080))
        service = self.make("--activation-interval=15", "--renewal-interval=43200")
        self.assertEqual(self.grant(service), Grant(50, 15, 43200))

    def test_identity(self) -> None:
        """
        Host build and locale stand in the ePID, which is the same at every start.
        """
        first = self.make().factory.host.identity
        again = self.make().factory.host.identity
        other = self.make("--host-build=20348", "--lcid=1031").factory.host.identity
        csvlk = self.make().factory.host.catalog.csvlk_for(body().kms_id).key
        self.assertEqual(first.epid(csvlk), again.epid(csvlk))
        self.assertIn("-03-1033-26100.0000-", first.epid(csvlk))
        self.assertIn("-03-1031-20348.0000-", other.epid(csvlk))
        self.assertEqual(first.hardware_id, again.hardware_id)

    def test_state_directory(self) -> None:
        """
        Another state directory is another identity.
        """
        first = self.make().factory.host.identity.hardware_id
        self.state = self.mktemp()
        self.assertNotEqual(self.make().factory.host.identity.hardware_id, first)

    def test_entropy(self) -> None:
        """
        Answers of two hosts with the same identity differ in what is random.
        """
        first, second = (
            self.make().factory.host.answer(payload(), Peer("10.0.0.1", 1), 0).payload
            for _ in range(2)
        )
        self.assertNotEqual(first, second)

    def test_group_seed(self) -> None:
        """
        The ids of association groups begin elsewhere at every start.
        """
        seeds = {self.make().factory.rpc_server.groups.create("10.0.0.1") for _ in range(4)}
        self.assertGreater(len(seeds), 1)

    def test_port(self) -> None:
        """
        A port is opened for both families, and handed to the reactor.
        """
        service = self.make("--port=0")
        service.privilegedStartService()
        ((_, family, factory),) = self.reactor.adoptedPorts
        both = socket.has_dualstack_ipv6()
        self.assertEqual(family, socket.AF_INET6 if both else socket.AF_INET)
        self.assertIs(factory, service.factory)

    def test_port_number(self) -> None:
        """
        The port that is opened is the one that was asked for.
        """
        asked: list[Any] = []

        def create_server(address: Any, **options: Any) -> Any:
            asked.append(address)
            raise OSError(13, "Permission denied")

        self.patch(socket, "create_server", create_server)
        with self.assertRaises(StartupError) as caught:
            self.make("--port=5").privilegedStartService()
        self.assertEqual(asked, [("", 5)])
        self.assertEqual(
            str(caught.exception),
            "cannot listen on 5: Permission denied; choose another with --port or --endpoint",
        )

    def test_endpoints(self) -> None:
        """
        Endpoints are opened as they are described, beside the port or without one.
        """
        for arguments, ports in ((["--port=0"], 1), ([], 0)):
            self.reactor = MemoryReactorClock()
            service = self.make(
                *arguments, "--endpoint=tcp:6:interface=10.0.0.1", "--endpoint=unix:socket"
            )
            service.privilegedStartService()
            self.assertEqual(len(self.reactor.adoptedPorts), ports)
            ((port, factory, _, interface),) = self.reactor.tcpServers
            self.assertEqual((port, interface), (6, "10.0.0.1"))
            self.assertIs(factory, service.factory)
            ((path, factory, *_),) = self.reactor.unixServers
            self.assertEqual(path, "socket")
            self.assertIs(factory, service.factory)

    def test_bad_endpoints(self) -> None:
        """
        What is no endpoint is told in one line with the option and the reason.
        """
        for description in (
            "nonsense:1",
            "nonsense",
            "tcp",
            "tcp:",
            "tcp:x",
            "tcp:1688:x=y",
            "tcp:1:2:3:4",
            "unix",
            "systemd:domain=INET:index=77",
            "systemd:domain=INET:index=x",
            "systemd:domain=INET",
            "ssl:1688:privateKey=/nowhere/key.pem",
            "ssl:1688:privateKey=/dev/null",
            "haproxy:nonsense:1",
            "tcp6:x",
        ):
            with self.subTest(description=description):
                text = self.fails(f"--endpoint={description}")
                beginning = f"--endpoint: {description!r} is not a server endpoint: "
                self.assertTrue(text.startswith(beginning), text)

    def test_bad_state_directory(self) -> None:
        """
        A state directory that cannot be used is told in one line with the option.
        """
        Path(self.state).write_text("")
        text = self.fails()
        self.assertIn(f"the state directory {self.state} cannot be used: ", text)
        self.assertIn("--state-directory", text)

    def test_damaged_state(self) -> None:
        """
        A damaged file in the state directory is told in one line.
        """
        self.make()
        (Path(self.state) / "installation.json").write_text("")
        self.assertIn("installation.json is damaged", self.fails())

    def test_unknown_build(self) -> None:
        """
        A host build that nobody knows is told in one line, with the option it came from.
        """
        text = self.fails("--host-build=12345")
        self.assertIn("12345", text)
        self.assertIn("--host-build", text)

    def test_wrong_clock(self) -> None:
        """
        A machine whose clock was never set gets a service all the same.
        """
        self.patch(time, "time", lambda: 0.0)
        self.make()

    def test_nothing_listens_yet(self) -> None:
        """
        To make a service opens nothing.
        """
        self.make("--endpoint=tcp:6")
        self.assertEqual(self.reactor.tcpServers, [])

    def test_says_what_starts(self) -> None:
        """
        A line tells the version, the build, how many products are known, which cipher, how many workers, and where the
        state is.
        """
        with capturedLogs() as events:
            self.make()
        lines = [formatEvent(each) for each in events if each.get("log_namespace") == tap.__name__]
        self.assertEqual(len(lines), 1)
        self.assertRegex(
            lines[0],
            r"^starting version=\S+ host_build=26100 products=\d+"
            rf' cipher="{re.escape(IMPLEMENTATION)}" workers=1 state="{re.escape(self.state)}"$',
        )


class MakeSupervisorTests(SynchronousTestCase):
    """
    The service that is made when workers serve.
    """

    def options(self, *arguments: str) -> Options:
        """
        Parse a command line.
        """
        return parse("--state-directory", self.mktemp(), "--workers=3", *arguments)

    def make(self, options: Options) -> SupervisorService:
        """
        Make a service with the reactor of this process, which workers can have too.
        """
        service = makeService(options)
        assert isinstance(service, SupervisorService)
        return service

    def test_workers(self) -> None:
        """
        There are as many workers as asked for, and none runs yet.
        """
        service = self.make(self.options())
        self.assertEqual([worker.number for worker in service.workers], [1, 2, 3])
        self.assertEqual([worker.pid for worker in service.workers], [None] * 3)

    def test_document(self) -> None:
        """
        A worker is handed the settings in force, the installation, the reactor, and a range of group ids of its own.
        """
        options = self.options("--lcid=1031", "--endpoint=tcp:6", "--endpoint=unix:socket")
        service = self.make(options)
        handed = [Handover.decode(worker.document(), __version__) for worker in service.workers]
        self.assertEqual([each.worker for each in handed], [1, 2, 3])
        self.assertEqual({each.sockets for each in handed}, {2})
        self.assertEqual({each.reactor for each in handed}, {type(reactor).__module__})
        self.assertEqual([each.group_seed * 3 >> 32 for each in handed], [0, 1, 2])
        expected = makeService(self.single(options))
        assert isinstance(expected, HostService)
        for each in handed:
            self.assertEqual(dict(each.settings), {row.name: options[row.name] for row in SETTINGS})
            site = make_site(
                each.settings,
                each.installation,
                catalog=load_catalog(),
                counts=None,
                drawn=each.drawn,
                today=date(2026, 1, 1),
            )
            self.assertEqual(
                site.host.identity.hardware_id, expected.factory.host.identity.hardware_id
            )

    def single(self, options: Options) -> Options:
        """
        Ask for the same host without workers.
        """
        return parse("--state-directory", str(options["state-directory"]), "--endpoint=tcp:6")

    def test_other_reactor(self) -> None:
        """
        A reactor that a worker cannot install is refused in one line.
        """
        with self.assertRaises(StartupError) as caught:
            makeService(self.options(), MemoryReactorClock())
        self.assertEqual(
            str(caught.exception), "workers cannot be started with the reactor MemoryReactorClock"
        )

    def test_no_interpreter(self) -> None:
        """
        A program that has no interpreter to name is refused in one line.
        """
        self.patch(sys, "executable", "")
        with self.assertRaises(StartupError) as caught:
            makeService(self.options())
        self.assertIn("the interpreter is not known", str(caught.exception))

    def test_common_view(self) -> None:
        """
        A setting that needs a common view is a usage error with workers, and none without.
        """
        parse("--workers=1", "--maintain-clients=on")
        with self.assertRaises(UsageError) as caught:
            parse("--workers=2", "-M1")
        self.assertIn("-maintain-clients: 'on' is not possible", str(caught.exception))

    def test_says_what_starts(self) -> None:
        """
        The line of the start tells how many workers there are.
        """
        with capturedLogs() as events:
            self.make(self.options())
        (line,) = [formatEvent(each) for each in events if each["log_namespace"] == tap.__name__]
        self.assertIn(" workers=3 ", line)
