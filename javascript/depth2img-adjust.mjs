// The adjustments of depth2img/depth/adjustments.py, in the browser: the same order, the same meaning, within 2/255.
// Pure functions on typed arrays; no page.

const FULL_SCALE = 2 ** 24 - 1;
const BLUR_REACH = 3; // the Gaussian's kernel ends at this many standard deviations
const COARSE = 8; // a wider blur works on a smaller map; two neighbouring values of it stay closer than 2/255

/** Pixels of the map as the server sends it (RGBA bytes, red = high byte) -> values 0 (farthest) .. 1 (nearest). */
export function decode(rgba) {
  const values = new Float32Array(rgba.length / 4);
  for (let i = 0, j = 0; i < values.length; i += 1, j += 4) {
    values[i] = (rgba[j] * 65536 + rgba[j + 1] * 256 + rgba[j + 2]) / FULL_SCALE;
  }
  return values;
}

/** Invert, clip to far..near, gamma, blur. `settings` has the names of the options table; missing ones do nothing. */
export function adjust(values, width, height, settings = {}) {
  const { near = 1, far = 0, gamma = 1, blur = 0, invert = false } = settings;
  const span = Math.max(near - far, 1e-6);
  const exponent = 1 / gamma;
  const result = new Float32Array(values.length);
  for (let i = 0; i < values.length; i += 1) {
    const value = ((invert ? 1 - values[i] : values[i]) - far) / span;
    const clipped = value < 0 ? 0 : value > 1 ? 1 : value;
    result[i] = exponent === 1 ? clipped : clipped ** exponent;
  }
  return blurred(result, width, height, (blur / 100) * Math.min(width, height));
}

/** Stretch to 0..1, in place, as for the UNet; a flat map becomes the neutral middle. */
export function stretch(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const scale = high > low ? 1 / (high - low) : 0;
  for (let i = 0; i < values.length; i += 1) values[i] = scale ? (values[i] - low) * scale : 0.5;
  return values;
}

/** Blend towards the neutral depth (-1 far .. 1 near), in place: strength 1 keeps the map, 0 leaves no depth. */
export function weaken(values, strength = 1, neutral = 0) {
  if (strength !== 1) {
    const middle = (neutral + 1) / 2;
    for (let i = 0; i < values.length; i += 1) values[i] = middle + (values[i] - middle) * strength;
  }
  return values;
}

/** Histogram: the number of values in each of `count` equal parts of 0..1. */
export function histogram(values, count, invert = false) {
  const bins = new Uint32Array(count);
  for (const value of values) {
    bins[Math.min(count - 1, Math.floor((invert ? 1 - value : value) * count))] += 1;
  }
  return bins;
}

/** Values -> RGBA bytes by a table of 256 RGB colours. */
export function colourise(values, table, rgba = new Uint8ClampedArray(values.length * 4)) {
  for (let i = 0, j = 0; i < values.length; i += 1, j += 4) {
    const entry = Math.round(values[i] * 255) * 3;
    rgba[j] = table[entry];
    rgba[j + 1] = table[entry + 1];
    rgba[j + 2] = table[entry + 2];
    rgba[j + 3] = 255;
  }
  return rgba;
}

/** Values 0..1 -> the map as the server sends it, at 16 bits; what `decode` reads. */
export function encode(values) {
  const rgba = new Uint8ClampedArray(values.length * 4);
  for (let i = 0, j = 0; i < values.length; i += 1, j += 4) {
    const code = Math.round(values[i] * 65535);
    rgba[j] = code >> 8;
    rgba[j + 1] = code & 255;
    rgba[j + 2] = code >> 8; // what 16 bits of full scale are in 24
    rgba[j + 3] = 255;
  }
  return rgba;
}

/** Depth for the viewer, two bytes per value: near areas grown by `radius` pixels and softened, so that no halo shows. */
export function dilated(values, width, height, radius = 2) {
  const wider = maximum(maximum(values, width, height, radius, 1, width), width, height, radius, width, height, true);
  const bytes = new Uint8Array(2 * values.length);
  blurred(wider, width, height, 0.7).forEach((value, i) => {
    const code = Math.round(value * 65535);
    bytes[2 * i] = code >> 8;
    bytes[2 * i + 1] = code & 255;
  });
  return bytes;
}

function maximum(values, width, height, radius, stride, length, vertical = false) {
  const result = new Float32Array(values.length);
  for (let i = 0; i < values.length; i += 1) {
    const at = vertical ? Math.floor(i / width) : i % width;
    const first = Math.max(-radius, -at);
    const last = Math.min(radius, length - 1 - at);
    let best = values[i];
    for (let k = first; k <= last; k += 1) if (values[i + k * stride] > best) best = values[i + k * stride];
    result[i] = best;
  }
  return result;
}

/** Gaussian with replicated edges; `sigma` in pixels. */
export function blurred(values, width, height, sigma) {
  if (!(sigma > 0)) return values;
  if (sigma < COARSE) return gaussian(values, width, height, sigma);
  const factor = Math.floor(sigma / (COARSE / 2));
  const small = shrunk(values, width, height, factor);
  // Averaging over `factor` pixels and linear interpolation between the averages blur too.
  const rest = Math.sqrt(Math.max(sigma ** 2 - (factor ** 2 - 1) / 12 - factor ** 2 / 6, 1)) / factor;
  return grown(gaussian(small.values, small.width, small.height, rest), small, width, height, factor);
}

function gaussian(values, width, height, sigma) {
  const radius = Math.max(1, Math.round(BLUR_REACH * sigma));
  const kernel = Float64Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-((i - radius) ** 2) / (2 * sigma ** 2)));
  const sum = kernel.reduce((a, b) => a + b);
  for (let i = 0; i < kernel.length; i += 1) kernel[i] /= sum;
  const across = new Float32Array(values.length);
  convolve(values, across, width, height, kernel, 1, width);
  const result = new Float32Array(values.length);
  convolve(across, result, height, width, kernel, width, 1);
  return result;
}

// One row (or column) at a time, with its edges repeated, so that the inner loop needs no test.
function convolve(from, to, length, lines, kernel, step, lineStep) {
  const radius = (kernel.length - 1) / 2;
  const line = new Float64Array(length + 2 * radius);
  for (let n = 0; n < lines; n += 1) {
    const start = n * lineStep;
    for (let i = 0; i < line.length; i += 1) {
      line[i] = from[start + Math.min(length - 1, Math.max(0, i - radius)) * step];
    }
    for (let i = 0; i < length; i += 1) {
      let sum = 0;
      for (let k = 0; k < kernel.length; k += 1) sum += kernel[k] * line[i + k];
      to[start + i * step] = sum;
    }
  }
}

// Means of factor x factor pixels; beyond the edges, where the Gaussian must find the edge repeated, whole cells of it.
function shrunk(values, width, height, factor) {
  const margin = 1;
  const small = { width: Math.ceil(width / factor) + 2 * margin, height: Math.ceil(height / factor) + 2 * margin, margin };
  small.values = new Float32Array(small.width * small.height);
  for (let y = 0; y < small.height; y += 1) {
    for (let x = 0; x < small.width; x += 1) {
      let sum = 0;
      for (let b = 0; b < factor; b += 1) {
        const row = Math.min(height - 1, Math.max(0, (y - margin) * factor + b)) * width;
        for (let a = 0; a < factor; a += 1) sum += values[row + Math.min(width - 1, Math.max(0, (x - margin) * factor + a))];
      }
      small.values[y * small.width + x] = sum / (factor * factor);
    }
  }
  return small;
}

function grown(values, small, width, height, factor) {
  const result = new Float32Array(width * height);
  for (let y = 0; y < height; y += 1) {
    const v = (y + 0.5) / factor - 0.5 + small.margin;
    const top = Math.floor(v);
    const down = v - top;
    for (let x = 0; x < width; x += 1) {
      const u = (x + 0.5) / factor - 0.5 + small.margin;
      const left = Math.floor(u);
      const right = u - left;
      const i = top * small.width + left;
      const above = values[i] * (1 - right) + values[i + 1] * right;
      const below = values[i + small.width] * (1 - right) + values[i + small.width + 1] * right;
      result[y * width + x] = above * (1 - down) + below * down;
    }
  }
  return result;
}
