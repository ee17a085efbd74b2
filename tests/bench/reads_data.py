"""Databases for the read benchmark: senders by Zipf, 90 days, words as languages use them."""

import itertools
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lyftr_server.store.sqlite import counts, schema, search

SENDERS = 10_000
DAYS = 90
START = datetime(2025, 1, 1, tzinfo=UTC)
BULK = 5_000  # rows in a statement: six parameters each, of SQLite's 32,766
COMMIT_BULKS = 40

# Planted in one text of so many, whatever the size of the database.
RARE_WORD = "quixotic"
RARE_IN = 10_000
MIDDLING_WORD = "zeppelin"
MIDDLING_IN = 200

ENGLISH = """the to and you i a is it for in of on my me we that your be at have not are so this
will with can do what just if but hello thanks please meeting tomorrow today order delivery payment
address call message when where time home office send received confirm number minutes later morning
evening great sorry sure maybe invoice account update thank good night""".split()
OTHERS = {
    "hindi": "है में की के और नमस्ते धन्यवाद कल आज समय घर संदेश भुगतान पता कृपया ठीक",
    "russian": "и в не на Привет Спасибо завтра сегодня встреча заказ адрес Дом деньги",
    "greek": "και το να Καλημέρα Ευχαριστώ σήμερα αύριο ΟΔΟΣ οδός διεύθυνση πληρωμή",
    "german": "und die der ich Straße STRASSE morgen heute Grüße danke bitte Zahlung",
    "turkish": "ve bir bu için İstanbul ılık yarın bugün teşekkürler adres ödeme sipariş",
    "arabic": "في من على مرحبا شكرا غدا اليوم العنوان الدفع الوقت رسالة",
    "japanese": "こんにちは ありがとう 明日 今日 注文 住所 支払い 時間 メッセージ",
    "emoji": "👍 😀 🙏 🎉 ❤️ 🚚 📦 ✅",
}
SYLLABLES = [consonant + vowel for consonant in "bdklmnprstv" for vowel in "aeio"]


def build(path: Path, rows: int, progress: Callable[[str], None]) -> None:
    """Make a database of `rows` messages with the store's own schema, triggers and index."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        schema.migrate(db)  # before all else: it says how large a page is
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        # A benchmark's data may be lost with the machine; nothing else about the file changes.
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -2000000")
        _insert(db, rows, progress)
        while counts.fold(db):
            pass
        _fold(db, rows, progress)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        db.close()


def sender(rank: int) -> str:
    return f"+9198{rank:08d}"


def messages(rows: int, seed: int = 1) -> Iterator[tuple[str, str, str, str, str | None, int]]:
    """Yield rows in the order of arrival: about the order of their instants."""
    rng = random.Random(seed)
    senders = [sender(rank) for rank in range(SENDERS)]
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(SENDERS)))
    words, word_weights = _vocabulary()
    stored = int(START.timestamp() * 1_000_000)
    step = timedelta(days=DAYS) / rows
    for start in range(0, rows, BULK):
        n = min(BULK, rows - start)
        froms = rng.choices(senders, cum_weights=weights, k=n)
        tos = rng.choices(senders, k=n)
        lengths = [min(40, 1 + int(rng.expovariate(1 / 10))) for _ in range(n)]
        pool = iter(rng.choices(words, cum_weights=word_weights, k=sum(lengths)))
        for i in range(n):
            at = START + step * (start + i) + timedelta(seconds=600 * rng.random())
            text = None if rng.random() < 0.03 else " ".join(next(pool) for _ in range(lengths[i]))
            if text is not None:
                if rng.randrange(RARE_IN) == 0:
                    text += " " + RARE_WORD
                if rng.randrange(MIDDLING_IN) == 0:
                    text = MIDDLING_WORD.title() + " " + text
            fraction = f".{at.microsecond:06d}" if rng.random() < 0.5 else ""
            ts = f"{at:%Y-%m-%dT%H:%M:%S}{fraction}Z"
            yield (
                f"wamid.{rng.getrandbits(96):024X}",
                froms[i],
                tos[i],
                ts,
                text,
                stored + (start + i) * int(step / timedelta(microseconds=1)),
            )


def _vocabulary() -> tuple[list[str], list[float]]:
    """Return words by falling frequency, and cumulated weights (Zipf's law)."""
    rng = random.Random(7)
    scripts = [words.split() for words in OTHERS.values()]
    others = [word for words in zip(*scripts, strict=False) for word in words]
    words = []
    for i, word in enumerate(ENGLISH):
        words += [word, others[i]] if i < len(others) and i % 2 else [word]
    words += itertools.chain.from_iterable(scripts)
    words += ["".join(rng.choices(SYLLABLES, k=rng.randint(2, 5))) for _ in range(20_000)]
    return words, list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))


def _insert(db: sqlite3.Connection, rows: int, progress: Callable[[str], None]) -> None:
    began = time.monotonic()
    source = messages(rows)
    done = 0
    while done < rows:
        with_rows = 0
        db.execute("BEGIN IMMEDIATE")
        while with_rows < BULK * COMMIT_BULKS and done < rows:
            n = min(BULK, rows - done)
            values = [value for _ in range(n) for value in next(source)]
            db.execute(
                "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at)"
                f" VALUES {','.join(['(?,?,?,?,?,?)'] * n)} ON CONFLICT (message_id) DO NOTHING",
                values,
            )
            done += n
            with_rows += n
        db.execute("COMMIT")
        progress(f"{done:,} of {rows:,} rows, {done / (time.monotonic() - began):,.0f}/s")


def _fold(db: sqlite3.Connection, rows: int, progress: Callable[[str], None]) -> None:
    began = time.monotonic()
    done = shown = 0
    while moved := search.fold(db):
        done += moved
        if done - shown >= BULK * COMMIT_BULKS or done == rows:
            shown = done
            progress(f"{done:,} of {rows:,} indexed, {done / (time.monotonic() - began):,.0f}/s")
