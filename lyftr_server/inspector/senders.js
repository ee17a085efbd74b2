// The busiest senders, as bars that filter.

import { element } from "./dom.js";
import { count, plural } from "./format.js";

/** `stats` as /stats has it; `chose(number)` when one is picked. */
export function senders(stats, chose) {
  const list = stats.messages_per_sender;
  const most = Math.max(1, ...list.map((each) => each.count));
  const items = list.map((each) => {
    const bar = element("i", { "aria-hidden": "true" });
    bar.style.width = `${(100 * each.count) / most}%`;
    const label = `${each.from}: ${plural(each.count, "message")}. Show these.`;
    const button = element("button", { type: "button", "aria-label": label, onclick: () => chose(each.from) }, bar, element("span", {}, each.from), element("b", {}, count(each.count)));
    return element("li", {}, button);
  });
  const note = list.length ? `${plural(stats.senders_count, "sender")} in all` : "Nobody has written yet.";
  return element("section", { class: "senders" }, element("h2", {}, "Busiest senders"), element("p", { class: "note" }, note), element("ol", {}, ...items));
}
