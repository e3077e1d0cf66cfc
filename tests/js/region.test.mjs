import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import test from "node:test";

import { confine, frameIn, inverse, sampled, within } from "../../javascript/depth2img-region.mjs";
import { python, root } from "./python.mjs";

const CASES = [
  { picture: [300, 200], frame: [512, 512], mode: 0, box: null },
  { picture: [300, 200], frame: [512, 512], mode: 1, box: null },
  { picture: [300, 200], frame: [512, 512], mode: 2, box: null },
  { picture: [200, 300], frame: [768, 512], mode: 1, box: null },
  { picture: [200, 300], frame: [768, 512], mode: 2, box: null },
  { picture: [300, 200], frame: [640, 512], mode: 3, box: null },
  { picture: [300, 200], frame: [512, 512], mode: 1, box: [40, 20, 200, 180] },
  { picture: [300, 200], frame: [512, 512], mode: 0, box: [0, 50, 300, 200] },
];

// Maps whose values are their own x and y, brought into the frame by the library: what is left of them says where it lies.
const LIBRARY = `
import json, sys
import numpy as np
from depth2img import DepthMap
from depth2img.depth import placement
answers = []
for case in json.loads(sys.argv[1]):
    (wide, high), (width, height), box = case["picture"], case["frame"], case["box"]
    ends = []
    for values in np.meshgrid(np.arange(wide) + 0.5, np.arange(high) + 0.5):
        depth = DepthMap(values.astype(np.float32))
        if box:
            depth = placement.crop(depth, picture_size=(wide, high), box=tuple(box))
        mode = placement.ResizeMode(2 if box else case["mode"])
        part = placement.fit(depth, width=width, height=height, resize_mode=mode)
        ends.append([*part.range, part.width, part.height])
    answers.append(ends)
print(json.dumps(answers))
`;

test("the frame lies in the picture where the library says", () => {
  const text = execFileSync(python, ["-c", LIBRARY, JSON.stringify(CASES)], { cwd: root, env: { ...process.env, PYTHONPATH: root } });
  JSON.parse(text).forEach((ends, number) => {
    const { picture, frame, mode, box } = CASES[number];
    const found = frameIn(picture, frame, mode, box);
    for (const axis of [0, 1]) {
      const side = picture[axis];
      const [first, last] = box ? [box[axis] / side, box[axis + 2] / side] : [0, 1];
      const [low, high] = [Math.max(first, found[axis]), Math.min(last, found[axis + 2])]; // edges are repeated beyond
      assert.ok(Math.abs(ends[axis][0] - 0.5 - low * side) <= 1, `${JSON.stringify(CASES[number])}: ${found}`);
      assert.ok(Math.abs(ends[axis][1] + 0.5 - high * side) <= 1, `${JSON.stringify(CASES[number])}: ${found}`);
      assert.ok(Math.abs((found[axis + 2] - found[axis]) * side - ends[axis][2 + axis]) <= 1, `size, ${found}`);
    }
  });
});

test("rectangles in rectangles, and back", () => {
  assert.deepEqual(within([0, 0, 0.5, 1], [0.5, 0, 1, 0.5]), [0.5, 0, 0.75, 0.5]);
  assert.deepEqual(inverse([0.25, 0, 0.75, 1]), [-0.5, 0, 1.5, 1]);
  const [outer, inner] = [[0.1, 0.2, 0.7, 0.9], [0.3, 0.3, 0.4, 0.5]];
  within(within(inner, outer), inverse(outer)).forEach((value, i) => assert.ok(Math.abs(value - inner[i]) < 1e-12));
});

test("a region is read from its opacity; beyond the edges the edge is repeated", () => {
  const rgba = new Uint8Array(2 * 2 * 4);
  [0, 255, 51, 102].forEach((value, i) => { rgba[i * 4 + 3] = value; });
  const near = (got, wanted) => got.forEach((value, i) => assert.ok(Math.abs(value - wanted[i]) < 1e-6));
  near(sampled(rgba, [2, 2], [0, 0, 1, 1], 2, 2), [0, 1, 0.2, 0.4]);
  near(sampled(rgba, [2, 2], [-1, 0, 2, 1], 3, 1), [0.2, 0.4, 0.4]);
});

test("outside of the region depth is neutral", () => {
  assert.deepEqual([...confine(new Float32Array([0, 1, 1, 0]), new Float32Array([1, 1, 0, 0.5]))], [0, 1, 0.5, 0.25]);
  assert.deepEqual([...confine(new Float32Array([1]), new Float32Array([0]), -1)], [0]);
});
