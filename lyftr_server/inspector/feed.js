// The messages that fit the filters, newest first: pages by cursor below, what arrives live above.

import { instant, newestFirst } from "./format.js";
import { Live } from "./live.js";

const PAGE_ROWS = 100;
const MOST_HELD = 1000; // while paused; beyond it the first page is asked for anew
const MOST_ROWS = 5000; // while nobody scrolls; beyond it too
const PATIENCE_MS = 700; // for the stream to begin

export class Feed {
  /**
   * `heard`: loading(), loaded(), grew(inserted rows, their indices) after a change by itself,
   * failed(error), live(state), held(count).
   */
  constructor(api, heard) {
    this.api = api;
    this.heard = heard;
    this.rows = [];
    this.known = new Map();
    this.total = null;
    this.cursor = null; // of the next page; null at the end
    this.paused = false;
    this.held = [];
    this.heldCount = 0;
    this.awaited = false; // the first page, until the stream has begun or will not
    this.arrived = []; // not yet among the rows
    this.loading = null;
    this.live = new Live(api, {
      opened: (resumed) => this.#opened(resumed),
      message: (row) => this.#arrive(row),
      erased: (ids) => this.#erase(ids),
      changed: (state) => this.#changed(state),
    });
  }

  /** Show what fits other filters. The stream comes first, so that nothing falls between. */
  show(filters) {
    this.filters = filters;
    this.loading?.abort();
    this.loading = null;
    this.awaited = true;
    this.heard.loading(true);
    const { until, ...followed } = filters; // the stream has no end
    this.live.follow(followed);
    clearTimeout(this.patience);
    this.patience = setTimeout(() => this.#begin(), PATIENCE_MS);
  }

  stop() {
    this.live.stop();
    this.loading?.abort();
    clearTimeout(this.patience);
  }

  /** Read the first page anew. */
  load() {
    this.#letGo();
    this.cursor = null;
    return this.#page(true);
  }

  /** Read the page below, unless one is being read or there is none. */
  more() {
    if (this.loading || this.cursor === null) return null;
    return this.#page(false);
  }

  pause() {
    this.paused = true;
  }

  resume() {
    this.paused = false;
    const { held, heldCount } = this;
    this.#letGo();
    if (heldCount > MOST_HELD) this.load();
    else this.#insert(held);
  }

  #letGo() {
    this.held = [];
    this.heldCount = 0;
    this.heard.held(0);
  }

  async #page(first) {
    if (first) this.loading?.abort();
    const stopping = new AbortController();
    this.loading = stopping;
    this.heard.loading(first);
    try {
      const parameters = { ...this.filters, order: "desc", limit: PAGE_ROWS, cursor: this.cursor };
      const page = await this.api.json("messages", parameters, stopping.signal);
      if (stopping.signal.aborted) return;
      if (first) {
        this.rows = [];
        this.known.clear();
      }
      for (const row of page.data) {
        if (this.known.has(row.message_id)) continue;
        this.known.set(row.message_id, row);
        this.rows.push(row);
      }
      this.rows.sort(newestFirst);
      this.total = page.total;
      this.cursor = page.next_cursor;
      this.loading = null;
      this.heard.loaded(first);
    } catch (error) {
      if (stopping.signal.aborted) return;
      this.loading = null;
      this.heard.failed(error, first);
    }
  }

  #changed(state) {
    this.heard.live(state);
    if (state !== "connecting" && state !== "live") this.#begin();
  }

  /** The stream begins: what came before is on the first page, if that is read from now on. */
  #opened(resumed) {
    if (!resumed) this.awaited = true;
    this.#begin();
  }

  #begin() {
    if (!this.awaited) return;
    this.awaited = false;
    this.load();
  }

  #arrive(row) {
    if (this.filters.until && instant(row.ts) >= instant(this.filters.until)) return;
    this.arrived.push(row);
    if (this.arrived.length > 1) return;
    // Drawn with the next frame, however many come; a hidden page has no frames.
    if (document.hidden) setTimeout(() => this.#take(), 500);
    else requestAnimationFrame(() => this.#take());
  }

  #take() {
    const arrived = this.arrived;
    this.arrived = [];
    if (this.paused) {
      this.held.push(...arrived.slice(0, Math.max(0, MOST_HELD - this.held.length)));
      this.heldCount += arrived.length;
      this.heard.held(this.heldCount);
    } else {
      this.#insert(arrived);
    }
  }

  #insert(arrived) {
    const indices = [];
    for (const row of arrived) {
      if (this.known.has(row.message_id)) continue;
      this.total = (this.total ?? 0) + 1;
      const index = placeOf(this.rows, row);
      // Below all that is loaded: it will be on a page that is read later.
      if (index === this.rows.length && this.cursor !== null) continue;
      this.known.set(row.message_id, row);
      this.rows.splice(index, 0, row);
      indices.push(index);
    }
    this.heard.grew(indices);
  }

  /** Read anew when far more has arrived than anybody looks at. */
  get tooLong() {
    return this.rows.length > MOST_ROWS;
  }

  #erase(ids) {
    const gone = new Set([ids].flat().map((each) => each.message_id ?? each));
    const before = this.rows.length;
    this.rows = this.rows.filter((row) => !gone.has(row.message_id));
    this.held = this.held.filter((row) => !gone.has(row.message_id));
    for (const id of gone) this.known.delete(id);
    this.total = Math.max(0, (this.total ?? 0) - (before - this.rows.length));
    this.heard.loaded(false);
  }
}

/** Where a row belongs among rows in order. */
function placeOf(rows, row) {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (newestFirst(rows[middle], row) <= 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
