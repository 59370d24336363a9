"""
A reload: everything is read anew, and either all of it holds or nothing changes.

The command line stays what it was; environment, files and catalogue are read again and checked as at the start.  If
anything is wrong, one line says what, and the old settings stay.  Otherwise what a running host can change takes
effect, for open connections too, and what needs a restart is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger

from kmsproto.errors import KMSProtoError
from kmsproto.net.quoting import quote
from kmsproto.service.hosting import Site
from kmsproto.service.settings import BY_NAME
from kmsproto.service.sources import Effective

_log = Logger()


class Reloader:
    """
    Knows what holds, and lets something else hold.

    @param settings: What holds.
    @param gather: Finds out what the sources say now.
    @param prepare: Makes a site of settings, or raises a L{KMSProtoError}.
    @param apply: Lets a site hold.
    @ivar settings: What holds.
    """

    def __init__(
        self,
        settings: Effective,
        gather: Callable[[], Effective],
        prepare: Callable[[Mapping[str, Any]], Site],
        apply: Callable[[Site], object],
    ) -> None:
        self.settings = settings
        self._gather = gather
        self._prepare = prepare
        self._apply = apply

    def reload(self) -> bool:
        """
        Read everything anew.

        @return: Whether it could be used.
        """
        try:
            wanted = self._gather()
            changed = self.settings.changes(wanted)
            fixed = [name for name in changed if not BY_NAME[name].reloadable]
            values = {**wanted, **{name: self.settings[name] for name in fixed}}
            settings = Effective(values, wanted.given, wanted.warnings)
            site = self._prepare(settings)
        except KMSProtoError as error:
            _log.error("not reloaded, the old settings stay: {problem}", problem=quote(str(error)))
            return False
        self._apply(site)
        self.settings = settings
        now = [name for name in changed if name not in fixed]
        _log.info("reloaded changed={changed}", changed=",".join(now) or "nothing")
        for warning in (*wanted.warnings, *site.warnings):
            _log.warn("{remark}", remark=warning)
        if fixed:
            _log.warn("a restart is needed to change {settings}", settings=", ".join(fixed))
        return True
