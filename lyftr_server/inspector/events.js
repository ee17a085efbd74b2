// Server-sent events out of a fetch (https://html.spec.whatwg.org/multipage/server-sent-events.html).

const SILENCE_MS = 45_000; // the server says something every 15 s

/** Yield {event, id, data} of a body until it ends. A connection that falls silent is let go. */
export async function* events(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const letGo = () => reader.cancel().catch(() => {});
  signal.addEventListener("abort", letGo);
  let rest = "";
  let current = {};
  try {
    for (;;) {
      const silence = setTimeout(letGo, SILENCE_MS);
      const { value, done } = await reader.read().finally(() => clearTimeout(silence));
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (line) {
          add(current, line);
        } else {
          // An id alone is a place to resume from.
          if (current.data !== undefined || current.id) yield { event: "message", ...current };
          current = {};
        }
      }
    }
  } finally {
    signal.removeEventListener("abort", letGo);
    letGo();
  }
}

function add(current, line) {
  const [, name, value] = line.match(/^([^:]*):? ?(.*)$/s);
  if (name === "data") current.data = current.data === undefined ? value : `${current.data}\n${value}`;
  else if (name === "event" || name === "id") current[name] = value;
}
