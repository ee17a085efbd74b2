// The page: which view the address names, the token, readiness, and the keys that work everywhere.

import * as address from "./address.js";
import { Api } from "./api.js";
import { Messages } from "./messages.js";
import { Overview } from "./overview.js";
import { Refused } from "./refused.js";

const READY_MS = 10_000;
const find = (id) => document.getElementById(id);
const root = find("view");
const api = new Api(askForToken);
const views = { messages: Messages, overview: Overview, refused: Refused };
let current = null; // [name, view]
let app = "lyftr";

// -- views

function show() {
  const place = address.read();
  const name = place.view in views ? place.view : "messages";
  if (current?.[0] !== name) {
    current?.[1].leave();
    root.replaceChildren();
    root.className = name;
    current = [name, new views[name](api, root, readiness)];
    for (const link of document.querySelectorAll(".tabs a")) {
      if (link.dataset.view === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    drawTitle();
  }
  current[1].show(place);
}

function drawTitle() {
  const words = { messages: "Messages", overview: "Overview", refused: "Refused" };
  document.title = `${words[current[0]]} · ${app}`;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-view]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  if (link.href !== location.href) history.pushState(null, "", link.href);
  show();
});
addEventListener("popstate", show);

// -- keys

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || find("token").open) return;
  const typing = event.target.matches?.("input, textarea");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    current[1].focusSearch?.();
  } else if (event.key === "Escape") {
    current[1].escape?.();
  }
});

// -- the token

function askForToken(wrong) {
  const dialog = find("token");
  const input = find("token-input");
  find("token-wrong").textContent = wrong ? "That token is not the server’s." : "";
  input.value = "";
  if (!dialog.open) dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    find("token-form").onsubmit = (event) => {
      event.preventDefault();
      dialog.close();
      resolve(input.value.trim());
    };
  });
}

// Nothing can be seen without it.
find("token").addEventListener("cancel", (event) => event.preventDefault());

// -- what this is, and whether it is ready

async function about() {
  try {
    const answer = await api.json("./");
    app = answer.app;
    find("app").textContent = app;
    find("env").textContent = answer.env;
    find("env").hidden = false;
    drawTitle();
  } catch {
    // A name is not worth a word.
  }
}

async function readiness() {
  const box = find("readiness");
  let [state, words] = ["ready", "Ready"];
  try {
    const answer = await fetch(new URL("health/ready", document.baseURI), { cache: "no-store" });
    if (!answer.ok) [state, words] = ["unready", `Not ready: ${(await answer.json()).detail}`];
  } catch {
    [state, words] = ["unready", "No answer"];
  }
  if (box.dataset.state === state && find("readiness-text").textContent === words) return;
  box.dataset.state = state;
  find("readiness-text").textContent = words;
  box.title = words;
}

show();
about();
readiness();
setInterval(() => document.hidden || readiness(), READY_MS);
