// Hover view: the picture as a relief that moves with the pointer. WebGL1, one context for the life of a viewer.

const MOST_STEPS = 24;
const STRIDE = 2.5; // pixels; less than the width that dilation gives to the thinnest thing that is near
const OVERSCAN = 1.06; // so that the picture's borders stay outside
const REACH = 0.035; // largest shift at strength 1, as a part of the width
const EASE = 9; // per second
const STILL = 0.0005;
const SWAY_SECONDS = 3;

const VERTEX = `
attribute vec2 corner;
varying vec2 at;
void main() { at = corner * 0.5 + 0.5; gl_Position = vec4(corner, 0.0, 1.0); }`;

// A point of the picture at q with depth d is seen at q + shift * (d - focus). For each pixel the ray is walked from the
// nearest plane to the farthest; the first hit is what is in front. Where the ray meets the side of something near, what
// lies behind shows: the last place before it is taken, so that the background stretches and no edge smears.
const FRAGMENT = `
precision highp float;
varying vec2 at;
uniform sampler2D colour, depth;
uniform vec2 shift;
uniform float focus, blend, steps, zoom, wall;
// Two bytes, of which the filter makes means: the mean of the whole is the same sum of theirs.
float nearness(vec2 place) { return dot(texture2D(depth, place).ra, vec2(65280.0, 255.0) / 65535.0); }
void main() {
  vec2 here = (at - 0.5) / zoom + 0.5;
  here.y = 1.0 - here.y;
  float height = 1.0, before = 1.0, gap = 1.0;
  vec2 place = here - shift * (1.0 - focus);
  for (int i = 0; i <= ${MOST_STEPS}; i++) {
    if (float(i) > steps) break;
    height = 1.0 - float(i) / steps;
    vec2 q = here - shift * (height - focus);
    float under = nearness(q) - height;
    if (under >= 0.0) {
      if (i == 0) { place = q; break; }
      float part = under > wall ? 0.0 : gap / (gap + under);
      place = here - shift * (mix(before, height, part) - focus);
      break;
    }
    gap = -under;
    before = height;
    place = q;
  }
  vec3 near = vec3(nearness(place));
  gl_FragColor = vec4(mix(texture2D(colour, place).rgb, near, blend), 1.0);
}`;

/** Steps of the ray so that no two of them are more than `STRIDE` apart. */
export function stepsFor(shift, width, height) {
  return Math.min(MOST_STEPS, Math.max(4, Math.ceil(Math.hypot(shift[0] * width, shift[1] * height) / STRIDE)));
}

/** The eased value after `seconds`; exactly the target once it is close enough. */
export function eased(value, target, seconds) {
  const next = target + (value - target) * Math.exp(-EASE * seconds);
  return Math.abs(next - target) < STILL ? target : next;
}

/** Pointer position inside a box -> -1..1 each way, 0 in the middle; the shorter side counts. */
export function direction(x, y, box) {
  const half = (0.9 * Math.min(box.width, box.height)) / 2;
  const limit = (value) => Math.max(-1, Math.min(1, value));
  return [limit((x - box.left - box.width / 2) / half), limit((y - box.top - box.height / 2) / half)];
}

/**
 * Direction of view, -1..1 each way, from a device's tilt relative to its first position; the limit is 20 degrees.
 * `gamma` and `beta`: degrees to the right and towards the user of a device that stands upright; `first`: the same two as
 * they were at first; `angle`: by how many degrees the screen has turned its content since, 0, 90, 180 or 270.
 */
export function tilted([gamma, beta], first, angle) {
  const [across, along] = [gamma - first[0], beta - first[1]].map((value) => ((((value + 180) % 360) + 360) % 360) - 180);
  const turned = { 90: [along, -across], 180: [-across, -along], 270: [-along, across] }[((angle % 360) + 360) % 360];
  return (turned ?? [across, along]).map((value) => Math.max(-1, Math.min(1, value / 20)));
}

/** Size of the drawing buffer: the displayed size, bounded by the picture and the graphics card's limit. */
export function bufferSize(picture, seen, ratio, limit) {
  const scale = Math.min(1, (seen.width * ratio) / picture.width, limit / Math.max(picture.width, picture.height));
  return [Math.max(1, Math.round(picture.width * scale)), Math.max(1, Math.round(picture.height * scale))];
}

/**
 * One canvas. The caller puts `canvas` on the page and may move it.
 * Events: "lost" and "restored" (the graphics context).
 */
export class Viewer extends EventTarget {
  constructor({ document = globalThis.document, reducedMotion = () => false } = {}) {
    super();
    this.canvas = document.createElement("canvas");
    this.window = document.defaultView;
    this.reducedMotion = reducedMotion;
    this.settings = { strength: 1, focus: 0.5, blend: 0 };
    this.target = [0, 0];
    this.offset = [0, 0];
    this.frames = 0; // drawn so far
    this.shown = false;
    this.visible = true;
    this.lost = false;
    this.request = 0;
    this.swayFrom = null;
    this.listen();
  }

  /** True if the browser provides a WebGL context. */
  get usable() {
    if (!this.gl && !this.lost) this.prepare();
    return Boolean(this.gl) && !this.lost;
  }

  /** A picture (anything that texImage2D takes, with width and height) and its depth, as `dilated` gives it. */
  load(picture, depth, width, height) {
    this.scene = { picture, depth, width, height };
    this.upload();
    this.draw();
  }

  set(settings) {
    Object.assign(this.settings, settings);
    this.draw();
  }

  /** Show or hide: a hidden viewer draws nothing. On showing it sways once, unless motion is unwelcome. */
  show(shown) {
    if (shown === this.shown) return;
    this.shown = shown;
    if (shown && !this.reducedMotion()) this.swayFrom = this.window.performance.now();
    if (!shown) this.pause();
    this.held = null; // as the device is held from now on is straight ahead
    this.draw();
  }

  /** Set the direction of view, -1..1 each way. */
  look(x, y) {
    this.swayFrom = null;
    this.target = [x, y];
    this.draw();
  }

  /** Ask for a frame; nothing happens while hidden. */
  draw() {
    if (this.request || !this.shown || !this.visible || !this.scene) return;
    this.last = null;
    this.canvas.dataset.still = "";
    this.request = this.window.requestAnimationFrame((now) => this.frame(now));
  }

  /** A short loop as a video; resolves to a Blob. `progress` is called with 0..1. */
  async record(seconds = 3, progress = () => {}) {
    const types = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm", "video/mp4"];
    const Recorder = this.window.MediaRecorder;
    const type = Recorder && types.find((one) => Recorder.isTypeSupported(one));
    if (!type) throw new Error("This browser cannot record videos.");
    const recorder = new Recorder(this.canvas.captureStream(30), { mimeType: type, videoBitsPerSecond: 8e6 });
    const parts = [];
    recorder.ondataavailable = (event) => parts.push(event.data);
    const stopped = new Promise((resolve) => { recorder.onstop = resolve; });
    const start = this.window.performance.now();
    this.recording = (now) => {
      const part = Math.min(1, (now - start) / 1000 / seconds);
      progress(part);
      if (part === 1 && recorder.state === "recording") recorder.stop();
      return loop(part);
    };
    recorder.start();
    this.draw();
    await stopped;
    this.recording = null;
    this.target = [0, 0];
    this.draw();
    return new Blob(parts, { type: type.split(";")[0] });
  }

  // --- inside

  pause() {
    if (this.request) this.window.cancelAnimationFrame(this.request);
    this.request = 0;
  }

  prepare() {
    const gl = this.canvas.getContext("webgl", { alpha: false, antialias: false, depth: false, preserveDrawingBuffer: true });
    if (!gl) return;
    this.gl = gl;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
      if (!gl.isContextLost()) this.gl = null;
      return;
    }
    gl.useProgram(program);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 3, -1, -1, 3]), gl.STATIC_DRAW);
    const corner = gl.getAttribLocation(program, "corner");
    gl.enableVertexAttribArray(corner);
    gl.vertexAttribPointer(corner, 2, gl.FLOAT, false, 0, 0);
    const names = ["colour", "depth", "shift", "focus", "blend", "steps", "zoom", "wall"];
    this.uniforms = Object.fromEntries(names.map((name) => [name, gl.getUniformLocation(program, name)]));
    this.textures = [0, 1].map((unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
      return unit;
    });
    gl.uniform1i(this.uniforms.colour, 0);
    gl.uniform1i(this.uniforms.depth, 1);
    gl.uniform1f(this.uniforms.zoom, OVERSCAN);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  }

  upload() {
    if (!this.scene || !this.usable) return;
    const { gl } = this;
    const { picture, depth, width, height } = this.scene;
    gl.activeTexture(gl.TEXTURE0);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, picture);
    gl.activeTexture(gl.TEXTURE1);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.LUMINANCE_ALPHA, width, height, 0, gl.LUMINANCE_ALPHA, gl.UNSIGNED_BYTE, depth);
  }

  fit() {
    const seen = this.canvas.getBoundingClientRect();
    const ratio = Math.min(2, this.window.devicePixelRatio || 1);
    const [width, height] = bufferSize(this.scene.picture, seen.width ? seen : this.scene.picture, ratio, this.gl.getParameter(this.gl.MAX_TEXTURE_SIZE));
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
  }

  frame(now) {
    this.request = 0;
    if (!this.shown || !this.visible || !this.scene || !this.usable) return;
    const seconds = this.last === null ? 1 / 60 : Math.min(0.1, (now - this.last) / 1000);
    this.last = now;
    if (this.recording) this.offset = this.recording(now);
    else {
      if (this.swayFrom !== null) this.sway(now);
      this.offset = this.offset.map((value, i) => eased(value, this.target[i], seconds));
    }
    this.paint();
    const still = this.offset.every((value, i) => value === this.target[i]);
    if (this.recording || this.swayFrom !== null || !still) {
      this.request = this.window.requestAnimationFrame((next) => this.frame(next));
    } else this.canvas.dataset.still = "yes";
  }

  paint() {
    const { gl, uniforms, settings } = this;
    this.fit();
    const { width, height } = this.canvas;
    const reach = REACH * settings.strength;
    const shift = [-this.offset[0] * reach, -this.offset[1] * reach * (width / height)];
    gl.viewport(0, 0, width, height);
    gl.uniform2fv(uniforms.shift, shift);
    gl.uniform1f(uniforms.focus, settings.focus);
    gl.uniform1f(uniforms.blend, settings.blend);
    const steps = stepsFor(shift, width, height);
    gl.uniform1f(uniforms.steps, steps);
    gl.uniform1f(uniforms.wall, Math.max(0.08, 1.5 / steps));
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    this.frames += 1;
  }

  sway(now) {
    const part = (now - this.swayFrom) / 1000 / SWAY_SECONDS;
    if (part >= 1) this.swayFrom = null;
    this.target = part >= 1 ? [0, 0] : loop(part).map((value) => value * 0.7 * Math.sin(Math.PI * part));
  }

  listen() {
    const { canvas, window } = this;
    canvas.addEventListener("pointermove", (event) => {
      this.look(...direction(event.clientX, event.clientY, canvas.getBoundingClientRect()));
    });
    canvas.addEventListener("pointerleave", () => this.look(0, 0));
    canvas.addEventListener("pointercancel", () => this.look(0, 0));
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-0.25, 0], ArrowRight: [0.25, 0], ArrowUp: [0, -0.25], ArrowDown: [0, 0.25] }[event.key];
      if (event.key === "Home" || event.key === "Escape") this.look(0, 0);
      else if (step) this.look(...this.target.map((value, i) => Math.max(-1, Math.min(1, value + step[i]))));
      else return;
      event.preventDefault();
    });
    canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      this.lost = true;
      this.pause();
      this.dispatchEvent(new window.Event("lost"));
    });
    canvas.addEventListener("webglcontextrestored", () => {
      this.lost = false;
      this.gl = null;
      this.upload();
      this.draw();
      this.dispatchEvent(new window.Event("restored"));
    });
    window.document.addEventListener("visibilitychange", () => this.setVisible(!window.document.hidden));
    if (window.IntersectionObserver) {
      new window.IntersectionObserver((entries) => this.setVisible(entries.at(-1).isIntersecting)).observe(canvas);
    }
    window.addEventListener("deviceorientation", (event) => this.tilt(event));
  }

  /** True if the user must permit tilt by a tap that calls `askForTilt` (iOS). */
  get tiltNeedsConsent() {
    const { DeviceOrientationEvent: kind, matchMedia } = this.window;
    return typeof kind?.requestPermission === "function" && matchMedia("(pointer: coarse)").matches;
  }

  /** Ask for permission; resolves to true if it is granted. */
  async askForTilt() {
    return (await this.window.DeviceOrientationEvent.requestPermission().catch(() => "denied")) === "granted";
  }

  tilt({ gamma, beta }) {
    if (gamma === null || beta === null || !this.shown || !this.visible || this.reducedMotion()) return;
    const angle = this.window.screen?.orientation?.angle ?? 0;
    if (this.held?.angle !== angle) this.held = { first: [gamma, beta], angle };
    const next = tilted([gamma, beta], this.held.first, angle);
    // A hand is never quite still; tiny changes are not worth a frame.
    if (next.some((value, i) => Math.abs(value - this.target[i]) > 0.01)) this.look(...next);
  }

  setVisible(visible) {
    this.visible = visible && !this.window.document.hidden;
    if (!this.visible) this.pause();
    else this.draw();
  }
}

// From the middle around to both sides and back to the middle, so that a loop closes.
function loop(part) {
  return [Math.sin(2 * Math.PI * part), 0.35 * Math.sin(4 * Math.PI * part)];
}
