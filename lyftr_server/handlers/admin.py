"""DELETE: what must go, one message or all of a person's."""

import logging

from .. import log
from ..base import PRIVATE, BaseHandler, Refused
from ..records import Erased
from ..schema import parse_no_query, parse_sender

logger = logging.getLogger(__name__)


class ErasingHandler(BaseHandler):
    """A handler that erases, behind ADMIN_TOKEN; it goes on when its client leaves."""

    def reply_erased(self, erased: Erased) -> None:
        """Answer with the counts, and leave one line that it took place, without whom."""
        counts = erased._asdict()
        log.event(logger, logging.WARNING, "erased", request_id=self.request_id, **counts)
        self.reply_json(200, counts, PRIVATE)


class PersonHandler(ErasingHandler):
    """/people/{number}: erase all from, to and about a person; GET says how much that is."""

    route = "/people/{number}"
    methods = ("GET", "HEAD", "DELETE")

    def check(self) -> None:
        self.check_admin_token()
        super().check()

    async def get(self, number: str) -> None:
        parse_no_query(self.request.query_arguments)
        found = await self.application.store.erasable(parse_sender(number))
        self.reply_json(200, found._asdict(), PRIVATE)

    async def delete(self, number: str) -> None:
        parse_no_query(self.request.query_arguments)
        self.reply_erased(await self.application.store.erase(person=parse_sender(number)))


class MessageErasingHandler(ErasingHandler):
    """The part of /messages/{message_id} that erases."""

    def allowed(self) -> tuple[str, ...]:
        """Without an ADMIN_TOKEN nothing is erased, and DELETE is 404."""
        return self.methods if self.application.config.admin_token else ("GET", "HEAD")

    def check_erasing(self) -> None:
        self.check_admin_token()
        self.check_size()

    async def delete(self, message_id: str) -> None:
        parse_no_query(self.request.query_arguments)
        erased = await self.application.store.erase(message_id=message_id)
        if not any(erased):
            raise Refused(404, "no such message", headers=PRIVATE)
        self.reply_erased(erased)
