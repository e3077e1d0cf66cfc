// Histogram of a depth map, far on the left, with two marks that set Far and Near.

const BINS = 128;
const STEP = 0.01;

/** A mark's new value, kept in range and `STEP` away from the other mark. */
export function limited(name, value, { near, far }) {
  const [low, high] = name === "near" ? [far + STEP, 1] : [0, near - STEP];
  return Math.round(Math.min(high, Math.max(low, value)) / STEP) * STEP;
}

/** Heights 0..1 of the bars; square roots, so that a large flat background does not flatten the rest. */
export function heights(bins) {
  const most = Math.sqrt(Math.max(1, ...bins));
  return Array.from(bins, (count) => Math.sqrt(count) / most);
}

export class Histogram {
  /** `change(name, value)` is called as a mark moves. */
  constructor({ document, t, histogram, change }) {
    Object.assign(this, { histogram, change });
    this.root = document.createElement("div");
    this.root.className = "depth2img-histogram";
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("aria-hidden", "true");
    this.root.append(this.canvas);
    this.range = { near: 1, far: 0 };
    this.marks = {};
    for (const name of ["far", "near"]) {
      const mark = document.createElement("div");
      mark.className = `depth2img-mark depth2img-mark-${name}`;
      mark.tabIndex = 0;
      mark.setAttribute("role", "slider");
      mark.setAttribute("aria-label", t(name === "near" ? "Near" : "Far"));
      mark.setAttribute("aria-valuemin", "0");
      mark.setAttribute("aria-valuemax", "1");
      mark.title = t("Drag to set, arrow keys for single steps");
      mark.addEventListener("pointerdown", (event) => {
        mark.setPointerCapture(event.pointerId);
        event.preventDefault();
        mark.focus();
      });
      mark.addEventListener("pointermove", (event) => {
        if (!mark.hasPointerCapture(event.pointerId)) return;
        const box = this.root.getBoundingClientRect();
        this.move(name, (event.clientX - box.left) / box.width);
      });
      mark.addEventListener("keydown", (event) => {
        const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
        const end = { Home: 0, End: 1 }[event.key];
        if (by === undefined && end === undefined) return;
        event.preventDefault();
        this.move(name, end ?? this.range[name] + by * STEP);
      });
      this.marks[name] = mark;
      this.root.append(mark);
    }
    this.place();
  }

  move(name, value) {
    const next = limited(name, value, this.range);
    if (Math.abs(next - this.range[name]) < STEP / 2) return;
    this.range[name] = next;
    this.place();
    this.change(name, next);
  }

  /** The values 0..1 of the map before clipping, and the positions of the marks. */
  show(values, { near = 1, far = 0, invert = false }) {
    if (values !== this.values || invert !== this.inverted) {
      Object.assign(this, { values, inverted: invert, bars: values && heights(this.histogram(values, BINS, invert)) });
    }
    this.range = { near, far };
    this.place();
  }

  place() {
    for (const [name, mark] of Object.entries(this.marks)) {
      mark.style.left = `${this.range[name] * 100}%`;
      mark.setAttribute("aria-valuenow", this.range[name].toFixed(2));
    }
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const ratio = globalThis.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    const context = canvas.getContext("2d");
    if (!this.bars || !context) return;
    const colours = globalThis.getComputedStyle(canvas);
    const width = canvas.width / BINS;
    this.bars.forEach((height, i) => {
      const inside = (i + 1) / BINS > this.range.far && i / BINS < this.range.near;
      context.globalAlpha = inside ? 1 : 0.3;
      context.fillStyle = colours.color;
      context.fillRect(i * width, canvas.height * (1 - height), Math.ceil(width), canvas.height * height);
    });
  }
}
