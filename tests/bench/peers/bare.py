"""The yardstick: a Tornado handler on Tornado's own server that reads a body and stores nothing.

It is how Tornado's documentation writes a handler: no signature, no check, no log, no store, and
the default event loop.
"""

from __future__ import annotations

import asyncio
import os

from tornado.web import Application, RequestHandler


class WebhookHandler(RequestHandler):
    """Reads the body whole, as Tornado does before it calls post(), and answers a constant."""

    def post(self) -> None:
        """Answer what the real server answers, without doing any of it."""
        self.set_header("Content-Type", "application/json")
        self.write(b'{"status": "ok"}')


async def main() -> None:
    """Listen until the process is ended."""
    Application([("/webhook", WebhookHandler)]).listen(int(os.environ["PORT"]), "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
