// The values of a run's metrics over its steps, with the intervals that are known.

/** @typedef {{y: (number|null)[], low: (number|null)[], high: (number|null)[]}} Known */

/**
 * Return a metric's values over the steps, and the ends of its intervals where they are known: as the run logged them,
 * or as counted of its completions.
 * @param {any} run
 * @param {string} key
 * @param {boolean} isShare whether it stays between 0 and 1
 * @returns {Known}
 */
export function valuesOf(run, key, isShare) {
  const [mean, low, high] = run.counted?.[key] ?? [];
  const y = run.series[key] ?? mean ?? [];
  const half = run.series[`${key}_ci95`];
  if (!half) return { y, low: low ?? [], high: high ?? [] };
  const end = (/** @type {number} */ sign) => (/** @type {number|null} */ value, /** @type {number} */ n) => {
    if (value === null || half[n] === null) return null;
    const at = value + sign * half[n];
    return isShare ? Math.min(1, Math.max(0, at)) : at;
  };
  return { y, low: y.map(end(-1)), high: y.map(end(1)) };
}

/**
 * Return the columns of a table: of each key its values over the steps.
 * @param {{keys: string[][], rows: [number, number, string][]}} table
 * @param {number[]} steps
 * @param {number} each how many values a key has, one after the other
 * @returns {Record<string, (number|null)[][]>}
 */
function columns(table, steps, each) {
  const places = new Map(steps.map((step, n) => [step, n]));
  /** @type {Record<string, (number|null)[][]>} */
  const found = Object.create(null);
  for (const key of new Set(table.keys.flat())) found[key] = Array.from({ length: each }, () => steps.map(() => null));
  for (const [step, set, text] of table.rows) {
    const values = text.split(",").map(Number);
    const at = /** @type {number} */ (places.get(step));
    table.keys[set].forEach((key, n) => {
      for (let k = 0; k < each; k++) if (Number.isFinite(values[n * each + k])) found[key][k][at] = values[n * each + k];
    });
  }
  return found;
}

/** Give a run its steps, the values of its metrics, and its clocks. @param {any} run */
export function unpackColumns(run) {
  const rows = [...run.metrics.rows, ...run.counted.rows];
  run.steps = [...new Set(rows.map(([step]) => step))].sort((a, b) => a - b);
  const metrics = columns(run.metrics, run.steps, 1);
  delete metrics.step;
  run.series = Object.fromEntries(Object.entries(metrics).map(([key, [values]]) => [key, values]));
  run.counted = columns(run.counted, run.steps, 3);
  /** @type {Map<number, number>} */
  const sampled = new Map(run.metrics.rows.map((/** @type {[number]} */ [step], /** @type {number} */ n) => [step, run.sampled[n]]));
  let [completions, minutes] = [0, 0];
  run.clocks = {
    completions: run.steps.map((/** @type {number} */ step) => (completions = sampled.get(step) ?? completions)),
    minutes: run.steps.map((/** @type {any} */ _, /** @type {number} */ n) => (minutes += (run.series["time/step_s"]?.[n] ?? 0) / 60)),
  };
}
