"""Lines of requests that anybody may send by the thousand: the first of a second, then a sum."""

from collections import Counter
from collections.abc import Callable
from time import monotonic

LINES_A_SECOND = 100

Sums = dict[str, int]  # how many, by "status path"


class Floods:
    """Lets LINES_A_SECOND lines pass in each second, and counts the others.

    `later` calls a function after so many seconds; `tell` takes the sums of what was left out, at
    most once a second.
    """

    def __init__(
        self, later: Callable[[float, Callable[[], None]], object], tell: Callable[[Sums], None]
    ) -> None:
        self._later = later
        self._tell = tell
        self._second = 0
        self._passed = 0
        self._sums: Counter[str] = Counter()

    def passes(self, status: int, route: str) -> bool:
        """Tell whether this line is to be written. `route` is one of a closed set."""
        second = int(monotonic())
        if second != self._second:
            self._second, self._passed = second, 0
        self._passed += 1
        if self._passed <= LINES_A_SECOND:
            return True
        if not self._sums:
            self._later(1, self.sum_up)
        self._sums[f"{status} {route}"] += 1
        return False

    def sum_up(self) -> None:
        """Tell what was left out, if anything was."""
        if self._sums:
            sums, self._sums = dict(self._sums), Counter()
            self._tell(sums)
