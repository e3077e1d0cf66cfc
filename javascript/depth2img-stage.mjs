// The stage: preview, hover view, comparison and histogram of one panel. Knows the page only through its arguments.

const MODES = { depth: "Depth", picture: "Picture", hover: "Hover view", compare: "Compare", region: "Region" };

/** The nearest size with the same proportions whose shorter side is the model's own; null if one side already is. */
export function goodSize(width, height, side = 512, step = 64) {
  if (!(width > 0 && height > 0) || width === side || height === side) return null;
  const scale = side / Math.min(width, height);
  const rounded = (length) => Math.min(2048, Math.max(step, Math.round((length * scale) / step) * step));
  return width <= height ? [side, rounded(height)] : [rounded(width), side];
}

/** Largest size with the given proportions inside a box. */
export function contained(width, height, box) {
  const scale = Math.min(box.width / width, box.height / height);
  return [width * scale, height * scale];
}

/**
 * `parts`: the other modules; `config`: the server's description of the panel; `t`: text -> text in the user's language;
 * `read`: the values of the controls; `write(name, value)`: sets one; `result`: address of the latest result's picture;
 * `interrupt`: called by the button of that name; `paint(blob)`: takes the painted region as a file, null for none;
 * `sample()`: puts the sample scene into the page.
 */
export class Stage {
  constructor({ document, parts, config, t, read, write, result, interrupt, paint, sample }) {
    Object.assign(this, { document, parts, config, t, read, write, interrupt, sample, keepRegion: paint });
    this.result = new parts.result.Result({ document, address: result });
    this.tables = Object.fromEntries(
      Object.entries(config.colour_maps).map(([name, text]) => [name, Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]),
    );
    this.motion = globalThis.matchMedia?.("(prefers-reduced-motion: reduce)");
    this.mode = "depth";
    this.ui = new parts.elements.Elements({ document, t });
    this.build();
  }

  // --- called by the page

  /** A new preview from the server. */
  async show(content) {
    this.working(false);
    this.root.dataset.shown = "";
    if (!content.depth) {
      if (!this.values) this.hint(this.config.hint);
      this.root.dataset.failed = content.error ? "yes" : "";
      this.root.dataset.shown = content.id;
      return;
    }
    const [depth, picture, whole] = await Promise.all([content.depth, content.picture, content.whole].map(this.parts.result.imageAt));
    const [width, height] = content.size;
    this.content = content;
    this.pictures = { picture, whole };
    this.values = this.parts.adjust.decode(pixels(this.document, depth));
    this.wholeSize = [width, height];
    this.box = content.cut ? this.parts.result.pixelBox(content.box, width, height) : null;
    const shown = this.box ? [this.box[2] - this.box[0], this.box[3] - this.box[1]] : this.wholeSize;
    Object.assign(this, { width: shown[0], height: shown[1], settings: null });
    this.frame = picture ? [picture.naturalWidth, picture.naturalHeight] : shown;
    this.root.dataset.failed = "";
    this.hint("");
    const everything = { picture: this.frame, frame: this.frame, resize_mode: 0, box: null };
    this.painter.show(content.placement ?? everything, content.cut ? content.box : null);
    this.inset();
    this.offer(content.inverted ? "inverted" : "");
    this.stale(false);
    await this.fetchResult();
    this.update();
    this.root.dataset.shown = content.id;
  }

  /** Called whenever a control may have changed; cheap if none has. */
  update() {
    if (!this.values) return;
    const settings = this.read();
    const key = JSON.stringify([settings, this.painter.version]);
    if (key === this.settings) return;
    this.settings = key;
    const { weaken } = this.parts.adjust;
    this.adjusted = this.cut(weaken(this.wholeAdjusted(settings), settings.strength, settings.neutral));
    this.painter.confine(this.adjusted, this.width, this.height, settings.neutral);
    this.histogram.show(this.values, settings);
    this.relief = null;
    if (settings.invert) this.offer("");
    this.paint();
  }

  wholeAdjusted(settings) {
    const { adjust, stretch } = this.parts.adjust;
    return stretch(adjust(this.values, ...this.wholeSize, settings));
  }

  /** The part of a whole map that enters the sampler; the box of "only masked" keeps the whole map's range. */
  cut(values) {
    if (!this.box) return values;
    const [left, top] = this.box;
    const part = new Float32Array(this.width * this.height);
    for (let y = 0; y < this.height; y += 1) {
      const start = (top + y) * this.wholeSize[0] + left;
      part.set(values.subarray(start, start + this.width), y * this.width);
    }
    return part;
  }

  working(on) {
    this.root.dataset.working = on ? "yes" : "";
    clearInterval(this.timer);
    if (!on) return;
    const start = Date.now();
    const tell = () => { this.clock.textContent = `${((Date.now() - start) / 1000).toFixed(0)} s`; };
    tell();
    this.timer = setInterval(tell, 500);
  }

  stale(on) {
    this.notes.stale.hidden = !(on && this.values);
  }

  sizeHint(size) {
    this.notes.size.hidden = !size;
    if (size) {
      this.notes.sizeText.textContent = this.t("Neither side is the model's own size. Better:");
      this.notes.sizeButton.textContent = `${size[0]} x ${size[1]}`;
      this.notes.sizeButton.onclick = () => { this.write("width", size[0]); this.write("height", size[1]); };
    }
  }

  /** Offer to invert a map that looks upside down; it is never inverted unasked. */
  offer(what) {
    this.notes.inverted.hidden = what !== "inverted";
  }

  async resultChanged() {
    await this.fetchResult();
    if (this.mode === "compare" || this.mode === "hover") this.paint();
  }

  /** Get the result that the shown map made, if it is the map of a job. */
  async fetchResult() {
    const { content } = this;
    const made = content?.result ? await this.result.picture(content.box) : null;
    if (content !== this.content) return;
    this.made = made;
    this.relief = null;
    this.over.disabled = !made;
  }

  /** What the hover view shows as a relief: the result that the map made, unless the input is wanted. */
  get relieved() {
    return (this.over.checked && this.made) || this.pictures.picture || this.depthPicture();
  }

  /** The user's own region file: its address, null for none. */
  async setRegion(url) {
    const image = await this.parts.result.imageAt(url);
    this.notes.region.hidden = !url || Boolean(image);
    this.painter.setFile(image);
    this.update();
  }

  regionPainted(done) {
    this.notes.region.hidden = true;
    if (!done) return;
    this.update();
    this.keepRegion(this.painter.file());
  }

  // --- drawing

  paint() {
    if (!this.values) return;
    const { flat, viewer, mode } = this;
    const hover = mode === "hover" && viewer.usable;
    flat.hidden = hover || mode === "compare" || mode === "region";
    viewer.canvas.hidden = !hover;
    this.canvas.hidden = mode !== "region";
    this.notes.webgl.hidden = mode !== "hover" || hover;
    this.wipe.hidden = mode !== "compare";
    this.layout();
    viewer.show(hover);
    if (hover) this.paintHover();
    else if (mode === "compare") this.paintComparison();
    else if (mode === "region") this.painter.draw();
    else this.paintFlat(flat, mode === "picture" && this.pictures.picture ? "picture" : "depth");
    this.root.dataset.painted = mode;
  }

  paintFlat(canvas, what) {
    const context = canvas.getContext("2d");
    if (what === "depth") {
      canvas.width = this.width;
      canvas.height = this.height;
      const rgba = this.parts.adjust.colourise(this.adjusted, this.tables[this.colours.value]);
      context.putImageData(new ImageData(rgba, this.width, this.height), 0, 0);
    } else {
      const source = this.pictures[what];
      canvas.width = source.naturalWidth;
      canvas.height = source.naturalHeight;
      context.drawImage(source, 0, 0);
    }
  }

  paintHover() {
    if (this.relief !== this.adjusted) {
      const bytes = this.parts.adjust.dilated(this.adjusted, this.width, this.height);
      this.viewer.load(this.relieved, bytes, this.width, this.height);
      this.relief = this.adjusted;
    }
    this.viewer.draw();
  }

  depthPicture() {
    const canvas = this.document.createElement("canvas");
    this.paintFlat(canvas, "depth");
    return canvas;
  }

  async paintComparison() {
    for (const [side, select] of Object.entries(this.sides)) {
      const canvas = this.wipe.querySelector(`.depth2img-${side}`);
      if (select.value === "result") await this.paintResult(canvas);
      else this.paintFlat(canvas, select.value === "picture" && !this.pictures.picture ? "depth" : select.value);
    }
    this.wipe.style.setProperty("--depth2img-wipe", `${this.wiper.value}%`);
  }

  async paintResult(canvas) {
    const image = await this.result.picture(this.content.box);
    if (!image) return this.paintFlat(canvas, this.pictures.picture ? "picture" : "depth");
    canvas.width = image.width;
    canvas.height = image.height;
    canvas.getContext("2d").drawImage(image, 0, 0);
    return undefined;
  }

  layout() {
    const box = this.view.getBoundingClientRect();
    if (!box.width || !this.frame) return;
    const size = contained(...this.frame, box);
    for (const element of [this.flat, this.viewer.canvas, this.wipe, this.canvas]) {
      element.style.width = `${size[0]}px`;
      element.style.height = `${size[1]}px`;
    }
  }

  /** The small whole picture with the part that is repainted. */
  inset() {
    const { whole } = this.pictures;
    this.small.hidden = !whole;
    if (!whole) return;
    const [left, top, right, bottom] = this.content.box;
    const { naturalWidth: width, naturalHeight: height } = whole;
    this.small.width = width;
    this.small.height = height;
    const context = this.small.getContext("2d");
    context.globalAlpha = 0.5;
    context.drawImage(whole, 0, 0);
    context.globalAlpha = 1;
    const box = [left * width, top * height, (right - left) * width, (bottom - top) * height];
    context.drawImage(whole, ...box, ...box);
    context.strokeStyle = "#ff0";
    context.lineWidth = 2;
    context.strokeRect(box[0] + 1, box[1] + 1, box[2] - 2, box[3] - 2);
  }

  // --- user input

  setMode(mode) {
    this.mode = mode;
    this.root.dataset.mode = mode;
    for (const [name, radio] of Object.entries(this.modes)) radio.checked = name === mode;
    this.paint();
  }

  /** Value of the map at a point of the stage: [0..1 as adjusted, as estimated]; null outside. */
  valueAt(x, y) {
    if (!this.values) return null;
    const shown = [this.flat, this.viewer.canvas, this.wipe, this.canvas].find((element) => !element.hidden);
    const box = shown.getBoundingClientRect();
    const column = Math.floor(((x - box.left) / box.width) * this.width);
    const row = Math.floor(((y - box.top) / box.height) * this.height);
    if (column < 0 || row < 0 || column >= this.width || row >= this.height) return null;
    const [left, top] = this.box ?? [0, 0];
    const [low, high] = this.content.range;
    const estimated = this.values[(top + row) * this.wholeSize[0] + left + column];
    return [this.adjusted[row * this.width + column], low + estimated * (high - low)];
  }

  probe(event) {
    const found = this.valueAt(event.clientX, event.clientY);
    this.reading.textContent = found ? `${found[0].toFixed(2)} (${Number(found[1].toPrecision(5))})` : "";
  }

  focusAt(event) {
    const found = this.valueAt(event.clientX, event.clientY);
    if (!found) return;
    this.focus.value = found[0];
    this.viewer.set({ focus: Number(this.focus.value) });
  }

  async save() {
    if (!this.adjusted) return;
    const values = this.wholeAdjusted(this.read());
    this.download(await this.parts.png.encodeGrey16(values, ...this.wholeSize), "depth.png");
  }

  async record(button) {
    this.setMode("hover");
    if (!this.viewer.usable) return;
    button.disabled = true;
    try {
      const film = await this.viewer.record(3, (part) => { this.reading.textContent = `${Math.round(part * 100)} %`; });
      this.download(film, `depth.${film.type.endsWith("mp4") ? "mp4" : "webm"}`);
    } catch (problem) {
      this.reading.textContent = this.t(problem.message);
    } finally {
      button.disabled = false;
    }
  }

  /** Save the hover view, as it is shown, as a page of its own. */
  share() {
    if (!this.adjusted) return;
    const { adjusted: values, width, height, document, config } = this;
    const { strength: movement, focus } = this.viewer.settings;
    const depth = this.parts.adjust.encode(values);
    const view = { document, title: this.t("Hover view"), picture: this.relieved, depth, width, height, movement, focus };
    this.download(this.parts.share.shared(config.share, view), "hover-view.html");
  }

  download(blob, name) {
    const link = this.document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  // --- making the elements

  build() {
    const { t } = this;
    this.root = this.ui.make("div", "depth2img-stage-inside");
    this.root.dataset.mode = this.mode;
    this.view = this.ui.make("div", "depth2img-view", this.root);
    this.flat = this.ui.make("canvas", "depth2img-flat", this.view);
    this.flat.setAttribute("role", "img");
    this.flat.setAttribute("aria-label", t("Depth map (white = near)"));
    this.flat.hidden = true;
    this.buildViewer();
    this.wipe = this.ui.make("div", "depth2img-wipe", this.view);
    this.wipe.hidden = true;
    this.ui.make("canvas", "depth2img-left", this.wipe).setAttribute("aria-hidden", "true");
    this.ui.make("canvas", "depth2img-right", this.wipe).setAttribute("aria-hidden", "true");
    this.buildRegion();
    this.small = this.ui.make("canvas", "depth2img-inset", this.view);
    this.small.hidden = true;
    this.small.setAttribute("role", "img");
    this.small.setAttribute("aria-label", t("The part of the picture that is worked on"));
    this.reading = this.ui.make("div", "depth2img-reading", this.view);
    this.empty = this.ui.make("div", "depth2img-empty", this.view);
    this.emptyText = this.ui.make("p", "", this.empty);
    this.ui.button("Try the sample scene", this.empty, () => this.sample());
    this.hint(this.config.hint);
    const busy = this.ui.make("div", "depth2img-busy", this.view);
    busy.setAttribute("role", "status");
    this.ui.make("span", "depth2img-spinner", busy);
    this.ui.make("span", "", busy).textContent = t("Estimating depth");
    this.clock = this.ui.make("span", "", busy);
    this.ui.button("Interrupt", busy, () => this.interrupt());
    this.view.addEventListener("pointermove", (event) => this.probe(event));
    this.view.addEventListener("pointerleave", () => { this.reading.textContent = ""; });
    this.buildBars();
    this.histogram = new this.parts.histogram.Histogram({
      document: this.document, t, histogram: this.parts.adjust.histogram,
      change: (name, value) => { this.write(name, value); this.update(); },
    });
    this.root.append(this.histogram.root);
    this.buildNotes();
    if (globalThis.ResizeObserver) {
      new ResizeObserver(() => { this.layout(); this.histogram.draw(); if (this.mode === "hover") this.viewer.draw(); }).observe(this.view);
    }
  }

  buildViewer() {
    this.viewer = new this.parts.viewer.Viewer({ document: this.document, reducedMotion: () => Boolean(this.motion?.matches) });
    const { canvas } = this.viewer;
    canvas.className = "depth2img-hover";
    canvas.hidden = true;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", this.t("Hover view: move the pointer or use the arrow keys; click sets the plane that stays still"));
    canvas.addEventListener("click", (event) => this.focusAt(event));
    this.viewer.addEventListener("lost", () => this.paint());
    this.viewer.addEventListener("restored", () => { this.relief = null; this.paint(); });
    this.view.append(canvas);
  }

  buildRegion() {
    this.canvas = this.ui.make("canvas", "depth2img-paint", this.view);
    this.canvas.hidden = true;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", this.t("Region: paint where depth counts; a mask can be uploaded under 'Control' instead"));
    this.painter = new this.parts.region.Painter({
      document: this.document, canvas: this.canvas, ui: this.ui,
      picture: () => this.values && (this.pictures.picture ?? this.depthPicture()),
      changed: (done) => this.regionPainted(done),
    });
  }

  buildBars() {
    const { t } = this;
    const bar = this.ui.make("div", "depth2img-bar", this.root);
    const group = this.ui.make("div", "depth2img-modes", bar);
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-label", t("What is shown"));
    this.modes = {};
    for (const [mode, title] of Object.entries(MODES)) {
      const label = this.ui.make("label", "", group);
      const radio = this.ui.make("input", "", label);
      Object.assign(radio, { type: "radio", name: `depth2img-mode-${this.config.tab}`, value: mode, checked: mode === this.mode });
      radio.addEventListener("change", () => this.setMode(mode));
      this.ui.make("span", "", label).textContent = t(title);
      this.modes[mode] = radio;
    }
    const tools = this.ui.make("div", "depth2img-tools", bar);
    const large = this.ui.button("Large", tools, () => {}, "Shows the stage over the whole page: key f; Escape brings it back");
    this.large = new this.parts.large.Large({ document: this.document, root: this.root, label: t("Hover view"), button: large });
    this.ui.button("Share", tools, () => this.share(), "Saves the hover view as one HTML file that needs nothing else");
    this.ui.button("Save 16-bit", tools, () => this.save(), "Save the adjusted map as a 16-bit PNG");
    this.ui.button("Record loop", tools, (event) => this.record(event.currentTarget), "Save a short video of the hover view");
    const settings = this.ui.make("div", "depth2img-settings", this.root);
    const depth = this.ui.make("div", "depth2img-for-depth", settings);
    this.colours = this.ui.select("Colours", Object.fromEntries(Object.keys(this.tables).map((name) => [name, name])), depth, this.config.colours);
    this.colours.addEventListener("change", () => { this.relief = null; this.paint(); });
    const hover = this.ui.make("div", "depth2img-for-hover", settings);
    this.ui.slider("Movement", hover, { min: 0, max: 2, step: 0.05, value: 1 }, (value) => this.viewer.set({ strength: value }));
    this.ui.slider("Picture to depth", hover, { min: 0, max: 1, step: 0.05, value: 0 }, (value) => this.viewer.set({ blend: value }));
    this.focus = this.ui.slider("Focus plane", hover, { min: 0, max: 1, step: 0.01, value: 0.5 }, (value) => this.viewer.set({ focus: value }));
    this.over = this.ui.check("Result", hover, () => { this.relief = null; this.paint(); });
    Object.assign(this.over, { checked: true, disabled: true });
    this.over.parentElement.title = t("After a job: the result, or else the picture that it was made from");
    if (this.viewer.tiltNeedsConsent) {
      const tilt = this.ui.button("Tilt", hover, async () => { tilt.hidden = await this.viewer.askForTilt(); }, "Look around by tilting the device");
    }
    const compare = this.ui.make("div", "depth2img-for-compare", settings);
    const names = { picture: "Picture", depth: "Depth", result: "Result" };
    this.sides = { left: this.ui.select("Left", names, compare), right: this.ui.select("Right", names, compare, "depth") };
    this.wiper = this.ui.slider("Wipe", compare, { min: 0, max: 100, step: 1, value: 50 }, () => this.paint());
    this.painter.tools(this.ui.make("div", "depth2img-for-region", settings));
    for (const select of Object.values(this.sides)) select.addEventListener("change", () => this.paint());
    this.wipe.addEventListener("pointermove", (event) => {
      const box = this.wipe.getBoundingClientRect();
      this.wiper.value = ((event.clientX - box.left) / box.width) * 100;
      this.wipe.style.setProperty("--depth2img-wipe", `${this.wiper.value}%`);
    });
  }

  buildNotes() {
    const { t } = this;
    const notes = this.ui.make("div", "depth2img-notes", this.root);
    notes.setAttribute("role", "status");
    this.notes = {};
    const note = (name, text) => {
      this.notes[name] = this.ui.make("p", "depth2img-note", notes);
      this.notes[name].hidden = true;
      this.notes[`${name}Text`] = this.ui.make("span", "", this.notes[name]);
      this.notes[`${name}Text`].textContent = t(text);
      return this.notes[name];
    };
    note("stale", "Out of date: the picture or its settings have changed.");
    note("webgl", "This browser has no WebGL at the moment: the depth map is shown instead of the hover view.");
    note("region", "The region's file cannot be shown here; jobs use it all the same.");
    const inverted = note("inverted", "This map looks as if black were near.");
    this.ui.button("Invert", inverted, () => { this.write("invert", true); this.update(); });
    this.notes.sizeButton = this.ui.button("", note("size", ""), () => {});
  }

  hint(text) {
    this.emptyText.textContent = text ? this.t(text) : "";
    this.empty.hidden = !text;
  }
}

function pixels(document, image) {
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height).data;
}
