// Times (all in UTC, as the server and its log have them), numbers, sizes; and the listing's order.

const NUMBER = new Intl.NumberFormat("en");
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
const WEEKDAYS = "Sun Mon Tue Wed Thu Fri Sat".split(" ");
export const HOUR_MS = 3_600_000;
export const DAY_MS = 24 * HOUR_MS;

export const count = (n) => NUMBER.format(n);
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** `ts` as text that sorts by time, to the nanosecond; the server does the same. */
export function instant(ts) {
  const bare = ts.replace(/Z$/, "");
  return bare.includes(".") ? bare.replace(/0+$/, "").replace(/\.$/, "") : bare;
}

/** Order of the page: newest first, by instant and then by id, in code points. */
export function newestFirst(a, b) {
  return byCodePoints(instant(b.ts), instant(a.ts)) || byCodePoints(b.message_id, a.message_id);
}

function byCodePoints(a, b) {
  if (a === b) return 0;
  const left = [...a];
  const right = [...b];
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const difference = left[i].codePointAt(0) - right[i].codePointAt(0);
    if (difference) return difference;
  }
  return left.length - right.length;
}

/** "15 Jan", with the year when it is not this one. */
export function day(ts) {
  const [year, month, date] = ts.slice(0, 10).split("-").map(Number);
  if (!MONTHS[month - 1] || !date) return ts; // an address may say anything
  const short = `${date} ${MONTHS[month - 1]}`;
  return year === new Date().getUTCFullYear() ? short : `${short} ${year}`;
}

export const clock = (ts) => ts.slice(11, 19);
export const minutes = (ts) => ts.slice(11, 16);

/** A whole instant for reading: "Thu 15 Jan 2026, 10:00:00.25 UTC", with so many decimals at most. */
export function moment(ts, decimals = 9) {
  const date = new Date(ts);
  if (Number.isNaN(date.getTime())) return ts;
  const fraction = decimals ? instant(ts).slice(19, 20 + decimals) : "";
  const year = ts.slice(0, 4);
  return `${WEEKDAYS[date.getUTCDay()]} ${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]} ${year}, ${clock(ts)}${fraction} UTC`;
}

/** From one instant to another in few words; either may be missing. */
export function span(since, until) {
  const words = (ts) => (/T(00:00:00)?/.exec(ts)?.[1] || !ts.includes("T") ? day(ts) : `${day(ts)}, ${ts.endsWith(":00Z") ? minutes(ts) : clock(ts)}`);
  if (!until) return `Since ${words(since)}`;
  if (!since) return `Until ${words(until)}`;
  if (Date.parse(until) - Date.parse(since) === DAY_MS && words(since) === day(since)) return words(since);
  return day(since) === day(until) ? `${words(since)} to ${minutes(until)}` : `${words(since)} to ${words(until)}`;
}

export const iso = (milliseconds) => new Date(milliseconds).toISOString().replace(/\.\d+Z$/, "Z");

/** "3 minutes ago", for how fresh something is. */
export function ago(ts, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - new Date(ts).getTime()) / 1000));
  if (Number.isNaN(seconds)) return "";
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${plural(Math.floor(seconds / 60), "minute")} ago`;
  if (seconds < 86400) return `${plural(Math.floor(seconds / 3600), "hour")} ago`;
  return `${plural(Math.floor(seconds / 86400), "day")} ago`;
}

export function bytes(n) {
  if (n < 1000) return plural(n, "byte");
  const unit = n < 1e6 ? "kB" : n < 1e9 ? "MB" : "GB";
  const value = n / { kB: 1e3, MB: 1e6, GB: 1e9 }[unit];
  return `${value < 10 ? value.toFixed(1) : count(Math.round(value))} ${unit}`;
}

export function milliseconds(seconds) {
  const ms = seconds * 1000;
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}
