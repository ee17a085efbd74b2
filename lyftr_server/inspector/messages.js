// The messages: filters, chart, list, and beside it one message or the busiest senders.

import * as address from "./address.js";
import { Chart } from "./chart.js";
import { Detail } from "./detail.js";
import { element, icon, ICONS, state, throttled } from "./dom.js";
import { Feed } from "./feed.js";
import { Filters } from "./filters.js";
import { clock, count, day, plural } from "./format.js";
import { Rows } from "./rows.js";
import { senders } from "./senders.js";

const CHART_MS = 5000;
const LIVE = {
  connecting: "Connecting…",
  live: "Live",
  broken: "Reconnecting…",
  full: "Not live now",
  refused: "Not live",
};

export class Messages {
  constructor(api, root) {
    this.api = api;
    this.place = null;
    this.above = 0; // arrived while the list was scrolled down
    this.filters = new Filters((filters) => this.#filter(filters));
    this.chart = new Chart(api, {
      chose: (range) => this.#filter({ ...this.place, ...range }, true),
      by: (by) => this.#go({ by }),
    });
    this.rows = new Rows({
      label: "Messages, newest first",
      draw: (row) => drawn(row, this.place.q),
      opened: (row) => this.#open(row.message_id, true),
      moved: (row) => this.place.message && this.#open(row.message_id, false),
      nearEnd: () => this.feed.more(),
      scrolled: () => this.#scrolled(),
    });
    this.feed = new Feed(api, {
      loading: (first) => this.#loading(first),
      loaded: (first) => this.#loaded(first),
      grew: (indices) => this.#grew(indices),
      failed: (error, first) => this.#failed(error, first),
      live: (state) => this.#live(state),
      held: (n) => this.#held(n),
    });
    this.detail = new Detail(api, {
      closed: () => this.#close(),
      filter: (from) => this.#filter({ ...this.place, from }, true),
    });
    this.refreshChart = throttled(() => this.chart.refresh(), CHART_MS);
    this.refreshSenders = throttled(() => this.#senders(), 2 * CHART_MS);
    this.#build(root);
  }

  #build(root) {
    this.total = element("p", { class: "total", role: "status" });
    this.liveText = element("span", {}, LIVE.connecting);
    this.liveState = element("p", { class: "live", "data-state": "connecting" }, element("span", { class: "dot", "aria-hidden": "true" }), this.liveText);
    this.pauseButton = element("button", { class: "quiet", type: "button", "aria-pressed": "false", onclick: () => this.#pause() });
    this.newer = element("button", { class: "newer", type: "button", hidden: true, onclick: () => this.#toTop() });
    this.pane = element("div", { class: "pane" });
    this.cover = element("div", { class: "cover", hidden: true });
    this.pane.append(this.rows.scroller, this.newer, this.cover);
    this.side = element("aside", { class: "side", "aria-label": "Busiest senders" });
    root.append(
      element(
        "section",
        { class: "messages", "aria-label": "Messages" },
        element("h1", { class: "offscreen" }, "Messages"),
        this.filters.root,
        this.chart.root,
        element("div", { class: "status" }, this.total, this.liveState, this.pauseButton),
        this.pane,
      ),
      this.side,
      this.detail.root,
    );
    this.root = root;
    this.#drawPause();
  }

  // -- coming and going

  show(place) {
    const before = this.place;
    this.place = place;
    this.filters.show(place);
    this.chart.show(place);
    if (!before || address.FILTERS.some((name) => before[name] !== place[name])) {
      this.feed.show(address.filtersOf(place));
      if (!before) this.refreshSenders();
    }
    this.#openPlace();
  }

  leave() {
    this.feed.stop();
    this.place = null;
  }

  focusSearch() {
    this.filters.focus();
  }

  escape() {
    if (this.place?.message) this.#close();
    else this.rows.box.focus();
  }

  #go(changes, step = false) {
    const place = { ...this.place, ...changes };
    address.write(place, step);
    this.show(place);
  }

  #filter(filters, step = false) {
    this.#go({ ...address.filtersOf({ ...this.place, ...filters }), message: "" }, step);
  }

  #open(messageId, step) {
    this.#go({ message: messageId }, step && !this.place.message);
    if (step && matchMedia("(max-width: 900px)").matches) this.detail.focus();
  }

  #close() {
    this.#go({ message: "" });
    this.rows.box.focus();
  }

  #openPlace() {
    const { message } = this.place;
    this.root.classList.toggle("with-detail", Boolean(message));
    this.side.hidden = Boolean(message);
    this.rows.select(message || null);
    if (message) this.detail.show(message, this.feed.known.get(message), this.place.q);
    else this.detail.hide();
  }

  // -- what the feed says

  #loading(first) {
    if (!first) {
      this.rows.foot.replaceChildren(element("p", {}, "Loading more…"));
      return;
    }
    // A quick answer needs no sign of loading; a slow one gets it.
    clearTimeout(this.slow);
    this.slow = setTimeout(() => {
      this.#coverWith(skeleton());
      this.total.textContent = "Loading…";
    }, 150);
  }

  #loaded(first) {
    clearTimeout(this.slow);
    if (first) this.rows.reset(this.feed.rows);
    else this.rows.rows = this.feed.rows;
    this.#drawTotal();
    this.#drawEnds();
    this.rows.render();
    if (first) {
      this.above = 0;
      this.#drawNewer();
      this.#openPlace();
      if (!this.chart.data.length) this.refreshChart();
    }
  }

  #grew(indices) {
    const first = this.rows.first;
    const { active } = this.rows;
    const above = indices.filter((index) => index <= first).length;
    const stays = !this.rows.atTop;
    this.rows.shifted(above, active < 0 ? 0 : indices.filter((index) => index <= active).length);
    if (stays && above) this.above += above;
    if (!stays && this.feed.tooLong) {
      this.feed.load();
      return;
    }
    this.#drawTotal();
    this.#drawEnds();
    this.#drawNewer();
    this.rows.render();
    this.refreshChart();
    this.refreshSenders();
  }

  #failed(error, first) {
    clearTimeout(this.slow);
    const again = element("button", { class: "primary", type: "button", onclick: () => (first ? this.feed.load() : this.feed.more()) }, "Try again");
    if (!first) {
      this.rows.foot.replaceChildren(element("p", {}, error.message, " "), again);
      return;
    }
    this.rows.reset([]);
    this.total.textContent = "";
    if (error.status === 422) {
      this.#coverWith(state("The server refuses this filter", error.message, this.#clearButton()));
      return;
    }
    this.#coverWith(state("Messages cannot be read now", `${error.message} This page tries again by itself.`, again));
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.place && this.feed.load(), 5000);
  }

  #live(state) {
    this.liveState.dataset.state = state;
    this.liveText.textContent = this.feed.paused && state === "live" ? "Paused" : LIVE[state];
  }

  #held(n) {
    this.heldCount = n;
    this.#drawPause();
    this.#drawNewer();
  }

  // -- pause, and back to the top

  #pause() {
    if (this.feed.paused) this.feed.resume();
    else this.feed.pause();
    this.pauseButton.setAttribute("aria-pressed", this.feed.paused);
    this.#live(this.liveState.dataset.state);
    this.#drawPause();
    this.#drawNewer();
  }

  #toTop() {
    if (this.feed.paused) this.#pause();
    this.rows.scroller.scrollTop = 0;
    this.above = 0;
    this.#drawNewer();
    this.rows.render();
    this.rows.box.focus();
  }

  #scrolled() {
    if (this.rows.atTop && this.above) {
      this.above = 0;
      this.#drawNewer();
    }
  }

  // -- drawing

  #drawTotal() {
    const filtered = address.FILTERS.some((name) => this.place?.[name]);
    const text = filtered ? `${plural(this.feed.total, "message")} match${this.feed.total === 1 ? "es" : ""}` : plural(this.feed.total, "message");
    if (this.total.textContent !== text) this.total.textContent = text;
  }

  #drawEnds() {
    const { rows, cursor } = this.feed;
    this.#coverWith(rows.length ? null : this.#empty());
    const end = rows.length > 12 && cursor === null ? "That is all of them." : "";
    this.rows.foot.replaceChildren(element("p", {}, end));
  }

  #drawPause() {
    const paused = this.feed.paused;
    this.pauseButton.replaceChildren(icon(paused ? ICONS.play : ICONS.pause), paused ? "Resume" : "Pause");
  }

  #drawNewer() {
    const n = this.feed.paused ? this.heldCount : this.above;
    this.newer.hidden = !n;
    this.newer.replaceChildren(icon(ICONS.up), `${count(n)} new`);
  }

  #coverWith(content) {
    this.cover.hidden = !content;
    this.cover.replaceChildren(...(content ? [content] : []));
    this.rows.scroller.hidden = Boolean(content);
  }

  #clearButton() {
    const none = Object.fromEntries(address.FILTERS.map((name) => [name, ""]));
    return element("button", { class: "primary", type: "button", onclick: () => this.#filter(none, true) }, "Clear filters");
  }

  #empty() {
    if (address.FILTERS.some((name) => this.place[name])) {
      return state("No message matches", "Fewer filters find more. What arrives and fits shows up here by itself.", this.#clearButton());
    }
    return state(
      "Nothing has arrived yet",
      "Each message shows up here the moment it is stored. Send a first one:",
      element("pre", {}, element("code", {}, "lyftr-server send messages.ndjson")),
      element("p", {}, element("a", { href: "docs" }, "How senders sign"), " is on the API page."),
    );
  }

  async #senders() {
    try {
      const stats = await this.api.json("stats");
      this.side.replaceChildren(senders(stats, (from) => this.#filter({ ...this.place, from }, true)));
    } catch {
      // What stands there is the newest that is known.
    }
  }
}

function skeleton() {
  return element("div", { class: "skeleton", "aria-hidden": "true" }, ...Array.from({ length: 12 }, () => element("i")));
}

/** The parts of a row: when, who, what. */
function drawn(row, q) {
  const text = row.text === null ? element("span", { class: "text none" }, "no text") : element("span", { class: "text", dir: "auto" }, ...marked(row.text, q));
  return [
    element("span", { class: "when" }, element("span", { class: "day" }, day(row.ts)), " ", element("time", { datetime: row.ts }, clock(row.ts))),
    element("span", { class: "who" }, row.from),
    text,
    element("span", { class: "to" }, `to ${row.to}`),
  ];
}

/** The text with what was searched for marked, where lower case alone finds it. */
export function marked(text, q) {
  const lower = text.toLowerCase();
  const wanted = q.toLowerCase();
  if (!wanted || lower.length !== text.length) return [text];
  const parts = [];
  let from = 0;
  for (let at = lower.indexOf(wanted); at >= 0 && parts.length < 40; at = lower.indexOf(wanted, from)) {
    parts.push(text.slice(from, at), element("mark", {}, text.slice(at, at + wanted.length)));
    from = at + wanted.length;
  }
  return [...parts, text.slice(from)];
}
