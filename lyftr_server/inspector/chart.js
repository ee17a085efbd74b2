// Messages by hour or day; a bar is a filter.

import { element } from "./dom.js";
import { clock, day, DAY_MS, HOUR_MS, iso, minutes, plural } from "./format.js";

const LONGEST_MS = { hour: 7 * DAY_MS, day: 366 * DAY_MS };
const STEP_MS = { hour: HOUR_MS, day: DAY_MS };

export class Chart {
  /** `chose(range)`: {since, until} of a bar, or of none; `by(unit)`: "hour" or "day". */
  constructor(api, { chose, by }) {
    Object.assign(this, { api, chose });
    this.place = { by: "", since: "", until: "" };
    this.window = {}; // what the bars span, when that is not the newest
    this.data = [];
    this.active = 0;
    this.units = new Map(["hour", "day"].map((unit) => [unit, element("button", { type: "button", "aria-pressed": "false", onclick: () => by(unit === "hour" ? "" : unit) }, unit === "hour" ? "Hours" : "Days")]));
    this.title = element("p", { class: "chart-title", "aria-live": "off" });
    this.whole = element("button", { class: "quiet small", type: "button", hidden: true, onclick: () => this.chose({ since: "", until: "" }) }, "All times");
    this.bars = element("div", { class: "bars", role: "group", "aria-label": "Messages over time" });
    this.axis = element("div", { class: "axis", "aria-hidden": "true" });
    this.root = element("section", { class: "chart", "aria-label": "Messages over time" }, element("div", { class: "chart-head" }, this.title, this.whole, element("div", { class: "segments", role: "group", "aria-label": "Bars of" }, ...this.units.values())), this.bars, this.axis);
    this.bars.addEventListener("keydown", (event) => this.#key(event));
    this.bars.addEventListener("click", (event) => this.#click(event));
    this.bars.addEventListener("pointerover", (event) => this.#point(event.target.closest("button")));
    this.bars.addEventListener("focusin", (event) => this.#point(event.target.closest("button")));
    this.bars.addEventListener("pointerleave", () => this.#say(null));
    this.bars.addEventListener("focusout", () => this.#say(null));
  }

  get unit() {
    return this.place.by === "day" ? "day" : "hour";
  }

  show(place) {
    const before = this.place;
    this.place = place;
    for (const [unit, button] of this.units) button.setAttribute("aria-pressed", unit === this.unit);
    this.whole.hidden = !place.since && !place.until;
    const window = this.#windowFor(place);
    const same = before.by === place.by && window.since === this.window.since && window.until === this.window.until;
    this.window = window;
    if (same && this.data.length) this.#dim();
    else this.refresh();
  }

  async refresh() {
    const asked = `${this.unit} ${this.window.since} ${this.window.until}`;
    this.asked = asked;
    try {
      const { data } = await this.api.json("stats/timeline", { by: this.unit, ...this.window });
      if (this.asked === asked) this.#draw(data);
    } catch (error) {
      if (this.asked === asked && !this.data.length) this.title.textContent = error.status === 404 ? "" : "No chart now";
    }
  }

  /** The times to draw: those chosen, when bars can show them; around them, when they are few. */
  #windowFor({ since, until }) {
    const from = Date.parse(since);
    const to = Date.parse(until);
    if (!(to > from)) return {};
    const step = STEP_MS[this.unit];
    if (to - from > step && to - from <= LONGEST_MS[this.unit]) return { since: iso(from), until: iso(to) };
    if (to - from > step) return {};
    const shown = this.data;
    if (shown.length && Date.parse(shown[0].start) <= from && to <= Date.parse(shown.at(-1).start) + step) return this.window;
    const whole = this.unit === "hour" ? DAY_MS : 30 * DAY_MS;
    const start = Math.floor(from / whole) * whole;
    return { since: iso(start), until: iso(start + whole) };
  }

  #draw(data) {
    this.root.hidden = !data.length && !this.place.since && !this.place.until;
    const most = Math.max(1, ...data.map((each) => each.count));
    const again = data.length === this.data.length && this.bars.children.length === data.length;
    this.data = data;
    this.active = Math.min(this.active, Math.max(0, data.length - 1));
    if (!again) {
      this.active = Math.max(0, data.length - 1);
      this.bars.replaceChildren(...data.map((_, index) => element("button", { type: "button", "data-index": index, tabindex: "-1" }, element("i"))));
    }
    data.forEach((each, index) => {
      const bar = this.bars.children[index];
      bar.setAttribute("aria-label", `${this.#span(each)}: ${plural(each.count, "message")}`);
      bar.classList.toggle("none", each.count === 0);
      // A bar for one message among thousands is still to be seen.
      bar.firstChild.style.height = each.count ? `max(2px, ${(100 * each.count) / most}%)` : "1px";
    });
    this.bars.children[this.active]?.setAttribute("tabindex", "0");
    this.axis.replaceChildren(...ticks(data, this.unit).map(([share, text]) => {
      const tick = element("span", {}, text);
      tick.style.left = `${100 * share}%`;
      return tick;
    }));
    this.#dim();
    this.#say(null);
  }

  #dim() {
    const from = this.place.since ? Date.parse(this.place.since) : -Infinity;
    const to = this.place.until ? Date.parse(this.place.until) : Infinity;
    const step = STEP_MS[this.unit];
    this.data.forEach((each, index) => {
      const start = Date.parse(each.start);
      const bar = this.bars.children[index];
      const within = start < to && start + step > from;
      bar.classList.toggle("out", !within);
      bar.setAttribute("aria-pressed", within && (from > -Infinity || to < Infinity));
    });
  }

  #span(each) {
    if (this.unit === "day") return day(each.start);
    return `${day(each.start)}, ${minutes(each.start)} to ${minutes(iso(Date.parse(each.start) + HOUR_MS))}`;
  }

  #say(each) {
    if (each) {
      this.title.replaceChildren(element("strong", {}, plural(each.count, "message")), ` ${this.#span(each)}`);
      return;
    }
    const total = this.data.reduce((sum, { count: n }) => sum + n, 0);
    const length = this.unit === "hour" ? plural(this.data.length, "hour") : plural(this.data.length, "day");
    const which = this.window.since ? `${length} from ${day(this.window.since)}` : `last ${length}`;
    const whose = this.place.q || this.place.from ? ", whatever the filters" : "";
    this.title.replaceChildren(element("strong", {}, plural(total, "message")), this.data.length ? ` in the ${which}${whose}` : "");
  }

  #point(bar) {
    if (bar) this.#say(this.data[bar.dataset.index]);
  }

  #click(event) {
    const bar = event.target.closest("button");
    if (!bar) return;
    this.#move(Number(bar.dataset.index));
    const start = Date.parse(this.data[this.active].start);
    const range = { since: iso(start), until: iso(start + STEP_MS[this.unit]) };
    const chosen = this.place.since === range.since && this.place.until === range.until;
    this.chose(chosen ? { since: "", until: "" } : range);
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    this.#move(this.active + step);
    this.bars.children[this.active].focus();
  }

  #move(index) {
    this.bars.children[this.active]?.setAttribute("tabindex", "-1");
    this.active = Math.max(0, Math.min(this.data.length - 1, index));
    this.bars.children[this.active].setAttribute("tabindex", "0");
  }
}

/** A few places on the axis: [share of the width, words]. */
function ticks(data, unit) {
  const marked = data.flatMap((each, index) => {
    const begins = unit === "hour" ? ["00:00", "12:00"].includes(minutes(each.start)) : each.start.slice(8, 10) === "01" || each.start.slice(8, 10) === "15";
    if (!begins) return [];
    const words = unit === "hour" && minutes(each.start) !== "00:00" ? clock(each.start).slice(0, 5) : day(each.start);
    return [[index / data.length, words]];
  });
  const every = Math.ceil(marked.length / 8);
  return marked.filter(([share], index) => index % every === 0 && share < 0.94);
}
