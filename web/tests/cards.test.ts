import assert from "node:assert/strict";
import { test } from "node:test";
import { withoutCards } from "../src/cards.ts";

// Numbers that card companies publish for tests; the last has 19 digits.
const CARDS = [
  "4111111111111111",
  "4222222222222",
  "378282246310005",
  "30569309025904",
  "6011111111111117",
  "5555555555554444",
  "3530111333300000",
  "6304000000000000000",
];

const grouped = (card: string, by: string): string => card.replace(/(\d{4})(?=\d)/g, `$1${by}`);

test("no card leaves the page, however it is written", () => {
  for (const card of CARDS) {
    for (const by of ["", " ", "-", ".", " - ".slice(1), "\u2013", "   ", "_", "/", ", ", "\u2011", "\u200b"]) {
      const left = withoutCards(`pay with ${grouped(card, by)} please`);
      assert.equal(left.replace(/\s+/g, " "), "pay with please", `${card} by "${by}"`);
    }
  }
});

test("a card between other digits goes with them", () => {
  assert.equal(withoutCards("12 4111111111111111 34"), "");
  assert.equal(withoutCards("9994111111111111111999"), "");
});

test("what is no card stays", () => {
  for (const text of ["oat milk 1.5 l", "1111111111111", "2024-11-20 12:30", "555 12 34", "", "1234567890123"]) {
    assert.equal(withoutCards(text), text);
  }
});
