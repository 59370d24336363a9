"""
The command C{kmsproto explain}.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.cli.explain_epid import explain_epid
from kmsproto.cli.explain_event import LAYOUTS, MAX_FIELDS, MAX_TEXT, EventError, parse_event
from kmsproto.cli.explain_page import PAGE, anchor, render_page
from kmsproto.cli.main import main
from kmsproto.kms.catalog import load_catalog
from kmsproto.kms.epid import EPIDError, Installation, derive_epid
from kmsproto.kms.explanations import load_explanations

ROOT = Path(__file__).resolve().parent.parent.parent
CATALOG = load_catalog()
KNOWN = load_explanations()
TODAY = date(2026, 11, 1)
EPID = "03612-00206-437-000001-03-1033-14393.0000-0102017"

CMID = "5c1d2d83-8ff9-4ae5-a4b5-6a4ac20a0d4b"
SENT = (
    f"0x800706BA, 0x00000000, kms.example.com:1688, {CMID}, 2026/01/31 12:00, 1, 2, 41760,"
    " ae2ee509-1b34-41c0-acb7-6d4650168915, 25"
)
ANSWERED = "0x00000000, 0x00000000, 1, 0, 50, 120, 10080, 2026/01/31 12:00"
SERVED = (
    f"0x0, 25, lab-7.example.com, {CMID}, 2026/01/31 12:00, 0, 1, 0,"
    " 58e2134f-8e11-4d17-9cb2-91069c151148, 5"
)


class _ExplainCase(SynchronousTestCase):
    """
    Runs the command.
    """

    def invoke(self, *arguments: str, status: int = 0) -> Result:
        """
        Run it, and expect a status.
        """
        result = CliRunner().invoke(main, ["explain", *arguments])
        self.assertEqual(result.exit_code, status, result.output)
        return result

    def text(self, *arguments: str, status: int = 0) -> str:
        """
        Run it, and give its text back without its line breaks.
        """
        return " ".join(self.invoke(*arguments, status=status).output.split())

    def json(self, *arguments: str) -> Any:
        """
        Run it with JSON.
        """
        return json.loads(self.invoke(*arguments, "--json").output)


class CodeTests(_ExplainCase):
    """
    Codes.
    """

    def test_spellings(self) -> None:
        """
        A code is explained in every spelling: name, meaning, who says it, causes, what to do.
        """
        entry = KNOWN.labelled("0xC004F074")
        for text in ("0xC004F074", "c004f074", "-1073418124", "3221549172", entry.name.lower()):
            output = self.text(text)
            for part in (entry.label, entry.name, entry.meaning, *entry.causes, *entry.remedies):
                self.assertIn(part, output)
            self.assertIn("Said by: client", output)

    def test_pasted(self) -> None:
        """
        A code is found in what programs put around it, and in a whole message, whose words are no names.
        """
        shown = self.invoke("0xC004F074").output
        for text in (
            *("0xc004f074L", "&HC004F074&", "(0xC004F074)", "0xFFFFFFFFC004F074", "hr=0xC004F074"),
            *("3221549172L", "\u22121073418124", "C004F074h", "-1073418124."),
            "Error: 0xC004F074 The Software Licensing Service reported that no host was reached.",
            *("Error 0xC004F074", "ERROR 0xC004F074", "Error code 0xC004F074", "code C004F074"),
            "AppId=55c92734-d682-4d71-983e-d6ec3f16059f failed with C004F074, says the event log",
        ):
            self.assertEqual(self.invoke(text).output, shown, text)
            self.assertEqual(self.invoke(*text.split()).output, shown, text)
        for text in ("slui.exe 0x2a 0xC004F074", "0xC004F074 (refused)", "0xC004F074, 0xC004F074"):
            self.assertEqual(self.invoke(text).output, shown, text)
        both = self.invoke("0xC004F074", "0x8007232B").output
        for text in ("0xC004F074,0x8007232B", "0xC004F074/0x8007232B", "0xC004F074; 0x8007232B"):
            self.assertEqual(self.invoke(text).output, both, text)
        self.assertIn("NXDOMAIN", self.text("8007232B DNS name does not exist"))
        self.assertIn("DNS_ERROR_RCODE_NAME_ERROR", self.text("0x8007232B", "0xC004F038"))

    def test_near(self) -> None:
        """
        For an unknown code those are named that one mistake of typing makes of it; for others, whose it is.
        """
        for text in ("C004FO74", "0xC004F0741", "0xC04F074", "0xC040F074"):
            meant = self.text(text, status=1).split("did you mean ")[-1]
            self.assertIn("0xC004F074", meant.split("?")[0], text)
        for text, near in (("0xC004F073", "0xC004F074"), ("C004F015", "0xC004F051 or 0xC004F014")):
            # They are complete, and may be codes of their own.
            told = self.text(text, status=1)
            self.assertNotIn("did you mean", told)
            self.assertIn(f"; only if it was mistyped, it may be {near}", told)
        self.assertIn("SL_E_VL_NOT_ENOUGH_COUNT?", self.text("SL_E_VL_NOT_ENOGH_COUNT", status=1))
        self.assertNotIn("did you mean", self.text("nonsense", status=1))
        self.assertIn("kmsproto explain event12290 tells", self.text("12290", status=1))
        self.assertIn("activation servers", self.text("0xC004C7FF", status=1))
        self.assertIn("slui 0x2a 0xC004C7FF", self.text("0xC004C7FF", status=1))
        self.assertIn("net helpmsg 12007", self.text("0x80072EE7", status=1))

    def test_without_a_word(self) -> None:
        """
        An extended PID and an event are taken for what they are, also without the word that says so.
        """
        self.assertEqual(self.invoke(EPID).output, self.invoke("epid", EPID).output)
        self.assertEqual(self.invoke(SERVED).output, self.invoke("event", SERVED).output)

    def test_several(self) -> None:
        """
        Several codes are explained in their order, each once.
        """
        output = self.text("nca_s_unk_if", "NOT_ENOUGH_COUNT", "1722", "0x800706BA")
        self.assertLess(output.index("0x1C010003"), output.index("0xC004F038"))
        self.assertEqual(output.count("0x800706BA RPC_S_SERVER_UNAVAILABLE"), 1)
        self.assertIn("(HRESULT, of Win32 error 1722)", output)

    def test_ambiguous(self) -> None:
        """
        A part of a name that many have lists them, each on one line.
        """
        lines = self.invoke("RPC_S").output.splitlines()
        self.assertEqual(len(lines), len(KNOWN.look_up("RPC_S")))

    def test_all(self) -> None:
        """
        Without a code all are listed.
        """
        lines = self.invoke().output.splitlines()
        self.assertEqual(len(lines), len(KNOWN.entries))
        for line, entry in zip(lines, KNOWN.entries, strict=True):
            self.assertTrue(line.startswith(entry.label))
            self.assertTrue(line.endswith(entry.meaning))
        self.assertEqual([row["code"] for row in self.json()], [e.label for e in KNOWN.entries])

    def test_unknown(self) -> None:
        """
        An unknown code is taken apart, and the others are explained all the same.
        """
        result = self.invoke("0x80041234", "0xC004F038", "nonsense", status=1)
        output = result.output
        self.assertIn("severity 1 (failure), facility 4 (ITF", output)
        self.assertIn("'nonsense'", output)
        self.assertIn("list all codes with kmsproto explain", output)
        self.assertIn("SL_E_VL_NOT_ENOUGH_COUNT", output)

    def test_unknown_is_escaped(self) -> None:
        """
        What the user gave cannot steer the terminal.
        """
        self.assertNotIn("\x1b", self.invoke("\x1b[31m", status=1).output)

    def test_json(self) -> None:
        """
        JSON says for each text what was found.
        """
        [first, second] = self.json("bind_nak 4", "5")
        self.assertEqual(first["asked"], "bind_nak 4")
        self.assertEqual([code["code"] for code in first["codes"]], ["bind_nak 4"])
        self.assertEqual(second["codes"][0]["twin"], "0x80070005")
        result = self.invoke("0x80041234", "nonsense", "--json", status=1)
        [unknown, nonsense], _ = json.JSONDecoder().raw_decode(result.output)
        self.assertEqual((unknown["codes"], unknown["parts"]["facility"]), ([], 4))
        self.assertIsNone(nonsense["parts"])

    def test_too_large(self) -> None:
        """
        A number of more than 32 bits is refused in one line.
        """
        output = self.invoke("99999999999", status=1).output
        self.assertIn("32 bits", output)
        self.assertEqual(len(output.splitlines()), 1)

    def test_usage(self) -> None:
        """
        An option that does not exist is a usage error, though codes may begin with a hyphen; so are very many codes.
        """
        self.assertIn("--jsn", self.invoke("--jsn", status=2).output)
        self.assertIn("-q", self.invoke("0xC004F038", "-q", status=2).output)
        self.invoke(*["0"] * 65, status=2)

    def test_help(self) -> None:
        """
        The help names the forms, and not what is only for the documentation.
        """
        output = self.text("--help")
        self.assertIn("kmsproto explain epid EPID", output)
        self.assertNotIn("--reference", output)


class PageTests(_ExplainCase):
    """
    The page of the documentation.
    """

    def test_in_the_repository(self) -> None:
        """
        The page in the repository is the one that would be made now.
        """
        path = ROOT / PAGE
        if not path.exists():
            self.skipTest("installed without the repository")
        self.assertEqual(path.read_text("utf-8"), render_page(KNOWN))
        self.assertEqual(self.invoke("--reference").output, render_page(KNOWN))

    def test_complete(self) -> None:
        """
        Every code has a place with a name of its own, which what refers to it uses.
        """
        page = render_page(KNOWN)
        anchors = [anchor(entry) for entry in KNOWN.entries]
        self.assertEqual(len(set(anchors)), len(anchors))
        for name in anchors:
            self.assertEqual(page.count(f".. _{name}:\n"), 1)
        for entry in KNOWN.entries:
            for label in entry.related:
                self.assertIn(f":ref:`{label} <{anchor(KNOWN.labelled(label))}>`", page)

    def test_lines(self) -> None:
        """
        No line is longer than prose may be.
        """
        self.assertEqual([line for line in render_page(KNOWN).splitlines() if len(line) > 120], [])

    def test_troubleshooting(self) -> None:
        """
        The page about troubleshooting refers only to codes that there are.
        """
        path = ROOT / "docs" / "troubleshooting.rst"
        if not path.exists():
            self.skipTest("installed without the repository")
        anchors = {anchor(entry) for entry in KNOWN.entries}
        text = path.read_text("utf-8")
        referred = {part.split(">")[0] for part in text.split("<code-")[1:]}
        self.assertGreater(len(referred), 15)
        self.assertLessEqual({f"code-{name}" for name in referred}, anchors)


class EPIDTests(_ExplainCase):
    """
    Extended PIDs.
    """

    def warnings(self, epid: str) -> tuple[str, ...]:
        """
        Tell what is odd in one.
        """
        return explain_epid(epid, CATALOG, TODAY).warnings

    def test_parts(self) -> None:
        """
        Each part is told with what it says.
        """
        report = explain_epid(EPID, CATALOG, TODAY)
        parts = {part.name: (part.text, part.meaning) for part in report.parts}
        self.assertEqual(parts["group id"], ("00206", "Office 2016 (Office2016)"))
        self.assertEqual(parts["key id"][0], "437-000001")
        self.assertIn("437000001, in the range 437000000 to 458999999", parts["key id"][1])
        self.assertEqual(parts["licence channel"], ("03", "volume licence"))
        self.assertEqual(parts["locale id"], ("1033", "English (United States)"))
        self.assertIn("Server 2016", parts["build"][1])
        self.assertEqual(parts["activated"], ("0102017", "2017-01-10: day 10 of 2017"))
        self.assertIn("14393", parts["platform id"][1])
        self.assertEqual(report.warnings, ())

    def test_derived(self) -> None:
        """
        Nothing is odd in what a host of kmsproto presents, whichever build and host key it takes.
        """
        installation = Installation(bytes(16), date(2026, 1, 1))
        for csvlk in CATALOG.csvlks.values():
            for build in CATALOG.host_builds.values():
                if build.for_epid and build.build not in csvlk.invalid_host_builds:
                    epid = str(derive_epid(installation, csvlk, build, 1033))
                    report = explain_epid(epid, CATALOG, TODAY)
                    self.assertEqual(report.warnings, (), epid)
                    self.assertIn(csvlk, report.csvlks)

    def test_warnings(self) -> None:
        """
        What no genuine host would say is found.
        """
        for old, new, warning in (
            ("437-000001", "999-000001", "no key id 999000001"),
            ("00206", "12345", "group id 12345"),
            ("03612", "06401", "platform id of build 14393 is 03612"),
            ("14393.", "6002.", "too old for Office2016"),
            ("14393.", "12345.", "build 12345 is not in the catalogue"),
            ("0102017", "0102014", "on 2014-01-10 there was no such host yet"),
            ("0102017", "0102027", "2027-01-10 is still to come"),
            ("-1033-", "-77-", "locale id 77"),
        ):
            self.assertIn(warning, "; ".join(self.warnings(EPID.replace(old, new))))

    def test_unknown_group(self) -> None:
        """
        What has nothing to do with the host key is looked at without one too.
        """
        epid = "06401-12345-437-000001-03-1033-14393.0000-0102014"
        first, *others = self.warnings(epid)
        self.assertIn("no host key has the group id 12345", first)
        self.assertIn("two extended PIDs", first)
        self.assertEqual(
            others,
            [
                "the platform id of build 14393 is 03612",
                "on 2014-01-10 there was no such host yet",
            ],
        )
        parts = {part.name: part.meaning for part in explain_epid(epid, CATALOG, TODAY).parts}
        self.assertEqual(parts["group id"], "no host key that is known has it")
        self.assertIn("in no range", parts["key id"])
        unknown = explain_epid(epid.replace("06401", "00001"), CATALOG, TODAY)
        self.assertEqual(unknown.parts[0].meaning, "no build has it")

    def test_client_build(self) -> None:
        """
        A build that is not known as a KMS host is said to be none.
        """
        parts = explain_epid(EPID.replace("14393", "22631"), CATALOG, TODAY).parts
        self.assertIn("not known as a KMS host", parts[5].meaning)

    def test_command(self) -> None:
        """
        The command shows the parts, the host keys and what is odd, several times if asked to.
        """
        output = self.text("epid", EPID)
        for part in ("platform id 03612", "Office2016", "released 2015-09-22", "nothing is odd"):
            self.assertIn(part, output)
        output = self.text("EPID", EPID, EPID.replace("0102017", "0102014"))
        self.assertIn("warning: on 2014-01-10", output)
        [document] = self.json("epid", EPID)
        self.assertEqual(document["csvlks"], ["Office2016"])
        self.assertEqual(
            [document[name] for name in ("group_id", "key_id", "lcid", "build", "activated")],
            [206, 437000001, 1033, 14393, "2017-01-10"],
        )
        self.assertEqual([part["text"] for part in document["parts"]][:2], ["03612", "00206"])

    def test_which_part(self) -> None:
        """
        Of an extended PID that is wrong the part is named; what slmgr puts before one is no fault of it.
        """
        for old, new, part in (
            ("03612", "3612", "platform id"),
            ("00206", "0206", "group id"),
            ("-437-", "-43-", "first half"),
            ("000001", "00001", "second half"),
            ("-03-", "-02-", "licence channel"),
            ("-1033-", "-01033-", "locale id"),
            (".0000", ".0001", "build"),
            ("0102017", "102017", "day"),
            ("-1033", "", "parts are 8, not 7"),
        ):
            error = self.assertRaises(
                EPIDError, explain_epid, EPID.replace(old, new), CATALOG, TODAY
            )
            self.assertIn(part, str(error))
        pasted = f"Key Management Service machine extended PID: {EPID}"
        self.assertEqual(explain_epid(pasted, CATALOG, TODAY), explain_epid(EPID, CATALOG, TODAY))

    def test_malformed(self) -> None:
        """
        What is no extended PID is refused in one line; none at all is a usage error.
        """
        self.assertRaises(EPIDError, explain_epid, "03612-00206", CATALOG, TODAY)
        output = self.invoke("epid", "03612-\x1b[31m", status=1).output
        self.assertIn("not the form of an extended PID", output)
        self.assertIn(f"one is written like {EPID}", output)
        self.assertNotIn("\x1b", output)
        self.assertEqual(len(output.splitlines()), 1)
        self.invoke("epid", status=2)


class EventTests(_ExplainCase):
    """
    Events of the event log.
    """

    def fields(self, text: str, number: int | None = None) -> dict[str, tuple[str, str]]:
        """
        Take an event apart.
        """
        event = parse_event(text, CATALOG, KNOWN, number)
        return {field.name: (field.value, field.meaning) for field in event.fields}

    def test_recognized(self) -> None:
        """
        Which event it is can be seen from the list alone, with and without a second code.
        """
        for text, number in ((SENT, 12288), (ANSWERED, 12289), (SERVED, 12290)):
            for each in (text, text.replace(", 0x00000000,", ",")):
                self.assertEqual(parse_event(each, CATALOG, KNOWN).layout.number, number, each)

    def test_sent(self) -> None:
        """
        12288 tells what came of asking which host, for which client and product.
        """
        fields = self.fields(SENT)
        self.assertIn("RPC_S_SERVER_UNAVAILABLE", fields["result"][1])
        self.assertEqual(fields["KMS host"], ("kms.example.com:1688", ""))
        self.assertEqual(fields["client machine id"][0], CMID)
        self.assertEqual(fields["time of the client"], ("2026/01/31 12:00", "UTC"))
        self.assertEqual(fields["virtual machine"], ("1", "yes"))
        self.assertEqual(fields["licence state"], ("2", "OOB grace"))
        self.assertEqual(fields["minutes left"], ("41760", "29 days"))
        self.assertEqual(fields["activation id"][1], "the product Windows 7 Enterprise")
        self.assertEqual(fields["minimum count"], ("25", "25 clients"))

    def test_answered(self) -> None:
        """
        12289 tells the count and the intervals.
        """
        fields = self.fields(ANSWERED)
        self.assertEqual(fields["activated"], ("1", "yes"))
        self.assertEqual(fields["count"], ("50", "50 clients"))
        self.assertEqual(fields["activation interval"], ("120", "2 hours"))
        self.assertEqual(fields["renewal interval"], ("10080", "7 days"))

    def test_served(self) -> None:
        """
        12290 tells who asked a host for what; a value behind is shown without a guess.
        """
        fields = self.fields(SERVED)
        self.assertEqual(fields["client"], ("lab-7.example.com", ""))
        self.assertEqual(fields["minimum count"], ("25", "25 clients"))
        self.assertEqual(fields["licence state"], ("1", "licensed"))
        self.assertEqual(fields["product"][1], "the KMS id Windows 10/11 (Volume)")
        self.assertIn("not documented", fields["further value"][1])

    def test_whole_message(self) -> None:
        """
        The list is found in the whole text of the event.
        """
        text = f"An activation request has been processed.\r\nInfo:\r\n{SERVED}\r\n"
        self.assertEqual(self.fields(text), self.fields(SERVED))
        self.assertEqual(self.fields(SERVED + ","), self.fields(SERVED))

    def test_pasted(self) -> None:
        """
        Quotes, tags, line breaks, the date of another language and text behind the list change nothing.
        """
        list_of_values = (
            f"0x0,5,CLIENT.contoso.com,{CMID},2010/1/13 21:09,1,1,600,"
            "0724cb7d-3437-4cb7-93cb-830375d0079d"
        )
        fields = self.fields(list_of_values)
        self.assertEqual(fields["minutes left"], ("600", "10 hours"))
        self.assertEqual(fields["product"][1], "the host key Windows 10 2015 VL")
        for text in (
            f'"{list_of_values}"',
            ",".join(f'"{value}"' for value in list_of_values.split(",")),
            list_of_values.replace("-9ae5", "-\r\n9ae5").replace("13 21", "13\n21"),
            f"<EventData><Data>{list_of_values}</Data></EventData>",
            f"Informationen\n{list_of_values}\n\nEvent Xml:\n<Event/>",
        ):
            self.assertEqual(self.fields(text), fields, text)
        for written in ("13.01.2010 21:09", "1/13/2010, 9:09 PM"):
            when = self.fields(list_of_values.replace("2010/1/13 21:09", written))
            self.assertTrue(when["time of the client"][1].startswith("UTC, "), written)
            self.assertEqual(when["product"], fields["product"])

    def test_second_code(self) -> None:
        """
        The second code, of which the documentation does not say what it is, is explained as a code.
        """
        self.assertEqual(self.fields(SENT)["second code"][1], "none")
        fields = self.fields(SENT.replace("0x00000000", "0xC004F042"))
        self.assertIn("SL_E_VL_KEY_MANAGEMENT_SERVICE_ID_MISMATCH", fields["second code"][1])

    def test_named(self) -> None:
        """
        Events whose fields have names are told from the names; one that failed to publish in DNS, from its code.
        """
        sku = "58e2134f-8e11-4d17-9cb2-91069c151148"
        for text, number in (
            (f"Reason:0xC004F074\nAppId = {CMID}, SkuId = {sku}\nTrigger=TimerEvent", 8233),
            (f"hr=0xC004F074\nRuleId={CMID};Action=AutoActivate;SkuId={sku}", 8198),
            (
                "License Activation (slui.exe) failed with the following error code:\nhr=0xC004F074\n"
                f"Command-line arguments:\nRuleId={CMID};Action=AutoActivate;SkuId={sku}",
                8198,
            ),
            ("License acquisition failure details.\nhr=0xC004C003", 8200),
            (f"Acquisition of a ticket failed (hr=0xC004C4A2) for template Id {CMID}", 8208),
            ("Publishing to DNS in the domain 'example.com' failed.\nInfo:\n0x8007232D", 12293),
        ):
            event = parse_event(text, CATALOG, KNOWN)
            self.assertEqual(event.layout.number, number)
            self.assertTrue(event.failure)
        self.assertRaises(EventError, parse_event, "nothing", CATALOG, KNOWN, 8198)

    def test_odd_values(self) -> None:
        """
        A value that cannot stand where it does is shown, and said to be none.
        """
        fields = self.fields(
            "0xZZ, 0x0, nowhere, x, yesterday, 2, 9, soon, 00000000-0000-0000-0000-000000000000, many",
            12288,
        )
        none = "not what stands here"
        for name in (
            *("result", "KMS host", "client machine id", "time of the client"),
            *("virtual machine", "minutes left", "minimum count"),
        ):
            self.assertEqual(fields[name][1], none, name)
        self.assertEqual(fields["licence state"][1], "there is no such state")
        self.assertEqual(fields["activation id"][1], "not in the catalogue")
        fields = self.fields("0x80041234, x, , x, x, x, x, x, x", 12290)
        self.assertEqual(fields["result"][1], "not known")
        for name in ("client", "licence state", "product", "minimum count"):
            self.assertEqual(fields[name][1], none, name)
        self.assertEqual(self.fields("0x0, 1, x, 1", 12289)["reason"][1], none)
        self.assertIn(
            "the DNS name", self.fields("0x80092328", 12288)["result"][1].replace("The", "the")
        )

    def test_short(self) -> None:
        """
        Of a list that was cut off what is there is told.
        """
        self.assertEqual(list(self.fields("0x0, 25", 12290)), ["result", "minimum count"])

    def test_refused(self) -> None:
        """
        What is no list of an event is refused in one line, and so is far too much.
        """
        for text in (
            *("", "hello", "0x0, 1, 2", "1, 2, 3, 4, 5, 6, 7, 8", "x, x, x, x, x"),
            *("0x0, a, b, c, d, e", "x" * (MAX_TEXT + 1), "1," * (MAX_FIELDS + 2)),
        ):
            error = self.assertRaises(EventError, parse_event, text, CATALOG, KNOWN)
            self.assertEqual(len(str(error).splitlines()), 1)

    @given(st.text("0x1, :/abcInfo.-\n", max_size=120), st.sampled_from([None, *LAYOUTS]))
    def test_any_text(self, text: str, number: int | None) -> None:
        """
        Any text is taken apart or refused; no value gets lost.
        """
        try:
            event = parse_event(text, CATALOG, KNOWN, number)
        except EventError:
            return
        plain = "".join(text.split())
        self.assertTrue(all("".join(field.value.split()) in plain for field in event.fields))

    def test_command(self) -> None:
        """
        The command takes the number beside the word or not at all, and says how to go on after a failure.
        """
        shown = self.invoke("event", SENT).output
        self.assertEqual(self.invoke("event12288", SENT).output, shown)
        self.assertEqual(self.invoke("event", "12288", SENT).output, shown)
        self.assertEqual(self.invoke("event", *SENT.split()).output, shown)
        self.assertIn("kmsproto explain 0x800706BA", shown)
        self.assertNotIn("kmsproto explain", self.invoke("event", SERVED).output)
        self.assertEqual(self.json("event", SERVED)[0]["event"], 12290)
        self.assertIn("12288", self.text("event", "nothing", status=1))

    def test_layouts(self) -> None:
        """
        Without a list the command tells which fields there are.
        """
        output = self.text("event12290")
        self.assertIn("3 client The name of the client's machine.", output)
        self.assertEqual(len(self.json("event")), len(LAYOUTS))
        self.assertEqual(len(self.json("event", "12289")[0]["fields"]), 8)
        self.assertIn("12288, 12289, 12290", self.text("event12291", status=2))

    def test_escaped(self) -> None:
        """
        Text of a log cannot steer the terminal.
        """
        output = self.invoke("event", SERVED.replace("lab-7", "lab\x1b[31m")).output
        self.assertNotIn("\x1b", output)
        self.assertIn("lab\\x1b[31m", output)
