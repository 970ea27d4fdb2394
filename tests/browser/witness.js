// Looks at the pixels of every picture that a tile has drawn, before the next one: where the planted square is, where
// something is drawn around it, and what the message said. Tests read window.__seen.
(() => {
  window.__seen = [];
  const REACH = 4; // pixels that a drawn line may lie beside the square's edge
  const LABEL = 40, LONG = 160; // pixels of the page that a label may be above and below its box, and to the right

  const square = (r, g, b) => r > 190 && g < 90 && b > 190;
  // Grey, the square, and what JPEG makes of the edge between the two: as red as blue, and not greener than that.
  const planted = (r, g, b) => Math.abs(r - b) < 48 && g - r < 48 && r > 72 && g < 184;

  function look(tile) {
    const { width, height } = tile.canvas;
    const data = tile.canvas.getContext("2d").getImageData(0, 0, width, height).data;
    const scale = width / tile.last.width;
    const zoom = Math.max(width / tile.canvas.clientWidth, height / tile.canvas.clientHeight, 1);
    const drawn = new Uint8Array(width * height);
    let [x1, y1, x2, y2] = [width, height, 0, 0];
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) {
        const [r, g, b] = [data[4 * at], data[4 * at + 1], data[4 * at + 2]];
        if (square(r, g, b)) {
          [x1, y1, x2, y2] = [Math.min(x1, x), Math.min(y1, y), Math.max(x2, x + 1), Math.max(y2, y + 1)];
        } else if (!planted(r, g, b)) {
          drawn[at] = 1;
        }
      }
    }
    const near = (x, y) => {
      for (let v = Math.max(0, y - REACH); v <= Math.min(height - 1, y + REACH); v++) {
        for (let u = Math.max(0, x - REACH); u <= Math.min(width - 1, x + REACH); u++) {
          if (drawn[v * width + u]) return true;
        }
      }
      return false;
    };
    const covered = (from, to, point) => {
      let found = 0;
      for (let i = from + 8; i < to - 8; i++) found += near(...point(i));
      return found / Math.max(1, to - from - 16);
    };
    const left = Math.min(x1 - 16, width - LONG * zoom); // a label stays within the picture
    let strays = 0;
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) {
        const around = y >= y1 - LABEL * zoom && y < y2 + LABEL * zoom && x >= left && x < x1 + LONG * zoom;
        if (drawn[at] && !around) strays++;
      }
    }
    const sides = [
      covered(x1, x2, (x) => [x, y1]),
      covered(x1, x2, (x) => [x, y2 - 1]),
      covered(y1, y2, (y) => [x1, y]),
      covered(y1, y2, (y) => [x2 - 1, y]),
    ];
    return {
      source: tile.last.source,
      frame: tile.last.frame_id,
      size: [tile.last.width, tile.last.height],
      scale,
      square: [x1, y1, x2, y2].map((value) => value / scale),
      boxes: tile.last.detections.map((found) => found.box),
      sides,
      strays,
    };
  }

  window.__watch = (tile) => {
    tile.addEventListener("drawn", () => window.__seen.push(look(tile)));
  };
})();
