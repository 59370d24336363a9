"""
Tests that are coroutines, also for releases of trial that take them for passed and do not run them: those before 22.8.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from twisted.internet.defer import Deferred


def awaited(method: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], Deferred[None]]:
    """
    Make a test of a coroutine that every release of trial waits for.
    """

    @wraps(method)
    def test(case: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(method(case))

    return test
