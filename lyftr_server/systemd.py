"""What systemd is told of a server that it started (sd_notify, Type=notify)."""

import asyncio
import logging
import socket

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 0.1


class Systemd:
    """Tells systemd, when it started us. Nobody waits for it: a word that it does not take is lost.

    Its one socket is made at the start: later there may be no descriptor left.
    """

    def __init__(self, address: str | None) -> None:
        self._socket: socket.socket | None = None
        self._said = ""
        if address is None:
            return
        self._address = "\0" + address[1:] if address.startswith("@") else address
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(socket.AF_UNIX, kind)
        except OSError as error:
            self._failed(error)

    def tell(self, state: str) -> bool:
        """Tell it at once; False when it did not take it and may later."""
        if self._socket is None:
            return True
        try:
            self._socket.sendto(state.encode(), self._address)
        except OSError as error:
            self._failed(error)
            return False
        self._said = ""
        return True

    async def keep_told(self, watchdog_seconds: float | None) -> None:
        """Say that we are ready until it is heard, and then that the loop turns.

        The latter twice as often as systemd asks.
        """
        while not self.tell("READY=1"):  # noqa: ASYNC110 - a full socket announces no room
            await asyncio.sleep(AGAIN_SECONDS)
        while watchdog_seconds is not None:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(watchdog_seconds / 2)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _failed(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        if reason != self._said:  # once, not at each try
            logger.warning("systemd cannot be notified: %s", reason)
        self._said = reason
