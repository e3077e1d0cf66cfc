import assert from "node:assert/strict";
import test from "node:test";

import { heights, limited } from "../../javascript/depth2img-histogram.mjs";
import { encodeGrey16 } from "../../javascript/depth2img-png.mjs";
import { pixelBox } from "../../javascript/depth2img-result.mjs";
import { escaped, filled } from "../../javascript/depth2img-share.mjs";
import { contained, goodSize } from "../../javascript/depth2img-stage.mjs";
import { bufferSize, direction, eased, stepsFor, tilted } from "../../javascript/depth2img-viewer.mjs";
import { badgeText, fingerprint, t } from "../../javascript/depth2img.mjs";

test("easing approaches the target and arrives at it exactly", () => {
  let value = 0;
  for (let i = 0; i < 200; i += 1) {
    const next = eased(value, 1, 1 / 60);
    assert.ok(next >= value && next <= 1);
    value = next;
  }
  assert.equal(value, 1);
  assert.ok(Math.abs(eased(eased(0, 1, 0.05), 1, 0.05) - eased(0, 1, 0.1)) < 1e-12); // whatever the frame rate
});

test("pointer positions are counted from the middle and limited", () => {
  const box = { left: 10, top: 20, width: 200, height: 100 };
  assert.deepEqual(direction(110, 70, box), [0, 0]);
  assert.deepEqual(direction(155, 70, box), [1, 0]);
  assert.deepEqual(direction(210, 20, box), [1, -1]);
});

test("tilt counts from how the device was held, and turns with the screen", () => {
  assert.deepEqual(tilted([10, 40], [10, 40], 0), [0, 0]);
  assert.deepEqual(tilted([20, 45], [10, 40], 0), [0.5, 0.25]);
  assert.deepEqual(tilted([90, -90], [10, 40], 0), [1, -1]);
  // Turned to the left, the right side of the screen is the lower end of the device: it sinks as beta grows.
  assert.deepEqual(tilted([10, 50], [10, 40], 90).map((value) => value + 0), [0.5, 0]);
  assert.deepEqual(tilted([10, 50], [10, 40], 270).map((value) => value + 0), [-0.5, 0]);
  assert.deepEqual(tilted([20, 40], [10, 40], 180).map((value) => value + 0), [-0.5, 0]);
  assert.deepEqual(tilted([0, 179], [0, -179], 0).map((value) => value + 0), [0, -0.1]); // two degrees, not 358
});

test("the walk takes a step per two and a half pixels, within bounds", () => {
  assert.equal(stepsFor([0, 0], 512, 512), 4);
  assert.equal(stepsFor([0.03, 0.04], 512, 512), 11);
  assert.equal(stepsFor([1, 1], 512, 512), 24);
});

test("the drawing buffer is never larger than picture, place or graphics card", () => {
  assert.deepEqual(bufferSize({ width: 512, height: 256 }, { width: 1000 }, 2, 8192), [512, 256]);
  assert.deepEqual(bufferSize({ width: 512, height: 256 }, { width: 256 }, 1, 8192), [256, 128]);
  assert.deepEqual(bufferSize({ width: 512, height: 256 }, { width: 512 }, 1, 128), [128, 64]);
});

test("marks stay in range and apart", () => {
  assert.equal(limited("near", 1.4, { near: 1, far: 0.2 }), 1);
  assert.ok(Math.abs(limited("near", 0, { near: 1, far: 0.2 }) - 0.21) < 1e-9);
  assert.ok(Math.abs(limited("far", 0.9, { near: 0.5, far: 0.2 }) - 0.49) < 1e-9);
});

test("bars are between 0 and 1", () => {
  assert.deepEqual(heights([0, 25, 100]), [0, 0.5, 1]);
  assert.deepEqual(heights([0, 0]), [0, 0]);
});

test("the nearest good size keeps proportions and a side of the model's own", () => {
  assert.equal(goodSize(512, 900), null);
  assert.deepEqual(goodSize(1024, 768), [704, 512]);
  assert.deepEqual(goodSize(600, 900), [512, 768]);
  assert.deepEqual(goodSize(300, 300, 128), [128, 128]);
  assert.equal(goodSize(Number.NaN, 512), null);
});

test("pictures are shown whole", () => {
  assert.deepEqual(contained(200, 100, { width: 100, height: 100 }), [100, 50]);
  assert.deepEqual(contained(100, 200, { width: 100, height: 100 }), [50, 100]);
});

test("a box is whole pixels inside the map", () => {
  assert.deepEqual(pixelBox([0.25, 0.5, 0.75, 1], 96, 64), [24, 32, 72, 64]);
  assert.deepEqual(pixelBox([1, 1, 1, 1], 96, 64), [95, 63, 96, 64]);
});

test("a 16-bit PNG says what it is", async () => {
  const blob = await encodeGrey16(new Float32Array([0, 0.5, 1, 1]), 2, 2);
  const bytes = new Uint8Array(await blob.arrayBuffer());
  assert.deepEqual([...bytes.slice(1, 4)], [80, 78, 71]);
  assert.deepEqual([...bytes.slice(16, 26)], [0, 0, 0, 2, 0, 0, 0, 2, 16, 0]);
});

test("what enters a shared page is text, and is not looked through again", () => {
  assert.equal(escaped(`<b a="1">&'`), "&lt;b a=&quot;1&quot;&gt;&amp;&#x27;");
  assert.equal(filled("@TITLE@ @DEPTH@ @OTHER@ @TITLE@", { TITLE: "@DEPTH@", DEPTH: "$&" }), "@DEPTH@ $& @OTHER@ @DEPTH@");
});

test("texts", () => {
  assert.equal(badgeText("ready"), "");
  assert.equal(badgeText("unheard of"), "");
  assert.match(badgeText("wrong"), /depth checkpoint/);
  globalThis.localization = { Depth: "Tiefe" };
  assert.equal(t("Depth"), "Tiefe");
  assert.equal(t("Picture"), "Picture");
});

test("pictures of the same length have different fingerprints", () => {
  assert.notEqual(fingerprint("a".repeat(1000) + "b"), fingerprint("a".repeat(1000) + "c"));
});
