import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";

import * as maths from "../../javascript/depth2img-adjust.mjs";
import { python, root } from "./python.mjs";

const CASES = [
  {},
  { invert: true },
  { near: 0.7, far: 0.2 },
  { near: 0.35, far: 0.34 },
  { gamma: 10 },
  { gamma: 0.1 },
  { blur: 0.4 },
  { blur: 2 },
  { blur: 5.3 },
  { blur: 10 },
  { near: 0.8, far: 0.1, gamma: 2.2, blur: 3, invert: true },
];

const SERVER = `
import json, sys
import cv2
import numpy as np
from depth2img import DepthMap, DepthOptions, adjust
from depth2img.gui.view import encode_map
folder = sys.argv[1]
random = np.random.default_rng(7)
height, width = 211, 320
y, x = np.mgrid[:height, :width]
scene = 3 + y / height + np.where((x - 100) ** 2 + (y - 90) ** 2 < 3000, 2.0, 0) + (x > 250) * 1.5
depth = DepthMap(scene + random.normal(0, 0.02, scene.shape))
open(folder + "/map.rgb", "wb").write(
    cv2.cvtColor(cv2.imdecode(np.frombuffer(encode_map(depth, *depth.range), np.uint8), 1), cv2.COLOR_BGR2RGBA).tobytes())
cases = json.load(open(folder + "/cases.json"))
adjusted = [adjust(depth, DepthOptions(**case)) for case in cases]
np.stack([one.normalised() if not cases[i] else one.values for i, one in enumerate(adjusted)]).astype("<f4").tofile(folder + "/adjusted")
np.stack([np.asarray(one.to_image())[:, :, 0] for one in adjusted]).tofile(folder + "/shown")
`;

test("the browser shows what the server computes, within 2/255", () => {
  const folder = mkdtempSync(join(tmpdir(), "depth2img-"));
  try {
    writeFileSync(join(folder, "cases.json"), JSON.stringify(CASES));
    execFileSync(python, ["-c", SERVER, folder], { cwd: root, env: { ...process.env, PYTHONPATH: root } });
    const [width, height] = [320, 211];
    const values = maths.decode(readFileSync(join(folder, "map.rgb")));
    const bytes = readFileSync(join(folder, "adjusted"));
    const wanted = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    const shown = readFileSync(join(folder, "shown"));
    CASES.forEach((settings, number) => {
      const from = number * width * height;
      const got = maths.adjust(values, width, height, settings);
      let worst = 0;
      for (let i = 0; i < got.length; i += 1) worst = Math.max(worst, Math.abs(got[i] - wanted[from + i]));
      assert.ok(worst <= 2 / 255, `${JSON.stringify(settings)}: adjusted, ${(worst * 255).toFixed(2)}/255 apart`);
      maths.stretch(got);
      let apart = 0;
      for (let i = 0; i < got.length; i += 1) apart = Math.max(apart, Math.abs(Math.round(got[i] * 255) - shown[from + i]));
      assert.ok(apart <= 2, `${JSON.stringify(settings)}: shown, ${apart}/255 apart`);
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a flat map is the neutral middle", () => {
  assert.deepEqual([...maths.stretch(new Float32Array([0.25, 0.25]))], [0.5, 0.5]);
});

test("strength goes from nothing to the whole map", () => {
  assert.deepEqual([...maths.weaken(new Float32Array([0, 1]), 0)], [0.5, 0.5]);
  assert.deepEqual([...maths.weaken(new Float32Array([0, 1]), 0.5)], [0.25, 0.75]);
  assert.deepEqual([...maths.weaken(new Float32Array([0, 1]), 0.5, -1)], [0, 0.5]);
  assert.deepEqual([...maths.weaken(new Float32Array([0, 1]), 1)], [0, 1]);
});

test("the histogram counts every value once, the ends included", () => {
  const values = new Float32Array([0, 0.1, 0.5, 0.99, 1]);
  assert.deepEqual([...maths.histogram(values, 4)], [2, 0, 1, 2]);
  assert.deepEqual([...maths.histogram(values, 4, true)], [2, 0, 1, 2]);
  assert.deepEqual([...maths.histogram(new Float32Array([0.1]), 4, true)], [0, 0, 0, 1]);
});

test("the near side grows, the far side does not", () => {
  const values = new Float32Array(49).fill(0);
  values[24] = 1; // the middle of 7 x 7
  const bytes = maths.dilated(values, 7, 7, 2);
  const near = (i) => (bytes[2 * i] * 256 + bytes[2 * i + 1]) / 65535;
  assert.ok(near(24) > 0.8 && near(23) > 0.8 && near(17) > 0.8);
  assert.ok(near(0) < near(8) && near(8) < near(16));
});

test("what is written as a map is read as one, at 16 bits", () => {
  const values = Float32Array.from({ length: 1000 }, (_, i) => i / 999);
  maths.decode(maths.encode(values)).forEach((value, i) => {
    assert.ok(Math.abs(value - Math.round(values[i] * 65535) / 65535) < 1e-6); // float32
  });
});

test("colours come from the table", () => {
  const table = new Uint8Array(768);
  table.set([1, 2, 3], 0);
  table.set([7, 8, 9], 765);
  assert.deepEqual([...maths.colourise(new Float32Array([0, 1]), table)], [1, 2, 3, 255, 7, 8, 9, 255]);
});
