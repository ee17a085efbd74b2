// What arrives while one looks: the stream of messages, begun anew whenever it breaks.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const FULL_WAIT_MS = 15_000;

export class Live {
  /**
   * `heard`: opened(resumed), message(row), erased(ids), changed(state) with a state of
   * "connecting", "live", "broken", "full" or "refused".
   */
  constructor(api, heard) {
    this.api = api;
    this.heard = heard;
    this.stopping = null;
  }

  /** Follow what fits the filters from now on, instead of what was followed before. */
  follow(filters) {
    this.stop();
    this.stopping = new AbortController();
    this.#run(filters, this.stopping.signal);
  }

  stop() {
    this.stopping?.abort();
  }

  async #run(filters, signal) {
    let after = null;
    let wait = FIRST_WAIT_MS;
    this.heard.changed("connecting");
    while (!signal.aborted) {
      let state = "broken";
      let opened = false;
      try {
        const arriving = this.api.stream("messages/stream", { ...filters, after }, signal, () => {
          opened = true;
          this.heard.changed("live");
          this.heard.opened(after !== null);
        });
        for await (const each of arriving) {
          if (signal.aborted) return;
          wait = FIRST_WAIT_MS;
          after = each.id ?? after;
          this.#tell(each);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 503) state = "full";
        if (error.status === 422) {
          this.heard.changed("refused");
          return;
        }
      }
      if (signal.aborted) return;
      this.heard.changed(state);
      await pause(state === "full" ? FULL_WAIT_MS : wait, signal);
      if (!opened) wait = Math.min(2 * wait, LONGEST_WAIT_MS);
    }
  }

  #tell({ event, data }) {
    if (data === undefined) return;
    const content = JSON.parse(data);
    if (event === "message") this.heard.message(content);
    else if (event === "erased") this.heard.erased(content);
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
