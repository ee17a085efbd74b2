// The search box and the filters; each change is told a moment after the last key.

import { debounced, element, icon, ICONS } from "./dom.js";
import { instant, span } from "./format.js";

const TYPING_MS = 200;

export class Filters {
  constructor(changed) {
    this.changed = changed;
    this.tell = debounced(() => this.changed(this.#values()), TYPING_MS);
    const typed = () => this.tell();
    this.q = element("input", { type: "search", id: "q", placeholder: "Search in the text", autocomplete: "off", spellcheck: "false", maxlength: "256", "aria-label": "Search in the text", "aria-keyshortcuts": "/", oninput: typed });
    this.from = element("input", { type: "search", id: "from", placeholder: "+…", inputmode: "tel", autocomplete: "off", spellcheck: "false", maxlength: "33", oninput: typed });
    this.since = element("input", { type: "datetime-local", id: "since", step: "1", oninput: typed });
    this.until = element("input", { type: "datetime-local", id: "until", step: "1", oninput: typed });
    this.more = element("button", { class: "quiet more", type: "button", "aria-expanded": "false", "aria-controls": "more-filters", onclick: () => this.#toggle() }, icon(ICONS.filter), "Filters");
    this.fields = element("div", { class: "fields", id: "more-filters" }, field("From", this.from), field("Since, UTC", this.since), field("Until, UTC", this.until));
    this.chips = element("ul", { class: "chips", "aria-label": "Filters in use", hidden: true });
    this.root = element("search", { class: "filters" }, element("div", { class: "search" }, icon(ICONS.search), this.q, element("kbd", { "aria-hidden": "true" }, "/")), this.more, this.fields, this.chips);
  }

  /** Show what the address has, but never under the hand of whoever is typing. */
  show(place) {
    put(this.q, place.q);
    put(this.from, place.from);
    put(this.since, local(place.since));
    put(this.until, local(place.until));
    this.given = place;
    const chips = [
      place.from && this.#chip(`From ${place.from}`, { from: "" }),
      (place.since || place.until) && this.#chip(span(place.since, place.until), { since: "", until: "" }),
    ].filter(Boolean);
    this.chips.replaceChildren(...chips);
    this.chips.hidden = !chips.length;
    this.more.classList.toggle("on", chips.length > 0);
  }

  /** A filter in words; pressed, it goes. */
  #chip(words, without) {
    const drop = () => {
      this.changed(without);
      this.focus();
    };
    return element("li", {}, element("button", { class: "chip", type: "button", "aria-label": `${words}. Remove this filter.`, onclick: drop }, words, icon(ICONS.close)));
  }

  focus() {
    this.q.focus();
    this.q.select();
  }

  #values() {
    return {
      q: this.q.value,
      from: number(this.from.value),
      since: kept(this.since.value, this.given.since),
      until: kept(this.until.value, this.given.until),
    };
  }

  #toggle() {
    const open = this.root.classList.toggle("open");
    this.more.setAttribute("aria-expanded", open);
  }
}

function field(name, input) {
  return element("label", { class: "field" }, element("span", {}, name), input);
}

/** A number as people write it becomes one as the server has it; a name of another kind stays. */
function number(text) {
  const digits = text.replace(/[\s()+-]/g, "");
  return /^[0-9]+$/.test(digits) ? `+${digits}` : text.trim();
}

function put(input, value) {
  if (document.activeElement !== input && input.value !== value) input.value = value;
}

/** An instant as a field of a form has it: without Z and fraction. */
const local = (ts) => (ts && !ts.includes("T") ? `${ts}T00:00:00` : instant(ts).slice(0, 19));

/** What a field means; the address may say it more finely than the field can. */
function kept(value, given) {
  if (value === local(given)) return given;
  if (!value) return "";
  return value.length === 16 ? `${value}:00Z` : `${value.slice(0, 19)}Z`;
}
