"""POST /webhook."""

from ..base import RETRY_AFTER, BaseHandler, Refused
from ..records import Delivery
from ..schema import parse_message
from ..store import QueueFull

_OK = b'{"status": "ok"}'


class WebhookHandler(BaseHandler):
    """POST /webhook: store a signed message once."""

    route = "/webhook"
    source = "native"
    methods = ("POST",)

    def check(self) -> None:
        draining_since = self.application.draining_since
        late = draining_since is not None and self.started > draining_since
        if late or self.application.store.full:
            raise _unavailable()
        self.check_method()
        self.check_size()
        self.check_signature()

    async def post(self) -> None:
        message = parse_message(self.request.body)
        self.message_id = message.message_id
        try:
            delivery = Delivery(self.source, (message,))
            self.result = await self.application.store.insert(delivery)
        except QueueFull:
            raise _unavailable() from None
        self.reply(200, _OK, [("X-Result", self.result)])


def _unavailable() -> Refused:
    return Refused(503, "try again later", result="unavailable", headers=[RETRY_AFTER])
