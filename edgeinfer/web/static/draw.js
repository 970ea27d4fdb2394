/** Draws a picture and what was found in it. Boxes are in pixels of the message's frame, the picture has its own. */

const SKELETON = [ // of COCO's 17 points
  [0, 1], [0, 2], [1, 3], [2, 4], [5, 6], [5, 7], [7, 9], [6, 8], [8, 10], [5, 11], [6, 12], [11, 12], [11, 13], [13, 15], [12, 14], [14, 16],
];
const INK = "#0b0f12";

/** A class's colour, the same everywhere: neighbours are far apart on the wheel, and black is readable on all. */
export const classColour = (id) => `oklch(0.82 0.15 ${((id * 137.508 + 155) % 360).toFixed(0)})`;

/** The picture at its own size and what passes `wanted`; `zoom` is how many of its pixels a pixel of the page shows. */
export function paint(canvas, bitmap, header, zoom, wanted) {
  if (canvas.width !== bitmap.width) canvas.width = bitmap.width;
  if (canvas.height !== bitmap.height) canvas.height = bitmap.height;
  const context = canvas.getContext("2d", { alpha: false });
  context.drawImage(bitmap, 0, 0);
  const found = header.detections.filter(wanted).reverse(); // the best is drawn last
  const pen = { context, zoom, x: canvas.width / header.width, y: canvas.height / header.height };
  for (const each of found) if (each.mask) drawMask(pen, each);
  for (const each of found) drawBox(pen, each);
  for (const each of found) if (each.keypoints) drawKeypoints(pen, each);
  const taken = [];
  for (const each of found.reverse()) drawLabel(pen, each, taken);
  return found;
}

function stroke({ context, zoom }, path, colour) {
  context.lineJoin = "round";
  context.strokeStyle = "rgb(0 0 0 / 55%)";
  context.lineWidth = 4 * zoom;
  context.stroke(path);
  context.strokeStyle = colour;
  context.lineWidth = 2 * zoom;
  context.stroke(path);
}

function drawBox(pen, { box: [x1, y1, x2, y2], class_id }) {
  const path = new Path2D();
  path.rect(x1 * pen.x, y1 * pen.y, (x2 - x1) * pen.x, (y2 - y1) * pen.y);
  stroke(pen, path, classColour(class_id));
}

function drawKeypoints(pen, { keypoints, class_id }) {
  const at = ([x, y]) => [x * pen.x, y * pen.y];
  const seen = (index) => keypoints[index]?.[2] > 0.3;
  const bones = new Path2D(), dots = new Path2D();
  for (const [from, to] of keypoints.length === 17 ? SKELETON : []) {
    if (!seen(from) || !seen(to)) continue;
    bones.moveTo(...at(keypoints[from]));
    bones.lineTo(...at(keypoints[to]));
  }
  keypoints.forEach((point, index) => {
    const [x, y] = at(point), radius = 3 * pen.zoom;
    if (!seen(index)) return;
    dots.moveTo(x + radius, y);
    dots.arc(x, y, radius, 0, 7);
  });
  stroke(pen, bones, classColour(class_id));
  pen.context.fillStyle = "#fff";
  pen.context.fill(dots);
}

function drawMask(pen, { mask, class_id }) {
  const [height, width] = mask.size;
  const across = pen.context.canvas.width / width, down = pen.context.canvas.height / height;
  const path = new Path2D();
  for (const [column, row, length] of runs(mask)) path.rect(column * across, row * down, across, length * down);
  pen.context.globalAlpha = 0.4;
  pen.context.fillStyle = classColour(class_id);
  pen.context.fill(path);
  pen.context.globalAlpha = 1;
}

/** COCO's run lengths, column by column, as [column, row, length] of what is set, a column at a time. */
export function* runs({ size: [height, width], counts }) {
  let at = 0, set = false;
  for (const count of typeof counts === "string" ? unpacked(counts) : counts) {
    const end = Math.min(at + count, height * width);
    for (let from = at; set && from < end; ) {
      const length = Math.min(end - from, height - (from % height));
      yield [Math.floor(from / height), from % height, length];
      from += length;
    }
    at = end;
    set = !set;
  }
}

/** The text form of COCO's counts: five bits a character, signed, from the third on as differences to the last but one. */
function unpacked(text) {
  const counts = [];
  for (let index = 0; index < text.length; ) {
    let value = 0, shift = 0, bits;
    do {
      bits = text.charCodeAt(index++) - 48;
      value |= (bits & 31) << shift;
      shift += 5;
    } while (bits & 32 && index < text.length);
    if (bits & 16) value |= -1 << shift;
    counts.push(counts.length > 2 ? value + counts[counts.length - 2] : value);
  }
  return counts;
}

function drawLabel({ context, zoom, x, y }, { box, label, score, track_id, class_id }, taken) {
  const size = Math.max(12 * zoom, 9), pad = size * 0.35, height = size * 1.45;
  context.font = `600 ${size}px system-ui, sans-serif`;
  const text = `${track_id == null ? "" : `#${track_id} `}${label} ${Math.round(score * 100)}%`;
  const width = context.measureText(text).width + 2 * pad;
  const left = Math.max(0, Math.min(box[0] * x - zoom, context.canvas.width - width));
  const above = box[1] * y - height;
  const top = free(taken, left, above < 0 ? box[1] * y : above, width, height, context.canvas.height);
  taken.push([left, top, width]);
  context.fillStyle = classColour(class_id);
  context.fillRect(left, top, width, height);
  context.fillStyle = INK;
  context.textBaseline = "middle";
  context.fillText(text, left + pad, top + height / 2 + size * 0.05);
}

function free(taken, left, top, width, height, limit) {
  const meets = ([x, y, wide]) => left < x + wide && x < left + width && Math.abs(y - top) < height;
  for (let tries = 0; tries < 8; tries++) {
    const other = taken.find(meets);
    if (!other || other[1] + 2 * height > limit) break;
    top = other[1] + height;
  }
  return top;
}
