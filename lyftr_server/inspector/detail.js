// One message: what it says, its fields, its JSON, what came of it, and how it came.

import { messagePath } from "./api.js";
import { copyButton, element, icon, ICONS } from "./dom.js";
import { ago, moment } from "./format.js";
import { marked } from "./messages.js";

const SOURCES = {
  native: "lyftr’s own format",
  standard_webhooks: "Standard Webhooks",
  whatsapp: "WhatsApp Cloud API",
  twilio: "Twilio",
};

export class Detail {
  constructor(api, { closed, filter }) {
    Object.assign(this, { api, filter });
    this.shown = null;
    this.title = element("h2", { tabindex: "-1" }, "Message");
    this.body = element("div", { class: "detail-body", tabindex: "0", role: "group", "aria-label": "The message" });
    const close = element("button", { class: "quiet", type: "button", "aria-label": "Close the message", onclick: closed }, icon(ICONS.close));
    const back = element("button", { class: "quiet back", type: "button", onclick: closed }, icon(ICONS.back), "Messages");
    this.root = element("aside", { class: "detail", "aria-label": "One message", hidden: true }, element("header", {}, back, this.title, close), this.body);
  }

  focus() {
    this.title.focus();
  }

  hide() {
    this.shown = null;
    this.stopping?.abort();
    this.root.hidden = true;
  }

  /** Show a message at once as far as it is known (`row`), and the rest when it is read. */
  show(messageId, row, q) {
    if (this.shown === messageId && (this.complete || !row || this.row)) return;
    this.stopping?.abort();
    const stopping = new AbortController();
    Object.assign(this, { shown: messageId, row, stopping, complete: false });
    this.root.hidden = false;
    this.body.scrollTop = 0;
    if (row) this.#draw(row, q);
    else this.body.replaceChildren(element("p", { class: "note" }, "Loading…"));
    this.#read(messageId, row, q, stopping.signal);
  }

  async #read(messageId, row, q, signal) {
    const path = messagePath(messageId);
    try {
      const message = path ? await this.api.json(path, {}, signal) : row;
      // Our own format has no more to it, and asking for what is not there would be an error.
      const more = path && message?.source && message.source !== "native";
      const [payload, events] = await Promise.all([
        more && quiet(this.api.text(messagePath(messageId, "/payload"), signal)),
        more && quiet(this.api.json("events", { message_id: messageId, limit: 50 }, signal)),
      ]);
      if (signal.aborted || !message) return;
      this.complete = true;
      this.#draw(message, q, payload, events?.data);
    } catch (error) {
      if (signal.aborted) return;
      const why = error.status === 404 ? "There is no message with this id." : error.message;
      if (row) this.body.append(element("p", { class: "wrong" }, why));
      else this.body.replaceChildren(element("p", { class: "note" }, why));
    }
  }

  #draw(message, q, payload, events) {
    const { source, received_at: receivedAt, ...row } = message;
    const text = message.text === null ? element("p", { class: "says none" }, "This message has no text.") : element("p", { class: "says", dir: "auto" }, ...marked(message.text, q));
    const json = JSON.stringify(row, null, 2);
    const parts = [
      text,
      element(
        "dl",
        {},
        ...fact("From", this.#sender(message.from)),
        ...fact("To", message.to),
        ...fact("Sent", time(message.ts)),
        ...(receivedAt ? fact("Stored", time(receivedAt, 3)) : []),
        ...(source ? fact("Source", SOURCES[source] ?? source) : []),
        ...fact("Id", element("span", { class: "id" }, message.message_id), copyButton(message.message_id, "the id")),
      ),
      happened(events),
      code("JSON", json),
      payload && code("Payload as it came", pretty(payload), payload),
    ];
    this.body.replaceChildren(...parts.filter(Boolean));
  }

  #sender(from) {
    const label = `Show all messages from ${from}`;
    return element("button", { class: "link", type: "button", title: label, "aria-label": `${from}. ${label}`, onclick: () => this.filter(from) }, from);
  }
}

function fact(name, ...value) {
  return [element("dt", {}, name), element("dd", {}, ...value)];
}

function time(ts, decimals) {
  return element("time", { datetime: ts, title: ts }, moment(ts, decimals), element("small", {}, ` ${ago(ts)}`));
}

/** Text to look at; `copied` is what goes to the clipboard, byte for byte. */
function code(title, text, copied = text) {
  const heading = element("h3", {}, title);
  return element("section", { class: "code" }, element("header", {}, heading, copyButton(copied, title)), element("pre", { tabindex: "0", role: "group", "aria-label": title }, element("code", {}, text)));
}

/** What was told about the message later: delivered, read, deleted, and what nobody knows yet. */
function happened(events) {
  if (!events?.length) return null;
  const items = events.map((event) => {
    const at = event.at ?? event.received_at;
    return element("li", {}, element("details", {}, element("summary", {}, element("b", {}, event.kind), at && time(at, 3)), element("pre", { tabindex: "0", role: "group", "aria-label": event.kind }, element("code", {}, pretty(event.body ?? event)))));
  });
  return element("section", { class: "events" }, element("h3", {}, "Events"), element("ol", {}, ...items));
}

/** JSON for reading, whether it came as text or as a value; other text as it is. */
export function pretty(body) {
  if (typeof body !== "string") return JSON.stringify(body, null, 2);
  try {
    return JSON.stringify(JSON.parse(body), null, 2);
  } catch {
    return body;
  }
}

/** The answer, or null: not every message has this part, and not every server. */
async function quiet(asking) {
  try {
    return await asking;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return null;
  }
}
