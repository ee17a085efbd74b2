// How the server does: readiness, commits, queue, what deliveries came to, and who sends most.

import * as address from "./address.js";
import { element, state } from "./dom.js";
import { ago, bytes, count, milliseconds, moment, plural } from "./format.js";
import { buckets, parse, quantile, value } from "./metrics.js";
import { senders } from "./senders.js";

const EVERY_MS = 5000;
const RESULTS = [
  ["created", "stored"],
  ["duplicate", "repeats"],
  ["conflict", "repeats with other content"],
  ["invalid_signature", "wrongly signed"],
  ["validation_error", "not valid"],
  ["too_large", "too large"],
  ["unavailable", "turned away: try later"],
  ["storage_error", "not stored: our failure"],
  ["aborted", "broken off by the sender"],
];

export class Overview {
  constructor(api, root, readiness) {
    Object.assign(this, { api, readiness });
    this.body = element("div", { class: "page-body" });
    root.append(element("section", { class: "page", "aria-label": "Overview" }, element("h1", {}, "Overview"), this.body));
  }

  show() {
    this.#refresh();
    this.timer = setInterval(() => this.#refresh(), EVERY_MS);
  }

  leave() {
    clearInterval(this.timer);
    this.stopping?.abort();
  }

  async #refresh() {
    if (document.hidden) return;
    this.stopping?.abort();
    const { signal } = (this.stopping = new AbortController());
    try {
      const [text, stats] = await Promise.all([this.api.text("metrics", signal), this.api.json("stats", {}, signal), this.readiness()]);
      if (!signal.aborted) this.#draw(parse(text), stats);
    } catch (error) {
      if (!signal.aborted) this.body.replaceChildren(state("The server cannot be asked now", `${error.message} This page tries again by itself.`));
    }
  }

  #draw(samples, stats) {
    // Whoever stands on a button stays there.
    const focused = document.activeElement?.getAttribute("aria-label");
    this.body.replaceChildren(
      tiles(stats),
      element("div", { class: "columns" }, element("div", {}, health(samples), deliveries(samples)), element("div", {}, commits(samples), senders(stats, follow))),
    );
    if (focused) [...this.body.querySelectorAll("[aria-label]")].find((each) => each.getAttribute("aria-label") === focused)?.focus();
  }
}

/** Go to the messages of one sender. */
function follow(from) {
  history.pushState(null, "", address.href({ from }));
  dispatchEvent(new PopStateEvent("popstate"));
}

function tiles(stats) {
  const newest = stats.last_message_ts;
  return element(
    "dl",
    { class: "tiles" },
    tile("Messages", count(stats.total_messages), stats.first_message_ts ? `since ${moment(stats.first_message_ts).slice(4, 15)}` : "none yet"),
    tile("Last 24 hours", count(stats.messages_last_24h), "by the time of storing"),
    tile("Senders", count(stats.senders_count), `to ${plural(stats.recipients_count, "number")}`),
    tile("Newest", newest ? ago(newest) : "none", newest ? moment(newest) : ""),
  );
}

function tile(name, figure, note) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, element("b", {}, figure), element("small", {}, note)));
}

function card(title, ...content) {
  return element("section", { class: "card" }, element("h2", {}, title), ...content);
}

function facts(list) {
  const known = list.filter(([, text]) => text !== null);
  return element("dl", { class: "facts" }, ...known.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
}

function meter(name, share, words) {
  const bar = element("i");
  bar.style.width = `${Math.min(100, 100 * share)}%`;
  return element("div", { class: share > 0.8 ? "meter high" : "meter" }, element("p", {}, element("span", {}, name), element("b", {}, words)), element("div", { "aria-hidden": "true" }, bar));
}

function health(samples) {
  const get = (name) => value(samples, name);
  const depth = get("lyftr_queue_depth");
  const limit = get("lyftr_queue_limit");
  const free = get("lyftr_disk_free_bytes");
  const size = get("lyftr_disk_size_bytes");
  const bytesOf = (name) => (get(name) === null ? null : bytes(get(name)));
  const backlog = get("lyftr_search_backlog_messages");
  const started = get("process_start_time_seconds");
  const build = samples.get("lyftr_build_info")?.[0]?.labels ?? {};
  return card(
    "Server",
    limit === null ? null : meter("Queue for the next commit", depth / limit, `${count(depth)} of ${count(limit)}`),
    size ? meter("Disk", 1 - free / size, `${bytes(free)} free`) : null,
    facts([
      ["Running", started && ago(new Date(started * 1000).toISOString()).replace(" ago", "")],
      ["Database", bytesOf("lyftr_database_bytes")],
      ["Write-ahead log", bytesOf("lyftr_wal_bytes")],
      ["Memory", bytesOf("process_resident_memory_bytes")],
      ["Connections", get("lyftr_connections") === null ? null : count(get("lyftr_connections"))],
      ["Not in the search index yet", backlog === null ? null : count(backlog)],
      ["Storage errors", count(get("lyftr_storage_errors_total") ?? 0)],
      ["Version", build.version ?? null],
    ]),
  );
}

function commits(samples) {
  const times = buckets(samples, "lyftr_commit_seconds");
  const sizes = buckets(samples, "lyftr_commit_batch_size");
  const total = times.reduce((sum, [, n]) => sum + n, 0);
  if (!total) return card("Commits", element("p", { class: "note" }, "None since the start."));
  const stored = value(samples, "lyftr_commit_batch_size_sum") ?? 0;
  const batches = sizes.reduce((sum, [, n]) => sum + n, 0);
  const words = (q) => milliseconds(quantile(q, times));
  return card(
    "Commits",
    element("dl", { class: "quantiles" }, ...[["half", 0.5], ["95 %", 0.95], ["99 %", 0.99]].map(([name, q]) => element("div", {}, element("dt", {}, `${name} within`), element("dd", {}, words(q))))),
    distribution(times),
    facts([
      ["Since the start", count(total)],
      ["Messages in one, on average", batches ? (stored / batches).toFixed(1) : null],
    ]),
  );
}

/** How commit times spread: a bar for each bucket that anything fell into, and those between. */
function distribution(times) {
  const used = times.map(([, n], index) => (n ? index : -1)).filter((index) => index >= 0);
  const shown = times.slice(used[0], used.at(-1) + 1);
  const most = Math.max(...shown.map(([, n]) => n));
  const rows = shown.map(([bound, n]) => {
    const bar = element("i", { "aria-hidden": "true" });
    bar.style.width = `${(100 * n) / most}%`;
    const upTo = bound === Infinity ? "longer" : `≤ ${milliseconds(bound)}`;
    return element("li", {}, element("span", {}, upTo), bar, element("b", {}, count(n)));
  });
  return element("ol", { class: "distribution", "aria-label": "Commits by time" }, ...rows);
}

function deliveries(samples) {
  const by = new Map((samples.get("webhook_requests_total") ?? []).map(({ labels, value: n }) => [labels.result, n]));
  const list = RESULTS.filter(([name], index) => by.get(name) || index < 2);
  return card(
    "Deliveries since the start",
    element("ul", { class: "results" }, ...list.map(([name, words]) => element("li", { "data-result": name }, element("span", {}, words), element("b", {}, count(by.get(name) ?? 0))))),
  );
}
