"""python -m tests.mutants: break the code on purpose, one fault at a time; does a test notice?

Works on a copy of the tree. Each mutant is a small exact replacement, and the tests of which one
must go red; --full runs all tests instead. The exit status is 1 when a mutant survives, or when
its replacement no longer applies.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .process import ROOT

# What git does not have, or has no use here.
SKIPPED = shutil.ignore_patterns(
    ".git",
    ".venv",
    ".bench",
    ".coverage*",
    ".hypothesis",
    ".*_cache",
    "__pycache__",
    "*.egg-info",
    "node_modules",
)
SECONDS = 300
FULL_SECONDS = 1800

COMMITS = "lyftr_server/store/commits.py"
STORE_HEALTH = "lyftr_server/store/health.py"
NATIVE = "lyftr_server/sources/native.py"
INSERT = "lyftr_server/store/sqlite/insert.py"
STORE = "lyftr_server/store/sqlite/store.py"
OPENING = "lyftr_server/store/sqlite/opening.py"
WRITER = "lyftr_server/store/sqlite/writer.py"
CHECKPOINTS = "lyftr_server/store/sqlite/checkpoints.py"
FILES = "lyftr_server/store/sqlite/files.py"
SIGNATURE = "lyftr_server/signature.py"
WEBHOOK = "lyftr_server/handlers/webhook.py"
BASE = "lyftr_server/base.py"
APP = "lyftr_server/app.py"
SERVER = "lyftr_server/server.py"
LOG = "lyftr_server/log.py"
HTTP1 = "lyftr_server/http1/server.py"
CONNECTION = "lyftr_server/http1/connection.py"
EXCHANGE = "lyftr_server/http1/exchange.py"
INTAKE = "lyftr_server/http1/intake.py"
LIMITS = "lyftr_server/http1/limits.py"
LISTING = "lyftr_server/store/sqlite/listing.py"
READS = "lyftr_server/store/sqlite/reads.py"
READER = "lyftr_server/store/sqlite/reader.py"
READ_HANDLERS = "lyftr_server/handlers/messages.py"
MESSAGE = "lyftr_server/schema/message.py"
JSON = "lyftr_server/schema/strict_json.py"
TABLES = "lyftr_server/store/sqlite/schema.py"
PG_TABLES = "lyftr_server/store/postgres/schema.py"
LANES = "lyftr_server/store/postgres/connection.py"
STONES = "lyftr_server/store/postgres/tombstones.py"
COUNTS = "lyftr_server/store/sqlite/counts.py"

ERASURE = "lyftr_server/store/sqlite/erasure.py"
TOMBSTONES = "lyftr_server/store/sqlite/tombstones.py"

NEVER = "            if False:"

FEED = "lyftr_server/feed.py"
HANDING = "lyftr_server/commands/handing.py"

STREAM = "tests/test_stream.py"
FORWARD = "tests/commands/test_forward.py"
TURNS = "tests/store/test_reader.py"
HEALTH = "tests/test_app.py"
ERASURE_TESTS = "tests/store/test_erasure.py"
RETENTION_TESTS = "tests/store/test_retention.py"
READ_TESTS = "tests/store/test_reads.py"
KEEPING = "tests/store/test_postgres_keeping.py"
FAILOVER = "tests/faults/test_failover.py"
DURABILITY = "tests/faults/test_durability.py"
STORAGE = "tests/faults/test_storage_faults.py"
ONCE = "tests/faults/test_exactly_once.py"
OVERLOAD = "tests/faults/test_overload.py"
ALONE = "tests/http1/test_server_alone.py"
BODIES = "tests/http1/test_budget.py"
FAIRNESS = "tests/http1/test_fairness.py"
BASES = "tests/test_base.py"
PIPE = "tests/faults/test_log_pipe.py"
ROTATION = "tests/faults/test_rotation.py"
DELIVERIES = "tests/test_handlers_webhook.py"
LISTINGS = "tests/test_handlers_messages.py"
OPERATIONS = "tests/test_handlers_operations.py"
WRITES = "tests/store/test_commits.py"
PROCESS = "tests/test_server.py"
PAYLOADS = "tests/test_schema.py"
PROMISES = "tests/sources/test_promises.py"
SENDER = "lyftr_server/sources/{}.py"


class Change(NamedTuple):
    """Replace `old`, which must be there once, by `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """A fault, how it is made, and the test files of which one must notice."""

    name: str
    tests: tuple[str, ...]
    changes: tuple[Change, ...]


def mutant(name: str, tests: str | Sequence[str], *changes: tuple[str, str, str]) -> Mutant:
    files = (tests,) if isinstance(tests, str) else tuple(tests)
    return Mutant(name, files, tuple(Change(*change) for change in changes))


MUTANTS = (
    mutant(
        "call a row stored whose wait for a standby was cancelled",
        FAILOVER,
        (LANES, "        if self._warning is not None:\n", "        if False:\n"),
    ),
    mutant(
        "acknowledge a repeat without a write",
        FAILOVER,
        (
            "lyftr_server/store/postgres/insert.py",
            "WHERE slot = $1::integer\n",
            "WHERE slot = $1::integer AND EXISTS (SELECT FROM given WHERE message_id NOT IN"
            " (SELECT message_id FROM messages))\n",
        ),
    ),
    mutant(
        "insert in the order in which messages came",
        "tests/store/test_postgres_once.py",
        (
            "lyftr_server/store/postgres/insert.py",
            '    ORDER BY message_id COLLATE "C"\n',
            "    ORDER BY n\n",
        ),
    ),
    mutant(
        "believe a former primary",
        FAILOVER,
        (
            "lyftr_server/store/postgres/hosts.py",
            "        if timeline < self.timeline:\n",
            "        if False:\n",
        ),
    ),
    mutant(
        "take another connection for each commit that waits in vain",
        FAILOVER,
        (LANES, "if await health.stalled(db, health.STALLED_SECONDS):", "if False:"),
    ),
    mutant(
        "give numbers again that a failover lost",
        "tests/store/test_postgres_lanes.py",
        (LANES, "LEAP = 1 << 24\n", "LEAP = 0\n"),
    ),
    mutant(
        "hold others up for as long as a server is silent",
        "tests/store/test_postgres_lanes.py",
        (LANES, "= '{IDLE_SECONDS}s'", "= 0"),
    ),
    mutant(
        "let in what was buried meanwhile",
        KEEPING,
        (PG_TABLES, "IF (SELECT version FROM buried) <> seen AND EXISTS (", "IF EXISTS ("),
        (PG_TABLES, "WHERE until > extract(epoch FROM clock_timestamp())", "WHERE false"),
    ),
    mutant(
        "believe a filter that is behind",
        KEEPING,
        (
            "lyftr_server/store/postgres/insert.py",
            "WHERE NOT suspect AND (SELECT version FROM buried) = $16::bigint",
            "WHERE NOT suspect AND $16::bigint IS NOT NULL",
        ),
    ),
    mutant(
        "leave in the index what goes while it is indexed",
        KEEPING,
        (PG_TABLES, "        PERFORM FROM locks WHERE name = 'search' FOR UPDATE;\n", ""),
    ),
    mutant(
        "call an erasure done while somebody sees it",
        KEEPING,
        ("lyftr_server/store/postgres/erasure.py", "    return not dead\n", "    return True\n"),
    ),
    mutant(
        "bury nothing on PostgreSQL",
        "tests/store/test_retention.py",
        (STONES, "$5::bigint FROM old ORDER BY 1\n", "$5::bigint FROM old WHERE false\n"),
    ),
    mutant(
        "parse before the proof",
        PROMISES,
        (
            BASE,
            "        for sender in self.senders:\n",
            "        for sender in self.senders:\n            sender.parse(self.received)\n",
        ),
    ),
    mutant(
        "take any prefix of Meta's signature",
        "tests/sources/test_whatsapp.py",
        (SENDER.format("whatsapp"), "if not given.startswith(_PREFIX):", "if not given:"),
        (SENDER.format("whatsapp"), "given[len(_PREFIX) :]", 'given.rpartition("=")[2]'),
    ),
    mutant(
        "answer any challenge",
        "tests/sources/test_whatsapp.py",
        (SENDER.format("whatsapp"), " if _CHALLENGE.fullmatch(challenge) else None", ""),
    ),
    mutant(
        "forget what of a batch is no message",
        "tests/sources/test_whatsapp.py",
        (
            SENDER.format("whatsapp"),
            '            self._event(f"message.{kind}"',
            "            _ = (kind",
        ),
    ),
    mutant(
        "print a message's JSON anew",
        "tests/sources/test_whatsapp.py",
        (
            SENDER.format("scanner"),
            "part = Part(value, self._text[start : self._at])",
            "part = Part(value, json.dumps(value))",
        ),
    ),
    mutant(
        "count no parts",
        PROMISES,
        (SENDER.format("scanner"), "        self._places += 1\n", ""),
    ),
    mutant(
        "let a timestamp be as old as it likes",
        "tests/sources/test_standard_webhooks.py",
        (
            SENDER.format("standard_webhooks"),
            "if abs(received.at - int(timestamp)) > TOLERANCE_SECONDS:",
            "if int(timestamp) - received.at > TOLERANCE_SECONDS:",
        ),
    ),
    mutant(
        "heed the first signature of a list alone",
        "tests/sources/test_standard_webhooks.py",
        (SIGNATURE, "for given in listed)", "for given in listed[:1])"),
    ),
    mutant(
        "sign Twilio's fields as they come",
        "tests/sources/test_twilio.py",
        (SENDER.format("twilio"), "for name in sorted(form)", "for name in form"),
    ),
    mutant(
        "sign Twilio's address without its query",
        "tests/sources/test_twilio.py",
        (SENDER.format("twilio"), 'f"?{received.query}" if received.query else ""', '""'),
    ),
    mutant(
        "keep no refused body",
        PROMISES,
        (
            WEBHOOK,
            "            await self.application.store.refuse(refusal)\n",
            "            pass\n",
        ),
    ),
    mutant(
        "keep the bytes of unsigned bodies",
        PROMISES,
        (BASE, "self.route, size, reason)", "self.route, size, str(request.body))"),
    ),
    mutant(
        "what two reads of a stream have in common comes twice",
        (STREAM,),
        (
            FEED,
            "known = {message.message_id for message in messages}",
            "known: set[str] = set()",
        ),
    ),
    mutant(
        "what is stored while a reader of the stream resumes is skipped",
        (STREAM,),
        (
            FEED,
            """            rows += [
                row
                for row in self._since(number)
                if row.message is None or row.message.message_id not in known
                if _shown(row, fits)
            ]
""",
            "",
        ),
    ),
    mutant(
        "a message counts as handed on before it is taken",
        (FORWARD,),
        (HANDING, "self.done = row is None", "self.done = True"),
    ),
    mutant(
        "messages of one sender are handed on side by side",
        (FORWARD,),
        (HANDING, 'crc32(row["from"].encode())', 'crc32(row["message_id"].encode())'),
    ),
    mutant(
        "a page of the newest forgets its offset",
        (READ_TESTS,),
        (READS, "return max(0, total - query.offset - limit), limit", "return 0, limit"),
    ),
    mutant(
        "look first, then insert",
        (DELIVERIES, WRITES),
        (INSERT, " ON CONFLICT (message_id) DO NOTHING", ""),
        (
            WEBHOOK,
            "            result = self.result = await self.application.store.insert(delivery)\n",
            "            if await self.application.store.message(self.message_id):\n"
            '                result = self.result = "duplicate"\n'
            "            else:\n"
            "                result = await self.application.store.insert(delivery)\n"
            "                self.result = result\n",
        ),
    ),
    mutant(
        "acknowledge before the commit",
        (WRITES, DURABILITY),
        (
            COMMITS,
            "        queue.append(waiting)\n",
            "        queue.append(waiting)\n        waiting.future.set_result(Result.CREATED)\n",
        ),
    ),
    mutant(
        "INSERT OR IGNORE",
        STORAGE,
        (INSERT, 'f"INSERT INTO messages', 'f"INSERT OR IGNORE INTO messages'),
        (INSERT, " ON CONFLICT (message_id) DO NOTHING", ""),
    ),
    mutant(
        "compare signatures with ==",
        ROTATION,
        (
            SIGNATURE,
            "hmac.compare_digest(keyed.digest(body), given)",
            "keyed.digest(body) == given",
        ),
    ),
    mutant(
        "verify after parsing",
        DELIVERIES,
        (
            WEBHOOK,
            "            self.check_signature()\n",
            "            from ..sources.source import Received\n"
            "            self.sender = self.senders[0]\n"
            "            self.received = Received(self.request.headers, self.request.body, 0)\n",
        ),
        (
            WEBHOOK,
            "        if delivery.messages:\n",
            "        self.check_signature()\n        if delivery.messages:\n",
        ),
    ),
    mutant(
        "synchronous=OFF",
        DURABILITY,
        (OPENING, "PRAGMA synchronous = FULL", "PRAGMA synchronous = OFF"),
    ),
    mutant(
        "synchronous=NORMAL",
        DURABILITY,
        (OPENING, "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"),
    ),
    mutant(
        "no dedupe inside a batch",
        (WRITES, ONCE),
        (
            INSERT,
            "seq in new and message.message_id not in outcomes.seqs:",
            "seq in new:",
        ),
    ),
    mutant(
        "a drain that cuts requests",
        PROCESS,
        (
            HTTP1,
            "                while self.connections or self.in_flight:",
            "                if False:",
        ),
    ),
    mutant(
        "a metric's label from the raw path",
        OPERATIONS,
        (
            APP,
            "self.metrics.request(ended.method, ended.route, ended.status, ended.latency_ms)",
            "self.metrics.request(ended.method, ended.path, ended.status, ended.latency_ms)",
        ),
    ),
    mutant(
        "the text in the log",
        DELIVERIES,
        (
            WEBHOOK,
            "self.message_id = delivery.messages[0].message_id",
            "self.message_id = str(delivery.messages[0])",
        ),
    ),
    mutant(
        "since by the order of the text as sent",
        LISTINGS,
        (LISTING, "instant(query.since) if query.since else", "query.since if query.since else"),
    ),
    mutant(
        "the total of the page only",
        LISTINGS,
        (
            "lyftr_server/store/pages.py",
            "return Page(found.data, total,",
            "return Page(found.data, len(found.data),",
        ),
    ),
    mutant(
        "a repeat replaces the first row",
        (DELIVERIES, ONCE),
        (INSERT, "DO NOTHING", "DO UPDATE SET text = excluded.text"),
        (
            TABLES,
            "SELECT RAISE(ABORT, 'messages are immutable: delete the row and insert another');",
            "SELECT 1;",
        ),
    ),
    mutant(
        "a conflict is no duplicate's equal",
        (DELIVERIES, WRITES),
        (
            "lyftr_server/store/repeats.py",
            "return message == row or (ours and message._replace(ts=row.ts) == row)",
            "return True",
        ),
    ),
    mutant(
        "our failure is the sender's fault",
        STORAGE,
        (BASE, '503, "storage is unavailable"', '400, "storage is unavailable"'),
    ),
    mutant(
        "no Retry-After on our failure",
        STORAGE,
        (
            BASE,
            '"storage is unavailable", result="storage_error", headers=[RETRY_AFTER]',
            '"storage is unavailable", result="storage_error"',
        ),
    ),
    mutant(
        "go on after a failed sync",
        (STORAGE, WRITES),
        (WRITER, 'getattr(error, "sqlite_errorcode", None) in _FSYNC_FAILED', "False"),
    ),
    mutant(
        "acknowledge into a file that is gone",
        STORAGE,
        (
            WRITER,
            "            self._files.check()\n        except OSError as error:\n",
            "            pass\n        except OSError as error:\n",
        ),
    ),
    mutant(
        "an ERROR line for each failure",
        STORAGE,
        (STORE_HEALTH, "        if reason != self._failing:", "        if True:"),
    ),
    mutant(
        "the same failure a second time is not told",
        STORAGE,
        (STORE_HEALTH, "            self._failing = None\n", "            pass\n"),
    ),
    mutant(
        "a checkpoint whose failed sync is forgotten",
        ("tests/store/test_checkpoints.py",),
        (CHECKPOINTS, "raise Fatal(str(error)) from error", "pass"),
    ),
    mutant(
        "a log that is copied and never begun anew",
        ("tests/store/test_checkpoints.py",),
        (CHECKPOINTS, "await self._write(_checkpoint)", "pass"),
    ),
    mutant(
        "a probe that writes nothing",
        (STORAGE, WRITES),
        (WRITER, 'db.execute("UPDATE probe SET at = ?", (time.time_ns() // 1000,))', "pass"),
    ),
    mutant(
        "a probe whose failing read is nobody's",
        STORAGE,
        (
            STORE,
            "        await self._read(self._health, reads.total)",
            "        await self._health.run(reads.total)",
        ),
    ),
    mutant(
        "a scrape that waits for a read that hangs",
        HEALTH,
        (STORE, "asyncio.timeout(GAUGE_SECONDS)", "asyncio.timeout(None)"),
    ),
    mutant(
        "short reads wait for all of a long one",
        TURNS,
        (
            READER,
            "bool(self._new) and not (self._last_was_new and self._going_on)",
            "not self._going_on",
        ),
    ),
    mutant(
        "a flood of short reads starves a long one",
        TURNS,
        (
            READER,
            "bool(self._new) and not (self._last_was_new and self._going_on)",
            "bool(self._new)",
        ),
    ),
    mutant(
        "one client's reads hold up all others",
        LISTINGS,
        (READ_HANDLERS, ">= WAITING_READS:", ">= 10**9:"),
    ),
    mutant(
        "a queue without a limit",
        (WRITES, OVERLOAD),
        (COMMITS, "return self.depth >= self.limit", "return False"),
    ),
    mutant(
        "wait for a disk for ever when ending",
        OVERLOAD,
        (SERVER, "timeout=CLOSE_SECONDS", "timeout=None"),
    ),
    mutant(
        "forget what waits when closing",
        ("tests/store/test_store.py", WRITES),
        (
            COMMITS,
            "        self._closing = True\n",
            "        self._closing = True\n        self._deliveries.clear()\n",
        ),
    ),
    mutant(
        "wait for who reads the log",
        PIPE,
        (LOG, "(self._regular or poll.poll(0))", "True"),
    ),
    mutant(
        "report each lost line, the report's loss too",
        PIPE,
        (LOG, "0 if stalled or not self._flowing else", "0 if stalled else"),
    ),
    mutant(
        "forget how many lines were lost",
        PIPE,
        (LOG, "                self.dropped += 1\n", ""),
    ),
    mutant(
        "only the current key",
        ROTATION,
        (NATIVE, "cls(*config.secrets)", "cls(config.secrets[0])"),
    ),
    mutant(
        "a part of the token will do",
        (LISTINGS, ROTATION),
        (BASE, "matches(token, credentials.strip())", "token.startswith(credentials.strip())"),
    ),
    mutant(
        "a read that anybody may keep",
        (LISTINGS, ROTATION),
        (BASE, '("Cache-Control", "no-store")', '("Cache-Control", "max-age=60")'),
    ),
    mutant(
        "an export goes on without its client",
        (BASES, ALONE),
        (
            EXCHANGE,
            "        if not await self._outlet.flow():\n            raise ClientGone\n",
            "        await self._outlet.flow()\n",
        ),
    ),
    mutant(
        "bodies without a common limit",
        BODIES,
        (LIMITS, "if self.used + size > self.limit:", "if False:"),
    ),
    mutant(
        "who sends much is read as fast as it sends",
        FAIRNESS,
        (INTAKE, "            self.hold(Hold.TURN)\n", ""),
    ),
    mutant(
        "no time for a reader of a last answer",
        ALONE,
        (
            CONNECTION,
            "        if self._outlet.blocked or self._closing:\n",
            "        if self._outlet.blocked and not self._closing:\n",
        ),
    ),
    mutant(
        "no lock on the database",
        (STORAGE, PROCESS),
        (FILES, "        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "        pass"),
    ),
    mutant(
        "a database that others may read",
        (STORAGE, PROCESS),
        (
            FILES,
            "os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600",
            "os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644",
        ),
    ),
    mutant(
        "a refused start that tells nobody",
        (STORAGE, PROCESS),
        (SERVER, "            self._output.detach()", "            pass"),
    ),
    mutant(
        "doubled keys pass",
        PAYLOADS,
        (JSON, "if len(found) != len(pairs):", "if False:"),
    ),
    mutant(
        "a newline after a number passes",
        PAYLOADS,
        (
            MESSAGE,
            "if not _MSISDN.fullmatch(text):",
            "if not re.match(_MSISDN.pattern + '$', text):",
        ),
    ),
    mutant(
        "counts that do not follow a deleted row",
        "tests/store",
        (
            COUNTS,
            "    UPDATE hour_counts SET n = n - 1 WHERE hour",
            "    UPDATE hour_counts SET n = n WHERE hour",
        ),
    ),
    mutant(
        "a flood of refused bodies takes all the time",
        "tests/store/test_deliveries.py",
        (COMMITS, "rested = time.monotonic() >= self._refusals_after or", "rested = True or"),
    ),
    mutant(
        "a flood of refused bodies takes the whole queue",
        "tests/store/test_deliveries.py",
        (COMMITS, "            if len(self._refusals) * REFUSALS_PART >= self.limit:", NEVER),
    ),
    mutant(
        "what was read before an erasure is shown after it",
        STREAM,
        (
            FEED,
            "_without(FeedRow(self._place, message), self._gone)",
            "FeedRow(self._place, message)",
        ),
    ),
    # -- keeping less
    mutant(
        "keeping less: a count is not lowered by what expires",
        RETENTION_TESTS,
        (
            COUNTS,
            "    UPDATE stored_minute_counts SET n = n - 1 WHERE",
            "    UPDATE stored_minute_counts SET n = n WHERE",
        ),
    ),
    mutant(
        "keeping less: a search row of an erased text stays",
        f"{ERASURE_TESTS}::test_a_person_leaves_no_trace[sqlite]",
        (ERASURE, "for _ in _forget_index(db):", "for _ in ():"),
    ),
    mutant(
        "keeping less: a WAL keeps a page of what was erased",
        f"{ERASURE_TESTS}::test_a_person_leaves_no_trace[sqlite]",
        (ERASURE, "while not _emptied(db):", "while False:"),
    ),
    mutant(
        "keeping less: crossed out before the files are empty",
        f"{ERASURE_TESTS}::test_an_erasure_that_ended_before_the_files_were_empty_goes_on",
        (
            ERASURE,
            "        db.executemany(cross_out, [(_ANYBODY, *each) for each in ids])\n",
            '        db.executemany("DELETE FROM erasures WHERE id = ?", ids)\n',
        ),
    ),
    mutant(
        "keeping less: a tombstone lets a repeat in",
        RETENTION_TESTS,
        (
            TOMBSTONES,
            "        for each in hashes:\n            self._filter.add(each)\n\n    @",
            "\n    @",
        ),
    ),
    mutant(
        "keeping less: a tombstone stands for ever",
        RETENTION_TESTS,
        (TOMBSTONES, '" AND until > ?",', '" AND ? IS NOT NULL",'),
    ),
    mutant(
        "keeping less: a read waits",
        f"{ERASURE_TESTS}::test_no_read_waits_while_the_file_is_made_anew",
        (
            STORE,
            "await self._read(self._listings, reads.refused_page, query)",
            "await self._write(reads.refused_page, query)",
        ),
    ),
)


class Stale(Exception):
    """A replacement does not fit the code any more."""


def copy_tree(folder: Path, root: Path = ROOT) -> Path:
    return Path(shutil.copytree(root, folder / "copy", ignore=SKIPPED))


def apply(mutant: Mutant, tree: Path) -> None:
    for change in mutant.changes:
        path = tree / change.file
        text = path.read_text()
        if text.count(change.old) != 1:
            raise Stale(f"{change.file} has {text.count(change.old)} times: {change.old.strip()!r}")
        path.write_text(text.replace(change.old, change.new))


def run_tests(tree: Path, tests: Sequence[str]) -> tuple[bool, str]:
    """Return whether all passed, and the first that did not. No tests named: all."""
    seconds = SECONDS if tests else FULL_SECONDS
    # The copy's package, not an installed one; and no plugin writes beside the other runs.
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=no"]
    with subprocess.Popen(
        [*command, f"--basetemp={tree.parent / 'temporary'}", "-m", "not torture", *tests],
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.communicate()
            return False, f"not done within {seconds} s"
    if process.returncode == 0:
        return True, ""
    failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return False, failed[0].split(" - ")[0] if failed else output[-300:]


def try_mutant(mutant: Mutant, healthy: Path, full: bool) -> tuple[str, str, float]:
    """Return (killed, survived or stale; by which test; seconds)."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lyftr-mutant-") as folder:
        tree = copy_tree(Path(folder), healthy)
        try:
            apply(mutant, tree)
        except Stale as error:
            return "stale", str(error), 0.0
        passed, first = run_tests(tree, [] if full else mutant.tests)
    return "survived" if passed else "killed", first, time.monotonic() - started


def try_all(mutants: Sequence[Mutant], healthy: Path, full: bool, jobs: int) -> dict[str, int]:
    """Try each mutant of the healthy tree, and tell of it; return how many ended how."""
    counts = dict.fromkeys(("killed", "survived", "stale"), 0)
    with ThreadPoolExecutor(jobs) as pool:
        tried = pool.map(lambda each: try_mutant(each, healthy, full), mutants)
        for mutant, (outcome, by, seconds) in zip(mutants, tried, strict=True):
            counts[outcome] += 1
            print(f"{outcome:8}  {seconds:5.0f} s  {mutant.name:50}  {by}", flush=True)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--full", action="store_true", help="run all tests for each mutant")
    parser.add_argument("--only", default="", help="the mutants whose names contain this")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    if not chosen:
        parser.error(f"no mutant's name contains {options.only!r}")
    tests = sorted({test for mutant in chosen for test in mutant.tests})
    # One copy for all: whoever works on the tree meanwhile changes nothing here.
    with tempfile.TemporaryDirectory(prefix="lyftr-healthy-") as folder:
        healthy = copy_tree(Path(folder))
        passed, first = run_tests(healthy, [] if options.full else tests)
        if not passed:
            print(f"without any mutant a test fails already: {first}")
            return 1
        counts = try_all(chosen, healthy, options.full, options.jobs)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 0 if counts["killed"] == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
