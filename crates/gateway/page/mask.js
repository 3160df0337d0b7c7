// Masks: COCO's compressed run lengths in, rows of bits and outlines out.

/// Run lengths of a compressed string: 5 bits a character from '0' on, each from the third on as the difference to the one
/// two before (COCO API, maskApi.c, rleFrString).
export function runs(counts) {
  const lengths = [];
  for (let at = 0; at < counts.length;) {
    let value = 0, shift = 0, more = true, bits = 0;
    while (more && at < counts.length) {
      bits = counts.charCodeAt(at++) - 48;
      value |= (bits & 31) << shift;
      shift += 5;
      more = (bits & 32) !== 0;
    }
    if ((bits & 16) !== 0 && shift < 32) value |= -1 << shift;
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    lengths.push(value);
  }
  return lengths;
}

/// A mask as bytes, 1 inside, by rows, with the box around it: left, top, right, bottom, the latter two exclusive.
export function decode({ size: [height, width], counts }) {
  const inside = new Uint8Array(width * height);
  let left = width, top = height, right = 0, bottom = 0, at = 0, isIn = false;
  for (const length of runs(counts)) {
    const end = Math.min(at + length, inside.length);
    if (isIn) for (; at < end; at++) {
      const x = Math.floor(at / height), y = at - x * height;
      inside[y * width + x] = 1;
      if (x < left) left = x;
      if (x >= right) right = x + 1;
      if (y < top) top = y;
      if (y >= bottom) bottom = y + 1;
    }
    at = end;
    isIn = !isIn;
  }
  return { inside, width, height, box: [left, top, right, bottom] };
}

/// The edges between inside and outside as a path in pixels of the frame: along the pixels' borders.
export function outline(mask) {
  const { inside, width, height, box: [left, top, right, bottom] } = mask;
  const path = new Path2D();
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height ? inside[y * width + x] : 0;
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x < right; x++) {
      if (at(x, y) === at(x, y - 1)) continue;
      const from = x;
      while (x < right && at(x, y) !== at(x, y - 1)) x++;
      path.moveTo(from, y);
      path.lineTo(x, y);
    }
  }
  for (let x = left; x <= right; x++) {
    for (let y = top; y < bottom; y++) {
      if (at(x, y) === at(x - 1, y)) continue;
      const from = y;
      while (y < bottom && at(x, y) !== at(x - 1, y)) y++;
      path.moveTo(x, from);
      path.lineTo(x, y);
    }
  }
  return path;
}

/// Pixels inside.
export function area(mask) {
  let pixels = 0;
  for (const bit of mask.inside) pixels += bit;
  return pixels;
}
