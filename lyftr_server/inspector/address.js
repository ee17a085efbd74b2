// What is looked at, kept in the address: a link shows the same to whoever may read it.

export const FILTERS = ["q", "from", "since", "until"];
const KEPT = ["view", ...FILTERS, "by", "message"];

/** What the address says; absent parts are "". */
export function read() {
  const given = new URLSearchParams(location.search);
  return Object.fromEntries(KEPT.map((name) => [name, given.get(name) ?? ""]));
}

export function filtersOf(place) {
  return Object.fromEntries(FILTERS.map((name) => [name, place[name]]));
}

/** The address of a place, for a link. */
export function href(place) {
  const given = new URLSearchParams();
  for (const name of KEPT) {
    if (place[name]) given.set(name, place[name]);
  }
  const query = given.toString();
  return query ? `${location.pathname}?${query}` : location.pathname;
}

/** Write a place into the address: as a step that "back" undoes, or in place of the last. */
export function write(place, step = false) {
  const url = href(place);
  if (url === `${location.pathname}${location.search}`) return;
  if (step) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
}
