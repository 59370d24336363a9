"""
The forms in which a journal writes: twistd's lines, with or without their times, or a JSON object for each line.

A form words what the journal itself has to say and what comes from Twisted's logging system, and stamps the lines that
are handed to the journal ready made.  Objects need no stamp, for their time is within them.  What another process says
is stamped already; but where every line has to be an object, one that is none (the rest of a line that was too long,
say) becomes one here.
"""

from __future__ import annotations

from typing import Protocol

from twisted.logger import LogEvent, eventAsText, formatEventAsClassicLogText, formatTime

from kmsproto.net.records import json_object, utc
from kmsproto.net.reporting import Format

#: What stands between the time and the text of a line, where twistd writes the source and level of an event.
SYSTEM = "kmsproto#info"


class Form(Protocol):
    """
    The form of the lines of a journal.
    """

    def stamp(self, second: int) -> str:
        """
        Make what stands in front of each ready line that is written in a second.
        """

    def event(self, event: LogEvent, now: float) -> str | None:
        """
        Word an event of Twisted's logging system, with its end; nothing if it has nothing to say.
        """

    def relayed(self, text: str, now: float) -> str:
        """
        Make lines of this form of whole lines that another process wrote.
        """

    def lost(self, lines: int, now: float) -> str:
        """
        Word that lines were given up, always in the same length for the same number.
        """


class TextForm:
    """
    The lines of twistd.
    """

    def stamp(self, second: int) -> str:
        """
        Make what stands in front of each ready line that is written in a second.
        """
        return f"{formatTime(second)} [{SYSTEM}] "

    def event(self, event: LogEvent, now: float) -> str | None:
        """
        Word an event as twistd does.
        """
        return formatEventAsClassicLogText(event)

    def relayed(self, text: str, now: float) -> str:
        """
        Leave lines as they are.
        """
        return text

    def lost(self, lines: int, now: float) -> str:
        """
        Word that lines were given up.
        """
        return f"{self.stamp(int(now))}lost lines={lines}\n"


class UntimedForm(TextForm):
    """
    The lines of twistd without their times, for where something else writes those: syslog, or a service manager.
    """

    def stamp(self, second: int) -> str:
        """
        Make what stands in front of each ready line.
        """
        return f"[{SYSTEM}] "

    def event(self, event: LogEvent, now: float) -> str | None:
        """
        Word an event as twistd does, without the time.
        """
        text = eventAsText(event, includeTimestamp=False)
        return text.replace("\n", "\n\t") + "\n" if text else None


class JSONForm:
    """
    A JSON object for each line.
    """

    def stamp(self, second: int) -> str:
        """
        Leave ready lines as they are.
        """
        return ""

    def event(self, event: LogEvent, now: float) -> str | None:
        """
        Word an event with its time, level and source; a traceback is a part of its message.
        """
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        if not text:
            return None
        time, level = event.get("log_time"), event.get("log_level")
        name = "info" if level is None else level.name
        system = event.get("log_system")
        if system is None:
            system = f"{event.get('log_namespace', '-')}#{name}"
        return self._log(now if time is None else time, name, str(system), text)

    def relayed(self, text: str, now: float) -> str:
        """
        Leave objects as they are, and make objects of other lines.
        """
        return "".join(
            f"{line}\n"
            if line.startswith('{"time":"') and line.endswith("}")
            else self._log(now, "info", "-", line)
            for line in text.removesuffix("\n").split("\n")
        )

    def lost(self, lines: int, now: float) -> str:
        """
        Word that lines were given up.
        """
        return json_object(time=utc(now), event="lost", lines=lines) + "\n"

    def _log(self, time: float, level: str, system: str, message: str) -> str:
        return (
            json_object(time=utc(time), event="log", level=level, system=system, message=message)
            + "\n"
        )


#: The form of twistd.
TEXT = TextForm()


def choose_form(log_format: Format, *, timestamps: bool = True) -> Form:
    """
    Find the form of the log of a service.

    @param log_format: The format of lines about peers.
    @param timestamps: Whether lines of text have their times; objects always have.
    """
    if log_format == "json":
        return JSONForm()
    return TEXT if timestamps else UntimedForm()
