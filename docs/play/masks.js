// The masks of stochastic depth as the library draws them, as pure functions: for play.js in a browser, by a script tag,
// and for node. include/sd/core/philox.hpp and include/sd/stochastic_depth/{mask,schedule}.hpp are the same in C++; one
// file of known answers, tests/data/play_masks.json, holds both to the same bits.
"use strict";

const masks = (() => {
  /** High and low word of the product of two 32-bit words. A product of halves fits into 32 bits, with a carry too. */
  function product(a, b) {
    const [a0, a1, b0, b1] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
    const middle = a1 * b0 + ((a0 * b0) >>> 16);
    const other = a0 * b1 + (middle & 0xffff);
    return [a1 * b1 + (middle >>> 16) + (other >>> 16), Math.imul(a, b) >>> 0];
  }

  /** Philox4x32-10 (Salmon et al., SC 2011): four words of a counter of four words and a key of two. */
  function philox(counter, key) {
    let [c0, c1, c2, c3] = counter;
    let [k0, k1] = key;
    for (let round = 0; round < 10; ++round) {
      const [high0, low0] = product(0xd2511f53, c0);
      const [high1, low1] = product(0xcd9e8d57, c2);
      [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
      k0 = (k0 + 0x9e3779b9) >>> 0;
      k1 = (k1 + 0xbb67ae85) >>> 0;
    }
    return [c0, c1, c2, c3];
  }

  const word = (number, index) => Number((number >> BigInt(32 * index)) & 0xffffffffn);

  /**
   * Counter and key of a coin: key = (seed low, seed high), counter = (index, block, step bits 0..31, step bits 32..55
   * << 8 | stream), the stream of masks being 0. Seed and step are BigInt.
   */
  function coinWords({ seed, step, block, index }) {
    return {
      counter: [index, block, word(step, 0), ((word(step, 1) & 0xffffff) << 8) >>> 0],
      key: [word(seed, 0), word(seed, 1)],
    };
  }

  /** The coin of (seed, step, block, index): the first word's upper 24 bits. */
  function coin(position) {
    const { counter, key } = coinWords(position);
    return philox(counter, key)[0] >>> 8;
  }

  /** ceil(p 2^24): a coin below it drops. */
  const dropThreshold = (dropRate) => Math.ceil(dropRate * 2 ** 24);

  /** The drop rate of block i of L at full rate r, by the distribution's name. */
  const distributions = {
    uniform: (r) => r,
    linear: (r, i, L) => (L === 1 ? r : (r * i) / (L - 1)),
    linear_huang: (r, i, L) => (r * (i + 1)) / L,
    linear_efficientnet: (r, i, L) => (r * i) / L,
  };

  /** The drop rates of all blocks, in forward order. */
  function dropRates({ distribution, dropRate, blocks }) {
    return Array.from({ length: blocks }, (_, i) => distributions[distribution](dropRate, i, blocks));
  }

  /** The counter's index of a sample's coin: its own, or one for the whole batch. */
  const coinIndex = (method, sample) => (method === "sample" ? sample : 0);

  /** For each block, for each sample of the batch: whether it keeps the branch in training step `step`. */
  function draw({ method, seed, step, samples, ...schedule }) {
    return dropRates(schedule).map((rate, block) => {
      const threshold = dropThreshold(rate);
      const keeps = (sample) => coin({ seed, step, block, index: coinIndex(method, sample) }) >= threshold;
      return Array.from({ length: samples }, (_, sample) => keeps(sample));
    });
  }

  return { philox, coinWords, coin, dropThreshold, distributions, dropRates, coinIndex, draw };
})();

if (typeof module !== "undefined") module.exports = masks;
