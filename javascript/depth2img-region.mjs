// The region: a mask that says where depth counts, painted over the picture or read from the user's file.
// Stored in fractions of the whole picture, so that it stays in place when frame, crop or size change.

const LONGEST = 1024; // pixels of the mask; jobs use it at an eighth of the picture's size

/**
 * The frame's box in a picture: [left, top, right, bottom] in fractions of the picture; outside of 0..1 where the frame
 * is padded. The rules of depth2img/depth/placement.py; `mode` is the number of the resize mode there, `box` the part of
 * "Only masked" in pixels.
 */
export function frameIn([width, height], [across, down], mode, box = null) {
  if (box) {
    const inner = [box[2] - box[0], box[3] - box[1]];
    const part = frameIn(inner, [across, down], 2);
    return part.map((value, i) => (box[i % 2] + value * inner[i % 2]) / (i % 2 ? height : width));
  }
  const ratio = (width * down) / (height * across);
  if (mode === 0 || mode === 3 || Math.abs(ratio - 1) < 0.01) return [0, 0, 1, 1];
  const wide = ratio > 1 === (mode === 1); // the sides are affected, not top and bottom
  const part = wide ? 1 / ratio : ratio;
  return wide ? [(1 - part) / 2, 0, (1 + part) / 2, 1] : [0, (1 - part) / 2, 1, (1 + part) / 2];
}

/** A rectangle in fractions of an outer one -> in fractions of what the outer one lies in. */
export function within(inner, outer) {
  return inner.map((value, i) => outer[i % 2] + value * (outer[2 + (i % 2)] - outer[i % 2]));
}

/** The inverse: 0..1 in fractions of `rectangle`. */
export function inverse(rectangle) {
  return [0, 0, 1, 1].map((value, i) => (value - rectangle[i % 2]) / (rectangle[2 + (i % 2)] - rectangle[i % 2]));
}

/** Opacity 0..1 of RGBA bytes inside a rectangle, as width x height values; edges are repeated outwards. */
export function sampled(rgba, [across, down], [left, top, right, bottom], width, height) {
  const place = (i, count, from, to, limit) => {
    const at = Math.floor((from + ((i + 0.5) / count) * (to - from)) * limit);
    return Math.min(limit - 1, Math.max(0, at));
  };
  const columns = Int32Array.from({ length: width }, (_, x) => place(x, width, left, right, across));
  const result = new Float32Array(width * height);
  for (let y = 0; y < height; y += 1) {
    const row = place(y, height, top, bottom, down) * across;
    for (let x = 0; x < width; x += 1) result[y * width + x] = rgba[(row + columns[x]) * 4 + 3] / 255;
  }
  return result;
}

/** Blend towards the neutral depth (-1 far .. 1 near) outside of the region, in place; values and region 0..1. */
export function confine(values, region, neutral = 0) {
  const middle = (neutral + 1) / 2;
  for (let i = 0; i < values.length; i += 1) values[i] = middle + (values[i] - middle) * region[i];
  return values;
}

export class Region {
  constructor({ document }) {
    this.document = document;
    this.strokes = [];
    this.base = null; // the user's own file: { image, at }
    this.version = 0;
    this.resize(1, 1);
  }

  /** Nothing is painted: depth counts everywhere. */
  get empty() {
    return !this.base && this.strokes.length === 0;
  }

  /** The whole picture's size. */
  resize(width, height) {
    const scale = Math.min(1, LONGEST / Math.max(width, height));
    const size = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
    if (this.canvas && this.canvas.width === size[0] && this.canvas.height === size[1]) return;
    this.canvas = this.document.createElement("canvas");
    [this.canvas.width, this.canvas.height] = size;
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.redraw();
  }

  /** Replace the region by a picture, white = inside; `at` is its box in fractions of the whole picture. */
  load(image, at = [0, 0, 1, 1]) {
    this.strokes = [];
    this.base = image && { image: this.asOpacity(image), at };
    this.redraw();
  }

  /** `size`: of the brush, as a fraction of the shorter side. */
  begin(x, y, { size, erase }) {
    this.strokes.push({ size, erase, full: erase && this.empty, points: [[x, y]] });
    this.draw(this.strokes.at(-1));
  }

  extend(x, y) {
    const stroke = this.strokes.at(-1);
    stroke.points.push([x, y]);
    this.draw({ ...stroke, full: false, points: stroke.points.slice(-2) });
  }

  undo() {
    this.strokes.pop();
    this.redraw();
  }

  clear() {
    this.load(null);
  }

  /** 0 outside .. 1 inside, for the part of the picture that is shown. */
  values(rectangle, width, height) {
    const { width: across, height: down } = this.canvas;
    return sampled(this.context.getImageData(0, 0, across, down).data, [across, down], rectangle, width, height);
  }

  /** As a file: white inside, black outside. */
  toBlob() {
    const copy = this.document.createElement("canvas");
    [copy.width, copy.height] = [this.canvas.width, this.canvas.height];
    const context = copy.getContext("2d");
    context.fillRect(0, 0, copy.width, copy.height);
    context.drawImage(this.canvas, 0, 0);
    return new Promise((resolve) => { copy.toBlob(resolve, "image/png"); });
  }

  redraw() {
    const { width, height } = this.canvas;
    this.context.clearRect(0, 0, width, height);
    if (this.base) {
      const [left, top, right, bottom] = this.base.at;
      this.context.drawImage(this.base.image, left * width, top * height, (right - left) * width, (bottom - top) * height);
    }
    for (const stroke of this.strokes) this.draw(stroke);
    this.version += 1;
  }

  draw({ size, erase, full, points }) {
    const { context } = this;
    const { width, height } = this.canvas;
    context.fillStyle = "#fff";
    context.strokeStyle = "#fff";
    if (full) context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = erase ? "destination-out" : "source-over";
    context.lineWidth = Math.max(1, size * Math.min(width, height));
    context.lineCap = "round";
    context.lineJoin = "round";
    context.beginPath();
    const [first, ...rest] = points.map(([x, y]) => [x * width, y * height]);
    context.moveTo(...first);
    for (const point of rest.length ? rest : [first]) context.lineTo(...point);
    context.stroke();
    context.globalCompositeOperation = "source-over";
    this.version += 1;
  }

  // The mean of the colours is the region's weight; transparent is outside.
  asOpacity(image) {
    const copy = this.document.createElement("canvas");
    const scale = Math.min(1, LONGEST / Math.max(image.naturalWidth, image.naturalHeight));
    copy.width = Math.max(1, Math.round(image.naturalWidth * scale));
    copy.height = Math.max(1, Math.round(image.naturalHeight * scale));
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, copy.width, copy.height);
    const pixels = context.getImageData(0, 0, copy.width, copy.height);
    const { data } = pixels;
    for (let i = 0; i < data.length; i += 4) {
      data[i + 3] = ((data[i] + data[i + 1] + data[i + 2]) / 3) * (data[i + 3] / 255);
      data.fill(255, i, i + 3);
    }
    context.putImageData(pixels, 0, 0);
    return copy;
  }
}

const OUTSIDE = 0.7; // how dark the picture is where depth does not count

/**
 * Paint on a canvas that shows the picture. `ui`: makes elements; `picture()`: the picture to draw, null for none;
 * `changed(done)`: called while painting, and with true at the end of a stroke.
 */
export class Painter {
  constructor({ document, canvas, ui, picture, changed }) {
    Object.assign(this, { canvas, ui, picture, changed });
    this.region = new Region({ document });
    this.rectangle = [0, 0, 1, 1]; // what is shown, in parts of the whole picture
    this.brush = 0.15; // a part of the shown picture's shorter side
    this.erase = false;
    this.pointer = null;
    this.shade = document.createElement("canvas");
    this.listen();
  }

  /** A key that changes with the region. */
  get version() {
    return `${this.region.version} ${this.rectangle}`;
  }

  /** A new picture or frame. `placement`: sizes, resize mode, box; `shown`: the part that is shown, null for the frame. */
  show(placement, shown) {
    this.placement = placement;
    this.rectangle = shown ?? frameIn(placement.picture, placement.frame, placement.resize_mode, placement.box);
    this.region.resize(...placement.picture);
    if (this.image) this.setFile(this.image);
  }

  /** The user's own region file, an image; null for none. */
  setFile(image) {
    this.image = image;
    const { picture, frame, resize_mode: mode, box } = this.placement ?? {};
    if (!image || !picture) return this.replace(null);
    const size = [image.naturalWidth, image.naturalHeight];
    // "Only masked" brings the file to the picture; otherwise it is brought to the frame as the picture is.
    const at = inverse(frameIn(size, box ? picture : frame, mode));
    return this.replace(image, box ? at : within(at, frameIn(picture, frame, mode)));
  }

  /** The region as a file (the promise of a Blob), null if depth counts everywhere. */
  file() {
    return this.region.empty ? null : this.region.toBlob();
  }

  /** Values 0..1 of the shown map, in place: neutral where depth does not count. */
  confine(values, width, height, neutral) {
    if (!this.region.empty) confine(values, this.region.values(this.rectangle, width, height), neutral);
  }

  /** Brush, eraser and the rest. */
  tools(parent) {
    const range = { min: 0.02, max: 0.5, step: 0.01, value: this.brush };
    this.ui.slider("Brush", parent, range, (value) => { this.brush = value; });
    this.ui.check("Erase", parent, (on) => { this.erase = on; });
    for (const [title, action] of [["Undo", "undo"], ["Clear", "clear"]]) {
      this.ui.button(title, parent, () => {
        if (this.region.empty) return;
        this.region[action]();
        this.finish();
      });
    }
  }

  draw() {
    const { canvas, shade } = this;
    const source = this.picture();
    if (!source || canvas.hidden) return;
    [canvas.width, canvas.height] = [source.naturalWidth ?? source.width, source.naturalHeight ?? source.height];
    const context = canvas.getContext("2d");
    context.drawImage(source, 0, 0);
    if (!this.region.empty) {
      [shade.width, shade.height] = [canvas.width, canvas.height];
      const inside = this.region.values(this.rectangle, canvas.width, canvas.height);
      const pixels = new ImageData(canvas.width, canvas.height);
      inside.forEach((value, i) => { pixels.data[i * 4 + 3] = (1 - value) * OUTSIDE * 255; });
      shade.getContext("2d").putImageData(pixels, 0, 0);
      context.drawImage(shade, 0, 0);
    }
    if (this.over) this.drawBrush(context);
  }

  // --- inside

  replace(image, at) {
    this.region.load(image, at);
    this.draw();
  }

  finish() {
    this.image = null; // from now on it is a part of what is painted
    this.draw();
    this.changed(true);
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      canvas.setPointerCapture(event.pointerId);
      this.pointer = event.pointerId;
      this.region.begin(...this.at(event), { size: this.size(), erase: this.erase });
      this.draw();
      this.changed(false);
    });
    canvas.addEventListener("pointermove", (event) => {
      this.over = this.at(event);
      if (event.pointerId === this.pointer) {
        const passed = event.getCoalescedEvents?.() ?? [];
        for (const one of passed.length ? passed : [event]) this.region.extend(...this.at(one));
      }
      this.draw();
    });
    canvas.addEventListener("pointerleave", () => { this.over = null; this.draw(); });
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => {
        if (event.pointerId !== this.pointer) return;
        this.pointer = null;
        this.finish();
      });
    }
  }

  /** Pointer position in fractions of the whole picture. */
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const point = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return within([...point, ...point], this.rectangle).slice(0, 2);
  }

  /** The brush as a fraction of the whole picture's shorter side. */
  size() {
    const [left, top, right, bottom] = this.rectangle;
    const { width, height } = this.region.canvas;
    return (this.brush * Math.min((right - left) * width, (bottom - top) * height)) / Math.min(width, height);
  }

  drawBrush(context) {
    const { width, height } = this.canvas;
    const [x, y] = within([...this.over, ...this.over], inverse(this.rectangle));
    const radius = (this.brush * Math.min(width, height)) / 2;
    context.beginPath();
    context.arc(x * width, y * height, radius, 0, 2 * Math.PI);
    for (const [colour, thickness] of [["#000", 3], ["#fff", 1]]) {
      context.strokeStyle = colour;
      context.lineWidth = (thickness * width) / Math.max(1, this.canvas.clientWidth);
      context.stroke();
    }
  }
}
