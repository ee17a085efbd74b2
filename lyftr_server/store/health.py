"""Whether the database can be written, as far as its own work has shown; each change is logged."""

import logging
import time
from collections.abc import Callable

from ..metrics import StoreMetrics
from .errors import Fatal, StoreError

logger = logging.getLogger(__name__)

# Upkeep that failed is tried again after this time.
UPKEEP_RETRY_SECONDS = 5.0


class Health:
    """What the last writes have shown. `lost`: nothing more is acknowledged by this process."""

    def __init__(self, metrics: StoreMetrics, on_fatal: Callable[[str], None]) -> None:
        self._metrics = metrics
        self._on_fatal = on_fatal
        self.lost = False
        self._failing: str | None = None
        self._upkeep_failing: str | None = None
        self._upkeep_after = 0.0
        self._written_at = float("-inf")

    @property
    def proven(self) -> bool:
        """Whether a write succeeded within the last second, and none failed since."""
        return self._failing is None and time.monotonic() - self._written_at < 1

    @property
    def fit_for_upkeep(self) -> bool:
        return not self.lost and self._failing is None and time.monotonic() >= self._upkeep_after

    def require(self) -> None:
        """Raise StoreError where nothing may be acknowledged any more."""
        if self.lost:
            raise StoreError("a sync failed before")

    def succeeded(self) -> None:
        self._written_at = time.monotonic()
        if self._failing is not None:
            self._failing = None
            logger.warning("the database can be written again")

    def failed(self, error: BaseException) -> StoreError:
        """Log the first failure of its kind, not each; a fatal one ends the process."""
        reason = str(error)
        self._metrics.errors += 1
        if reason != self._failing:
            self._failing = reason
            logger.error("the database cannot be written: %s", reason)
        self._end_if_fatal(error)
        return StoreError(reason)

    def upkeep_succeeded(self) -> None:
        self._upkeep_failing = None

    def upkeep_failed(self, error: StoreError) -> None:
        """Its failure is not that of deliveries, whose own commits tell of theirs."""
        self._metrics.errors += 1
        self._upkeep_after = time.monotonic() + UPKEEP_RETRY_SECONDS
        if str(error) != self._upkeep_failing:
            self._upkeep_failing = str(error)
            logger.error("upkeep of the database failed: %s", error)
        self._end_if_fatal(error)

    def ended(self, error: BaseException) -> StoreError:
        """The writer has ended: nobody would ever be answered again."""
        self.lost = True
        failure = self.failed(error)
        self._on_fatal("the writer has ended")
        return failure

    def _end_if_fatal(self, error: BaseException) -> None:
        if isinstance(error, Fatal):
            self.lost = True
            self._on_fatal(str(error))
