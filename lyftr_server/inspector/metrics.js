// The Prometheus text of /metrics, as far as this page needs it.

/** Samples by name: a list of {labels, value} each. */
export function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const found = line.match(/^([a-z_:][\w:]*)(?:\{(.*)\})? (\S+)/i);
    if (!found) continue;
    const [, name, inner, value] = found;
    const labels = Object.fromEntries([...(inner ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, label]) => [key, label]));
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels, value: Number(value) });
  }
  return samples;
}

/** One sample's value, or null. */
export function value(samples, name) {
  return samples.get(name)?.[0]?.value ?? null;
}

/** The buckets of a histogram: [upper bound, count in this bucket alone]. */
export function buckets(samples, name) {
  let below = 0;
  return (samples.get(`${name}_bucket`) ?? []).map(({ labels, value: upTo }) => {
    const bucket = [labels.le === "+Inf" ? Infinity : Number(labels.le), upTo - below];
    below = upTo;
    return bucket;
  });
}

/** A quantile, taken as even inside its bucket; null without observations. */
export function quantile(q, histogram) {
  const total = histogram.reduce((sum, [, n]) => sum + n, 0);
  if (!total) return null;
  let rank = q * total;
  let lower = 0;
  for (const [bound, n] of histogram) {
    if (rank <= n) return bound === Infinity ? lower : lower + ((bound - lower) * rank) / n;
    rank -= n;
    lower = bound;
  }
  return lower;
}
