// The server's routes. With READ_TOKEN set it answers 401 once, a person is asked, and all goes on.

import { events } from "./events.js";

const TOKEN = "lyftr-read-token";

/** An answer that is no success, or no answer at all (status 0). `detail` is for the person. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export class Api {
  /** `askForToken(wrong)` gives a promise of what a person typed. */
  constructor(askForToken) {
    this.askForToken = askForToken;
    this.asking = null;
  }

  /** What GET `path` answers, as JSON. Problem when it does not. */
  async json(path, parameters = {}, signal = undefined) {
    const answer = await this.#request(path, parameters, { signal });
    return answer.json();
  }

  async text(path, signal = undefined) {
    const answer = await this.#request(path, {}, { signal });
    return answer.text();
  }

  /** Yield the server-sent events of `path`; EventSource could send no token. */
  async *stream(path, parameters, signal, opened) {
    const answer = await this.#request(path, parameters, {
      signal,
      headers: { Accept: "text/event-stream" },
    });
    opened();
    yield* events(answer.body, signal);
  }

  async #request(path, parameters, options) {
    for (;;) {
      const token = sessionStorage.getItem(TOKEN);
      const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
      const answer = await fetchOrProblem(address(path, parameters), { ...options, headers, cache: "no-store" });
      if (answer.status === 401) await this.#newToken(token);
      else if (answer.ok) return answer;
      else throw new Problem(answer.status, await reason(answer));
    }
  }

  /** Ask once for all requests that were refused, and not at all when another has asked meanwhile. */
  async #newToken(refused) {
    if (sessionStorage.getItem(TOKEN) !== refused) return;
    this.asking ??= this.askForToken(refused !== null).then((token) => {
      sessionStorage.setItem(TOKEN, token);
      this.asking = null;
    });
    await this.asking;
  }
}

async function fetchOrProblem(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The server does not answer.");
  }
}

/** The address of a route, beside this page whatever stands before both. */
function address(path, parameters) {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

async function reason(answer) {
  try {
    const { detail } = await answer.json();
    if (typeof detail === "string") return sentence(detail);
    return detail.map((fault) => sentence(`${fault.loc.at(-1)} ${fault.msg}`)).join(" ");
  } catch {
    return `The server answered ${answer.status}.`;
  }
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

/** The path of one message. No URL can name "." and "..", and "stream" is another route. */
export function messagePath(messageId, rest = "") {
  if (messageId === "." || messageId === "..") return null;
  const name = messageId === "stream" ? "%73tream" : encodeURIComponent(messageId);
  return `messages/${name}${rest}`;
}
