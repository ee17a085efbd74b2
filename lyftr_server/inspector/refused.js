// What was refused: signed bodies with their faults, kept whole; and the last unsigned ones, seen only.

import { copyButton, element, state } from "./dom.js";
import { pretty } from "./detail.js";
import { ago, bytes, moment } from "./format.js";

const KINDS = [
  ["", "All"],
  ["validation_error", "Not valid"],
  ["conflict", "Conflicts"],
];
const WORDS = { validation_error: "not valid", conflict: "conflict" };

export class Refused {
  constructor(api, root) {
    this.api = api;
    this.kind = "";
    this.kinds = KINDS.map(([kind, words]) => element("button", { type: "button", "aria-pressed": String(kind === ""), onclick: () => this.#choose(kind) }, words));
    this.list = element("div", { class: "refused-list" });
    this.unsigned = element("div", {});
    root.append(
      element(
        "section",
        { class: "page", "aria-label": "Refused" },
        element("header", { class: "page-head" }, element("h1", {}, "Refused"), element("div", { class: "segments", role: "group", "aria-label": "Kind" }, ...this.kinds)),
        element("h2", {}, "Signed, and not stored as asked"),
        element("p", { class: "note" }, "The bodies are kept whole, the newest first."),
        this.list,
        element("h2", {}, "Not signed, or wrongly"),
        element("p", { class: "note" }, "The last hundred since the start, without their content: it was never read."),
        this.unsigned,
      ),
    );
  }

  show() {
    this.#first();
    this.#readUnsigned();
  }

  leave() {
    this.stopping?.abort();
  }

  #choose(kind) {
    this.kind = kind;
    this.kinds.forEach((button, index) => button.setAttribute("aria-pressed", KINDS[index][0] === kind));
    this.#first();
  }

  #first() {
    this.stopping?.abort();
    this.stopping = new AbortController();
    this.list.replaceChildren();
    this.#page(null, this.stopping.signal);
  }

  async #page(cursor, signal) {
    try {
      const page = await this.api.json("refused", { result: this.kind, limit: 50, cursor }, signal);
      if (signal.aborted) return;
      this.list.querySelector(".next")?.remove();
      this.list.append(...page.data.map(body));
      if (page.next_cursor) {
        const more = element("button", { class: "quiet next", type: "button", onclick: () => this.#page(page.next_cursor, signal) }, "Show more");
        this.list.append(more);
      }
      if (!this.list.children.length) this.list.append(state("Nothing was refused", "Bodies that are signed and cannot be stored would be here, with the reason."));
    } catch (error) {
      if (signal.aborted) return;
      const again = element("button", { class: "primary", type: "button", onclick: () => this.#first() }, "Try again");
      this.list.replaceChildren(state("This cannot be read now", error.message, again));
    }
  }

  async #readUnsigned() {
    try {
      const { data } = await this.api.json("refused/unsigned");
      this.unsigned.replaceChildren(data.length ? table(data) : element("p", { class: "note" }, "None."));
    } catch (error) {
      this.unsigned.replaceChildren(element("p", { class: "note" }, error.message));
    }
  }
}

/** One refused body: why, at a glance; all of it, when opened. */
function body(each) {
  const faults = typeof each.detail === "string" ? parsed(each.detail) : each.detail;
  const reasons = (Array.isArray(faults) ? faults : []).map((fault) => [fault.loc?.slice(1).join(".") || "body", fault.msg ?? fault.type ?? ""]);
  const summary = element(
    "summary",
    {},
    element("span", { class: "badge", "data-result": each.result }, WORDS[each.result] ?? each.result),
    element("span", { class: "why" }, ...reasons.slice(0, 1).flatMap(([place, words]) => [element("b", {}, place), ` ${words}`]), reasons.length > 1 ? ` and ${reasons.length - 1} more` : null),
    element("time", { datetime: each.at, title: moment(each.at) }, ago(each.at)),
  );
  const text = pretty(each.body);
  return element(
    "details",
    { class: "refusal" },
    summary,
    element("ul", { class: "faults" }, ...reasons.map(([place, words]) => element("li", {}, element("code", {}, place), ` ${words}`))),
    element("dl", { class: "facts" }, ...[["At", moment(each.at, 3)], ["Source", each.source], ["Request", each.request_id], ["Message", each.message_id], ["Size", bytes(each.size)]].filter(([, words]) => words).flatMap(([name, words]) => [element("dt", {}, name), element("dd", {}, words)])),
    element("section", { class: "code" }, element("header", {}, element("h3", {}, "Body"), copyButton(typeof each.body === "string" ? each.body : text, "the body")), element("pre", { tabindex: "0", role: "group", "aria-label": "Body" }, element("code", {}, text))),
  );
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return [];
  }
}

function table(rows) {
  const head = element("tr", {}, ...["When", "Why", "Route", "Size", "Request"].map((name) => element("th", { scope: "col" }, name)));
  const lines = rows.map((each) => element("tr", {}, element("td", {}, element("time", { datetime: each.at, title: moment(each.at) }, ago(each.at))), element("td", {}, each.reason.replaceAll("_", " ")), element("td", {}, each.route), element("td", {}, bytes(each.size)), element("td", {}, element("code", {}, each.request_id))));
  return element("div", { class: "scrolled", tabindex: "0", role: "group", "aria-label": "Not signed" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...lines)));
}
