// The page's latest result, as far as the stage's map covers it.

/** Get an image by its address; null if there is none. */
export function imageAt(url) {
  if (!url) return null;
  return new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => resolve(null);
    image.src = url;
  });
}

/** A box in fractions of a size -> whole pixels, at least one each way. */
export function pixelBox(box, width, height) {
  const [left, top, right, bottom] = box.map((part, i) => Math.round(part * (i % 2 ? height : width)));
  const start = [Math.min(left, width - 1), Math.min(top, height - 1)];
  return [...start, Math.min(width, Math.max(right, start[0] + 1)), Math.min(height, Math.max(bottom, start[1] + 1))];
}

export class Result {
  /** `address()`: of the result's picture, null without one. */
  constructor({ document, address }) {
    Object.assign(this, { document, address, known: new Map() });
  }

  /** The result as a canvas: the part in a box, given in fractions of it; null without a result. */
  async picture(box = [0, 0, 1, 1]) {
    const url = this.address();
    if (!this.known.has(url)) {
      this.known.clear();
      this.known.set(url, await imageAt(url));
    }
    const image = this.known.get(url);
    if (!image) return null;
    const [left, top, right, bottom] = pixelBox(box, image.naturalWidth, image.naturalHeight);
    const canvas = Object.assign(this.document.createElement("canvas"), { width: right - left, height: bottom - top });
    canvas.getContext("2d").drawImage(image, -left, -top);
    return canvas;
  }
}
