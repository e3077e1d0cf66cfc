// Page side of "Depth to image": puts a stage into each panel and connects it with the page's controls.
// Runs in the WebUI, whose script.js provides onUiLoaded and onOptionsChanged, and in `depth2img app`, which calls start().

const TICK = 400; // milliseconds between looks at what no event tells: pasted values, replaced nodes, new results
const UPLOAD = 10_000; // milliseconds that an upload may take
const CANVAS = 1_000; // milliseconds until a picture that can be painted on has its canvas and mask
const STEP = 20; // milliseconds between looks at an upload
const SILENT = 3000; // milliseconds without an answer after which a finished request counts as failed

/** The short text for the header, from the state that the server sends with the status line. */
export function badgeText(state) {
  return { ready: "", wrong: "needs a depth checkpoint", missing: "no depth checkpoint", failed: "checkpoint failed to load", host: "not in Forge" }[state] ?? "";
}

/** A short key of a picture's address; data URLs are too long to store. */
export function fingerprint(url) {
  const middle = url.length >> 1;
  return `${url.length}:${url.slice(-64)}${url.slice(middle, middle + 64)}`;
}

/** Translate a text with the WebUI's localisation files. */
export function t(text) {
  return globalThis.localization?.[text] ?? text;
}

// The WebUI loads each module by an address that carries the file's date. Asking for the same address gets the same
// version of the file, where a plain relative import could get an old one from the browser's cache.
function sibling(name) {
  const listed = Array.from(document.scripts, (script) => script.src).find((src) => src.includes(`/depth2img-${name}.mjs`));
  return import(listed ?? new URL(`depth2img-${name}.mjs${new URL(import.meta.url).search}`, import.meta.url).href);
}

class PanelPage {
  constructor(holder, parts) {
    this.config = JSON.parse(holder.dataset.config);
    this.strokes = 0;
    this.uploads = 0; // the number of the upload under way
    this.region = null; // address of the region's file that the stage knows
    this.stage = new parts.stage.Stage({
      document, parts, config: this.config, t,
      read: () => this.read(),
      write: (name, value) => this.write(name, value),
      result: () => document.querySelector(this.config.result)?.src ?? null,
      interrupt: () => this.interrupt(),
      paint: (blob) => this.upload("region", blob, "region.png"),
      sample: () => this.trySample(),
    });
    holder.append(this.stage.root);
    this.goodSize = parts.stage.goodSize;
    this.nameControls();
    for (const kind of ["input", "change", "click"]) document.addEventListener(kind, (event) => this.onEvent(event), true);
    for (const kind of ["pointerup", "change", "click", "drop", "paste"]) {
      document.addEventListener(kind, (event) => { if (this.redraws(event)) this.strokes += 1; }, true);
    }
    setInterval(() => this.tick(), TICK);
    this.tick();
  }

  /** Whether an event may change what a watched canvas shows, which cannot be seen in the document. */
  redraws({ type, target, clipboardData }) {
    if (type === "paste") return Boolean(clipboardData?.files.length);
    if (!this.watched().some((root) => root.contains(target))) return false;
    if (type === "click") return /clear|undo|redo/i.test(target.closest?.("button")?.ariaLabel ?? "");
    if (type === "change") return target.type === "file";
    return type === "drop" || Boolean(target.closest?.("canvas"));
  }

  part(name) {
    return document.getElementById(this.config.parts[name]);
  }

  element(name) {
    return document.getElementById(this.config.ids[name] ?? this.config.page[name] ?? "");
  }

  /** The values that the preview depends on. */
  read() {
    const number = (name) => {
      const value = Number.parseFloat(this.element(name)?.querySelector("input[type=number]")?.value);
      return Number.isFinite(value) ? value : undefined;
    };
    const values = Object.fromEntries(["near", "far", "gamma", "blur", "strength", "neutral"].map((name) => [name, number(name)]));
    return { ...values, invert: Boolean(this.element("invert")?.querySelector("input[type=checkbox]")?.checked) };
  }

  write(name, value) {
    const input = this.element(name)?.querySelector(typeof value === "boolean" ? "input[type=checkbox]" : "input[type=number]");
    if (!input) return;
    if (typeof value === "boolean") {
      if (input.checked !== value) input.click();
      return;
    }
    input.value = String(Math.round(value * 1000) / 1000);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  /** Address of the file that an upload component holds, null for none. */
  file(name) {
    return this.element(name)?.querySelector("a[href]")?.href ?? null;
  }

  /** Put a file (a Blob or the promise of one; null for none) into an upload component, as the user would; the latest counts. */
  async upload(name, content, title) {
    const mine = (this.uploads += 1);
    const blob = await content;
    const done = (what) => awaited(what, () => mine === this.uploads);
    const input = await done(() => {
      const found = this.element(name)?.querySelector("input[type=file]");
      if (!found) this.element(name)?.querySelector("button[aria-label=Clear]")?.click();
      return found;
    });
    if (mine !== this.uploads) return;
    if (blob && input) {
      hand(input, blob, title);
      await done(() => this.file(name));
    }
    if (mine !== this.uploads) return;
    this.region = this.file(name);
    this.uploads = 0;
  }

  /** Put a picture (a Blob) into the page's picture component, or where it has none, into the reference picture. */
  async give(blob, title) {
    const name = this.config.page.picture ? "picture" : "reference";
    if (name === "reference") this.element("source")?.querySelector("input[type=radio][value=reference]")?.click();
    const input = await awaited(() => {
      const found = this.element(name)?.querySelector("input[type=file]");
      if (!found) this.element(name)?.querySelector("button:is([aria-label=Clear], [aria-label='Remove Image'])")?.click();
      return found;
    });
    if (!input) return;
    hand(input, blob, title);
    await awaited(() => this.element(name)?.querySelector("canvas, img"));
    // Where the picture is painted on, Gradio 3.41 makes its canvas and an empty mask after it, and cannot read it before.
    await new Promise((resolve) => setTimeout(resolve, CANVAS));
  }

  /** Show a newcomer what this is about: the sample scene, and its depth. */
  async trySample() {
    await this.give(await (await fetch(this.config.sample)).blob(), "scene.png");
    this.part("estimate")?.click();
  }

  /** Place of the shown result in its gallery, counted from 0. */
  chosen() {
    const shown = document.querySelector(this.config.result);
    const all = shown?.closest(".block")?.querySelectorAll(".thumbnail-item img") ?? [];
    return String(Math.max(0, Array.from(all).findIndex((one) => one.src === shown.src)));
  }

  /** Stop waiting; a late answer is ignored. */
  interrupt() {
    this.part("interrupt")?.click();
    this.pending = null;
    this.interrupted = true;
    this.stage.working(false);
  }

  get visible() {
    return this.stage.root.offsetParent !== null;
  }

  onEvent(event) {
    const pressed = (name) => event.type === "click" && event.target.closest?.(`#${CSS.escape(this.config.parts[name])}`);
    if (pressed("recall") || pressed("follow")) {
      this.interrupted = false;
      this.asked = this.signature();
      this.strokesAsked = this.strokes;
    }
    if (pressed("estimate")) {
      this.interrupted = false;
      this.asked = this.signature();
      this.strokesAsked = this.strokes;
      this.pending = { since: Date.now(), seen: false };
      this.stage.working(true);
    }
    const remedy = event.type === "click" && event.target.closest?.(`#${CSS.escape(this.config.parts.message)} .depth2img-remedy`);
    if (remedy) this.choose(remedy.dataset.option, Number(remedy.dataset.choice));
    if (this.visible) requestAnimationFrame(() => this.stage.update());
  }

  /** Take a choice of an option, by its number, and estimate again. */
  choose(name, choice) {
    this.element(name)?.querySelectorAll("input[type=radio]")[choice]?.click();
    requestAnimationFrame(() => this.part("estimate")?.click());
  }

  tick() {
    this.attach();
    this.showBadge();
    const view = document.querySelector(`#${CSS.escape(this.config.parts.data)} [data-view]`)?.dataset.view;
    if (view && view !== this.view) { // each has an id of its own; Gradio 6 keeps the node
      this.view = view;
      if (!this.interrupted) this.receive(JSON.parse(view));
    }
    if (!this.visible) return;
    this.watchRequest();
    this.stage.update();
    if (!this.uploads && this.file("region") !== this.region) {
      this.region = this.file("region");
      this.stage.setRegion(this.region);
    }
    this.stage.stale(this.asked !== undefined && (this.asked !== this.signature() || this.strokes !== this.strokesAsked));
    this.hintSize();
    const result = document.querySelector(this.config.result)?.src;
    if (result !== this.latest) {
      this.latest = result;
      this.stage.resultChanged();
      if (result) this.part("follow")?.click();
    }
  }

  receive(content) {
    this.shown = content.depth ? content.id : this.shown;
    this.pending = null;
    if (content.depth) this.answered = [(this.asked ??= this.signature()), this.strokesAsked];
    else [this.asked, this.strokesAsked] = this.answered ?? []; // what is shown is still the map from before
    this.stage.show(content);
  }

  /** Gradio may replace nodes: the stage moves into the new holder, graphics context and all. */
  attach() {
    if (this.stage.root.isConnected) return;
    const holder = Array.from(document.querySelectorAll(".depth2img-stage")).find(
      (one) => JSON.parse(one.dataset.config).tab === this.config.tab,
    );
    holder?.append(this.stage.root);
    this.nameControls();
  }

  // A request that ends without an answer (the server was stopped, an exception) must not leave the stage waiting.
  watchRequest() {
    if (!this.pending) return;
    const busy = document.querySelector(`#${CSS.escape(this.config.parts.data)} .pending, #${CSS.escape(this.config.parts.data)}.pending`);
    if (busy) this.pending = { since: Date.now(), seen: true };
    else if (this.pending.seen && Date.now() - this.pending.since > SILENT) {
      this.pending = null;
      this.stage.working(false);
    }
  }

  watched() {
    return this.config.watch.map((selector) => document.querySelector(selector)).filter(Boolean);
  }

  /** Key of everything that the estimated map depends on. */
  signature() {
    const seen = [];
    for (const root of this.watched()) {
      for (const image of root.querySelectorAll("img")) if (image.offsetParent) seen.push(fingerprint(image.src));
      for (const input of root.querySelectorAll("input")) {
        if (input.type === "radio" || input.type === "checkbox") seen.push(input.checked ? input.value : "");
        else if (input.type === "number" || input.type === "text") seen.push(input.value);
      }
      for (const tab of root.querySelectorAll(":scope > .tab-nav > .selected")) seen.push(tab.textContent.trim());
      for (const file of root.querySelectorAll(".file-preview, .file-name")) seen.push(file.textContent.trim());
    }
    return seen.join("|");
  }

  hintSize() {
    const [width, height] = ["width", "height"].map((name) => this.element(name)?.querySelector("input[type=number]"));
    const ready = this.state === "ready" && width?.offsetParent;
    const side = Number(this.part("status")?.querySelector("[data-side]")?.dataset.side) || this.config.side;
    this.stage.sizeHint(ready ? this.goodSize(Number(width.value), Number(height.value), side) : null);
  }

  showBadge() {
    const header = document.querySelector(`#${CSS.escape(this.config.ids.enabled)} .label-wrap span`);
    const state = document.querySelector(`#${CSS.escape(this.config.parts.status)} [data-state]`)?.dataset.state;
    if (state === undefined || state === this.state) return;
    this.state = state;
    if (!header) return;
    let badge = header.querySelector(".depth2img-badge");
    if (!badge) {
      badge = document.createElement("span");
      badge.className = "depth2img-badge";
      header.append(badge);
    }
    badge.textContent = t(badgeText(state));
    badge.hidden = badge.textContent === "";
  }

  /** Give every control the help text of the options table as its tooltip, and a name where Gradio gives it none. */
  nameControls() {
    for (const [name, label] of Object.entries(this.config.labels)) {
      for (const input of this.element(name)?.querySelectorAll("input:is([type=number], [type=range], [type=file])") ?? []) {
        // In the WebUI the toggle is the accordion around everything; the stage names its own.
        if (!input.closest(".depth2img-stage-inside")) input.setAttribute("aria-label", t(label));
      }
    }
    for (const [name, help] of Object.entries(this.config.tooltips)) {
      const element = this.element(name) ?? this.part(name);
      if (element) (element.querySelector(".label-wrap") ?? element).title = t(help);
    }
  }

  /**
   * Start with the panel closed and the toggle as it is. The host ties the two together until its checkbox is clicked;
   * two clicks leave the value as it was.
   */
  close() {
    const accordion = this.element("enabled");
    const label = accordion?.querySelector(".label-wrap");
    if (!accordion?.visibleCheckbox || !label?.classList.contains("open")) return;
    accordion.visibleCheckbox.click();
    accordion.visibleCheckbox.click();
    label.click();
  }
}

/** What `find` gives as soon as it gives something; null after `UPLOAD`, or once it is not wanted any more. */
async function awaited(find, wanted = () => true) {
  for (let waited = 0; waited < UPLOAD && wanted(); waited += STEP) {
    const found = find();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, STEP));
  }
  return null;
}

/** Give a file to an input, as the user would. */
function hand(input, blob, title) {
  const transfer = new DataTransfer();
  transfer.items.add(new File([blob], title, { type: blob.type }));
  input.files = transfer.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

const pages = [];

function refreshStatus() {
  for (const page of pages) page.part("refresh")?.click();
}

/** Find the panels and initialise them; safe to call again. */
export async function start() {
  const names = ["adjust", "elements", "histogram", "large", "png", "region", "result", "share", "stage", "viewer"];
  const modules = await Promise.all(names.map(sibling));
  const parts = Object.fromEntries(names.map((name, i) => [name, modules[i]]));
  for (const holder of document.querySelectorAll(".depth2img-stage")) {
    if (holder.childElementCount) continue;
    const page = new PanelPage(holder, parts);
    page.close();
    pages.push(page);
  }
  // For the server's side: which preview, and which of a gallery's results, a button is about.
  globalThis.depth2imgShown = (tab) => pages.find((page) => page.config.tab === tab)?.shown ?? "";
  globalThis.depth2imgChosen = (tab) => pages.find((page) => page.config.tab === tab)?.chosen() ?? "0";
  refreshStatus();
}

if (typeof onUiLoaded === "function") {
  onUiLoaded(start);
  onOptionsChanged(refreshStatus);
}
