// The hover view as one HTML file: the server has made all of it (depth2img/sharing/page.py) but picture, depth and title.

const LONGEST = 2048; // pixels; a larger picture is shrunk
const HOLE = /@([A-Z]+)@/g;

/** Text as it may stand in HTML, inside and outside of attributes. */
export function escaped(text) {
  const codes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;" };
  return text.replace(/[&<>"']/g, (letter) => codes[letter]);
}

/** Fill holes in; what is filled in is not looked through again, and unknown holes stay. */
export function filled(page, values) {
  return page.replace(HOLE, (hole, name) => values[name] ?? hole);
}

/**
 * The file, a Blob. `picture`: a canvas or an image; `depth`: the RGBA bytes of `encode`, with their width and height;
 * `movement`, `focus`: numbers, as the view shows it.
 */
export function shared(template, { document, title, picture, depth, width, height, movement, focus }) {
  const map = canvasOf(document, width, height);
  map.getContext("2d").putImageData(new ImageData(depth, width, height), 0, 0);
  const values = {
    TITLE: escaped(title),
    PICTURE: bounded(document, picture).toDataURL("image/jpeg", 0.9),
    DEPTH: map.toDataURL("image/png"),
    MOVEMENT: String(Number(movement)),
    FOCUS: String(Number(focus)),
  };
  return new Blob([filled(template, values)], { type: "text/html" });
}

function bounded(document, picture) {
  const [width, height] = [picture.naturalWidth ?? picture.width, picture.naturalHeight ?? picture.height];
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  const canvas = canvasOf(document, Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function canvasOf(document, width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}
