// Elements made of names and text. Nothing here, or anywhere on this page, is parsed as HTML.

/** An element. `properties`: attributes by name, `class`, and `on…` for listeners; null leaves out. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  // A string becomes a text node, whatever it holds.
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A line icon, from one path on a grid of 20. */
export function icon(path) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const line = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

export const ICONS = {
  search: "M9 3.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 0 1 0-11M13 13l4 4",
  filter: "M3 5h14M6 10h8M8.5 15h3",
  close: "M5 5l10 10M15 5L5 15",
  back: "M12 4l-6 6l6 6",
  pause: "M7 5v10M13 5v10",
  play: "M7 4.5l8.5 5.5L7 15.5z",
  up: "M10 16V4M5 9l5-5l5 5",
  copy: "M7 7V3.5h9.500V13H13M3.500 7H13v9.500H3.500z",
  done: "M4 10.500l4 4l8-9",
};

/** A button that puts text on the clipboard and says that it did. */
export function copyButton(text, what) {
  const label = element("span", {}, "Copy");
  const button = element("button", { class: "quiet small", type: "button", "aria-label": `Copy ${what}` });
  button.append(icon(ICONS.copy), label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      label.textContent = "Copied";
    } catch {
      // Without https a browser offers no clipboard: the old way, with the text selected.
      label.textContent = copyBySelection(text, button) ? "Copied" : "Not allowed";
    }
    setTimeout(() => (label.textContent = "Copy"), 1500);
  });
  return button;
}

function copyBySelection(text, beside) {
  const area = element("textarea", { class: "offscreen", "aria-hidden": "true" });
  area.value = text;
  beside.after(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  beside.focus();
  return copied;
}

/** A quiet state in the middle of a pane: a title, a sentence, and what to do next. */
export function state(title, text, ...more) {
  return element("div", { class: "state" }, element("h2", {}, title), text && element("p", {}, text), ...more);
}

/** Call `work` once it has been quiet for a while. */
export function debounced(work, milliseconds) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), milliseconds);
  };
}

/** Call `work` now, and then at most once in a while; the last call is never lost. */
export function throttled(work, milliseconds) {
  let timer = null;
  let again = false;
  const run = () => {
    if (timer !== null) {
      again = true;
      return;
    }
    work();
    timer = setTimeout(() => {
      timer = null;
      if (again) {
        again = false;
        run();
      }
    }, milliseconds);
  };
  return run;
}
