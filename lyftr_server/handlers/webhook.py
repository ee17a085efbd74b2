"""The routes that senders post to; who sends on which, the table of sources says."""

import json
from typing import ClassVar

from ..base import PRIVATE, RETRY_AFTER, BaseHandler, Refused
from ..records import Delivery, Refusal
from ..schema import Invalid
from ..sources import Source
from ..store import QueueFull


class DeliveryHandler(BaseHandler):
    """POST: store what a signed body holds once. GET, where a sender greets: its set-up call."""

    # By the table; those of them whose secret is not set do not exist.
    known_methods: ClassVar[tuple[str, ...]]

    def check(self) -> None:
        greeting = self.request.method in ("GET", "HEAD")
        if not (greeting and self.request.method in self.known_methods):
            self.check_room()
        if self.request.method in self.known_methods and self.request.method not in self.methods:
            raise Refused(404, "not found")
        self.check_method()
        self.check_size()
        if not greeting:
            self.check_signature()

    def check_room(self) -> None:
        draining_since = self.application.draining_since
        late = draining_since is not None and self.started > draining_since
        if late or self.application.store.full:
            raise _unavailable()

    async def post(self) -> None:
        try:
            delivery = self.sender.parse(self.received)
        except Invalid as invalid:
            await self._keep(invalid)
            raise
        if delivery.messages:
            self.message_id = delivery.messages[0].message_id
        # With the body, which is kept in the same transaction when a message turns out a conflict.
        delivery = Delivery(
            delivery.source,
            delivery.messages,
            delivery.payloads,
            delivery.events,
            self.request.body,
            self.request_id,
        )
        try:
            result = self.result = await self.application.store.insert(delivery)
        except QueueFull:
            raise _unavailable() from None
        content_type = ("Content-Type", self.sender.answer_type)
        self.reply(200, self.sender.answer, [content_type, ("X-Result", result)])

    async def get(self) -> None:
        """Answer a sender's set-up call."""
        for sender in self.senders:
            text = sender.greet(self.request.query_arguments)
            if text is not None:
                self.reply(200, text, [("Content-Type", "text/plain"), *PRIVATE])
                return
        raise Refused(403, "the verify token does not fit")

    async def _keep(self, invalid: Invalid) -> None:
        """Keep a signed body that cannot be stored as asked: nothing signed is lost."""
        refusal = Refusal(
            self.sender.name,
            "validation_error",
            self.request_id,
            self.message_id,
            json.dumps([fault.as_json() for fault in invalid.faults]),
            self.request.body,
        )
        try:
            await self.application.store.refuse(refusal)
        except QueueFull:
            raise _unavailable() from None


def delivery_handler(senders: tuple[Source, ...]) -> type[DeliveryHandler]:
    """Return the handler of the route that these senders share."""
    first = senders[0]
    methods = {method: None for sender in senders for method in sender.methods}
    known = ("GET", "HEAD", "POST") if any(sender.greeting for sender in senders) else ("POST",)
    name = f"{first.name.title().replace('_', '')}Handler"
    own = {
        "route": first.route,
        "source": first.name,
        "senders": senders,
        "methods": tuple(methods),
        "known_methods": known,
    }
    return type(name, (DeliveryHandler,), own)


def _unavailable() -> Refused:
    return Refused(503, "try again later", result="unavailable", headers=[RETRY_AFTER])
