"""Who sends to us. A sender is one file here and one row of SOURCES; nothing else knows it."""

from collections.abc import Iterable

from ..config import Config
from .native import Native
from .source import Field, Received, Source
from .standard_webhooks import StandardWebhooks
from .twilio import Twilio
from .whatsapp import WhatsApp

__all__ = ["SOURCES", "Field", "Received", "Source", "routes", "sources_of"]

# Of several on one route, whichever signed a body has sent it; the first names what none signed.
SOURCES: tuple[type[Source], ...] = (Native, StandardWebhooks, WhatsApp, Twilio)


def sources_of(
    config: Config, table: Iterable[type[Source]] = SOURCES
) -> dict[str, tuple[Source, ...]]:
    """Return the senders that the configuration has a secret for, by route."""
    found: dict[str, tuple[Source, ...]] = {}
    for kind in table:
        source = kind.of(config)
        if source is not None:
            found[kind.route] = (*found.get(kind.route, ()), source)
    return found


def routes(table: Iterable[type[Source]] = SOURCES) -> dict[str, type[Source]]:
    """Return every route of the table, each with its first sender."""
    found: dict[str, type[Source]] = {}
    for kind in table:
        found.setdefault(kind.route, kind)
    return found
