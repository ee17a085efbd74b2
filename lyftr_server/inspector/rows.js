// A list of any length with as many elements as fit the window, and one tab stop for the keyboard.

import { element } from "./dom.js";

const OVERSCAN = 8;

export class Rows {
  /**
   * `label` names the list. `draw(row)` makes one row's content. `opened(row)`: a person wants it;
   * `moved(row)`: the keyboard came to it; `nearEnd()`: more rows are needed soon.
   */
  constructor({ label, draw, opened, moved, nearEnd, scrolled }) {
    Object.assign(this, { draw, opened, moved, nearEnd, scrolled });
    this.rows = [];
    this.active = -1; // where the keyboard is
    this.selected = null; // the id of the row that is open
    this.drawn = new Map(); // message_id -> element
    this.box = element("div", { class: "rows", role: "listbox", tabindex: "0", "aria-label": label });
    this.foot = element("div", { class: "foot" });
    this.scroller = element("div", { class: "scroller" }, this.box, this.foot);
    this.scroller.addEventListener("scroll", () => this.#scroll(), { passive: true });
    this.box.addEventListener("keydown", (event) => this.#key(event));
    this.box.addEventListener("click", (event) => this.#click(event));
    this.box.addEventListener("focus", () => this.#focused());
    new ResizeObserver(() => this.render()).observe(this.scroller);
  }

  get atTop() {
    return this.scroller.scrollTop < 8;
  }

  get rowHeight() {
    return parseFloat(getComputedStyle(this.box).getPropertyValue("--row-height")) || 48;
  }

  /** Show other rows, from the top. */
  reset(rows) {
    this.rows = rows;
    this.active = -1;
    this.forget();
    this.scroller.scrollTop = 0;
    this.render();
  }

  /** Draw everything anew at the next render. */
  forget() {
    for (const node of this.drawn.values()) node.remove();
    this.drawn.clear();
  }

  /** `above` rows were put in (negative: taken out) over the first visible one: nothing moves. */
  shifted(above, activeBy) {
    if (this.active >= 0) this.active += activeBy;
    if (above && !this.atTop) this.scroller.scrollTop += above * this.rowHeight;
  }

  /** The index of the first row in view. */
  get first() {
    return Math.floor(this.scroller.scrollTop / this.rowHeight);
  }

  render() {
    const height = this.rowHeight;
    const from = Math.max(0, this.first - OVERSCAN);
    const visible = Math.ceil(this.scroller.clientHeight / height) + 2 * OVERSCAN;
    const to = Math.min(this.rows.length, from + visible);
    this.box.style.height = `${this.rows.length * height}px`;
    const wanted = new Map();
    for (let index = from; index < to; index++) wanted.set(this.rows[index].message_id, index);
    for (const [id, node] of this.drawn) {
      if (wanted.has(id)) continue;
      node.remove();
      this.drawn.delete(id);
    }
    for (const [id, index] of wanted) this.#place(id, index, height);
    const active = this.rows[this.active];
    const node = active && this.drawn.get(active.message_id);
    if (node) this.box.setAttribute("aria-activedescendant", node.id);
    else this.box.removeAttribute("aria-activedescendant");
    if (to > this.rows.length - 30) this.nearEnd();
  }

  #place(id, index, height) {
    let node = this.drawn.get(id);
    if (!node) {
      node = element("div", { class: "row", role: "option", id: `row-${nextNumber()}` }, ...this.draw(this.rows[index]));
      this.drawn.set(id, node);
      this.box.append(node);
    }
    node.style.transform = `translateY(${index * height}px)`;
    node.setAttribute("aria-posinset", index + 1);
    node.setAttribute("aria-setsize", this.rows.length);
    node.setAttribute("aria-selected", id === this.selected);
    node.classList.toggle("active", index === this.active);
    node.dataset.index = index;
  }

  select(id) {
    this.selected = id;
    if (id && this.rows[this.active]?.message_id !== id) {
      this.active = this.rows.findIndex((row) => row.message_id === id);
    }
    this.render();
  }

  #scroll() {
    this.render();
    this.scrolled();
  }

  #focused() {
    if (this.active < 0 && this.rows.length) this.active = Math.min(this.rows.length - 1, this.atTop ? 0 : this.first + 1);
    this.render();
  }

  #click(event) {
    const node = event.target.closest(".row");
    if (!node) return;
    this.active = Number(node.dataset.index);
    this.opened(this.rows[this.active]);
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / this.rowHeight) - 1);
    const last = this.rows.length - 1;
    const target = {
      ArrowDown: this.active + 1,
      ArrowUp: this.active - 1,
      PageDown: this.active + page,
      PageUp: this.active - page,
      Home: 0,
      End: last,
    }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || last < 0) return;
    if (target !== undefined) {
      event.preventDefault();
      this.active = Math.max(0, Math.min(last, target));
      this.#intoView();
      this.render();
      this.moved(this.rows[this.active]);
    } else if ((event.key === "Enter" || event.key === " ") && this.active >= 0) {
      event.preventDefault();
      this.opened(this.rows[this.active]);
    }
  }

  #intoView() {
    const top = this.active * this.rowHeight;
    const bottom = top + this.rowHeight;
    const { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (bottom > scrollTop + clientHeight) this.scroller.scrollTop = bottom - clientHeight;
  }
}

let number = 0;
const nextNumber = () => ++number;
