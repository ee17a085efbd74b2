"""Our server with one thing changed: each message is a batch, and so a commit, of its own."""

from __future__ import annotations

import functools
import sys
from unittest import mock

from lyftr_server.__main__ import main
from lyftr_server.store.sqlite import store

if __name__ == "__main__":
    # No configuration offers this, since nobody should want it. patch.object fails where there is
    # nothing of that name to replace.
    one_at_a_time = functools.partial(store.SqliteStore, max_batch=1)
    with mock.patch.object(store, "SqliteStore", one_at_a_time):
        sys.exit(main(["serve"]))
