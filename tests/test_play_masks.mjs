// Holds docs/play/masks.js to the known answers of which tests/test_play_masks.cpp knows that they are the library's.
//
//     node test_play_masks.mjs docs/play/masks.js tests/data/play_masks.json
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [script, answers] = process.argv.slice(2).map((path) => resolve(path));
const masks = createRequire(import.meta.url)(script);
const known = JSON.parse(readFileSync(answers, "utf8"));

const numbers = (words) => words.map((word) => parseInt(word, 16));
for (const { counter, key, words } of known.philox) {
  assert.deepEqual(masks.philox(numbers(counter), numbers(key)), numbers(words), `Philox of ${counter}`);
}
for (const { drop_rate, threshold } of known.thresholds) {
  assert.equal(masks.dropThreshold(drop_rate), threshold, `threshold of ${drop_rate}`);
}
for (const { distribution, drop_rate, rates } of known.rates) {
  const drawn = masks.dropRates({ distribution, dropRate: drop_rate, blocks: rates.length });
  assert.deepEqual(drawn, rates, `${distribution} ${drop_rate}, ${rates.length} blocks`);
}
for (const { method, distribution, drop_rate, samples, seed, step, kept } of known.masks) {
  const drawn = masks.draw({
    method, distribution, dropRate: drop_rate, blocks: kept.length, samples, seed: BigInt(seed), step: BigInt(step),
  });
  const digits = drawn.map((block) => block.map(Number).join(""));
  assert.deepEqual(digits, kept, `${method} ${distribution} ${drop_rate}, seed ${seed}, step ${step}`);
}
const counts = ["philox", "thresholds", "rates", "masks"].map((name) => `${known[name].length} ${name}`);
assert.deepEqual(counts, ["5 philox", "10 thresholds", "16 rates", "16 masks"]);
console.log(`${counts.join(", ")}: as the library has them`);
