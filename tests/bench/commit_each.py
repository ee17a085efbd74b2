"""Our server with one thing changed: each message is a batch, and so a commit, of its own."""

from __future__ import annotations

import functools
import sys

from lyftr_server import server
from lyftr_server.__main__ import main
from lyftr_server.store import MessageStore

if __name__ == "__main__":
    # No configuration offers this, since nobody should want it.
    server.MessageStore = functools.partial(MessageStore, max_batch=1)  # type: ignore[misc, assignment]
    sys.exit(main(["serve"]))
