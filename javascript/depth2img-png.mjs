// Writes 16-bit grey PNG files, which a canvas cannot.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

/** Values 0..1, row by row -> a PNG file with 16 bits per pixel, 65535 = nearest, as `DepthMap.to_png` writes it. */
export async function encodeGrey16(values, width, height) {
  const rows = new Uint8Array(height * (1 + 2 * width));
  let at = 0;
  for (let y = 0; y < height; y += 1) {
    at += 1; // filter type 0
    for (let x = 0; x < width; x += 1) {
      const code = Math.round(values[y * width + x] * 65535);
      rows[at] = code >> 8;
      rows[at + 1] = code & 255;
      at += 2;
    }
  }
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header.set([16, 0, 0, 0, 0], 8); // 16 bits, grey
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const body = new Uint8Array(await new Response(packed).arrayBuffer());
  const parts = [new Uint8Array(SIGNATURE), chunk("IHDR", header), chunk("IDAT", body), chunk("IEND", new Uint8Array(0))];
  return new Blob(parts, { type: "image/png" });
}

function chunk(name, data) {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(Array.from(name, (letter) => letter.charCodeAt(0)), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let value = n;
  for (let k = 0; k < 8; k += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}
