// Points on a canvas: zoom, pan, nearest point, classes that can be hidden.

const CELL = 16; // pixels of a cell of the index of points

/** A disc on a canvas of its own, which is copied faster than a path is drawn. */
function makeDot(color, radius) {
  const side = Math.ceil(2 * radius + 2);
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const context = canvas.getContext("2d");
  context.fillStyle = color;
  context.arc(side / 2, side / 2, radius, 0, 7);
  context.fill();
  return canvas;
}

export class Scatter {
  constructor(canvas, overlay, colors, noColor) {
    Object.assign(this, { canvas, overlay, colors, noColor });
    this.xy = new Float32Array(0);
    this.labels = null;
    this.names = ["", ""]; // of the axes
    this.hidden = new Set();
    this.selected = null;
    this.scale = 1;
    this.x0 = this.y0 = 0; // the data's coordinates of the centre
    this.paint = () => {};
  }

  /** Places the points, `(N, 2)`; NaN are not drawn. */
  place(xy) {
    this.xy = xy;
    this.fit();
  }

  resize() {
    this.ratio = window.devicePixelRatio || 1;
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    for (const canvas of [this.canvas, this.overlay]) {
      canvas.width = Math.max(1, Math.round(this.width * this.ratio));
      canvas.height = Math.max(1, Math.round(this.height * this.ratio));
    }
    this.draw();
  }

  fit() {
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < this.xy.length; i += 2) {
      const [x, y] = [this.xy[i], this.xy[i + 1]];
      if (x !== x) continue;
      [left, right] = [Math.min(left, x), Math.max(right, x)];
      [low, high] = [Math.min(low, y), Math.max(high, y)];
    }
    this.x0 = (left + right) / 2 || 0;
    this.y0 = (low + high) / 2 || 0;
    this.scale = 0.92 * Math.min(this.width / (right - left || 1), this.height / (high - low || 1)) || 1;
    this.draw();
  }

  toScreen(x, y) {
    return [this.width / 2 + (x - this.x0) * this.scale, this.height / 2 - (y - this.y0) * this.scale];
  }

  toData(px, py) {
    return [this.x0 + (px - this.width / 2) / this.scale, this.y0 - (py - this.height / 2) / this.scale];
  }

  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const [x, y] = this.toData(px, py);
    this.scale = Math.max(1e-6, Math.min(1e7, this.scale * factor));
    this.x0 = x - (px - this.width / 2) / this.scale;
    this.y0 = y + (py - this.height / 2) / this.scale;
    this.draw();
  }

  pan(dx, dy) {
    this.x0 -= dx / this.scale;
    this.y0 += dy / this.scale;
    this.draw();
  }

  draw() {
    if (this.waits) return;
    this.waits = true;
    requestAnimationFrame(() => {
      this.waits = false;
      this.render();
      this.paint();
    });
  }

  render() {
    const { width, height, ratio, xy } = this;
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    this.renderGrid(context);
    const count = xy.length / 2;
    const size = Math.max(1.2, Math.min(4.5, 150 / Math.sqrt(count || 1))) * Math.max(1, Math.min(2.2, width / 1100));
    this.index = new Map();
    const ratioSize = size * ratio;
    const dots = new Map(); // label -> a drawn dot
    const dotOf = (label) => {
      if (!dots.has(label)) {
        const color = this.labels ? (this.colors[label] ?? this.noColor) : (this.colors[0] ?? "#3f90da");
        dots.set(label, makeDot(color, ratioSize));
      }
      return dots.get(label);
    };
    const alpha = count > 3000 ? 0.75 : 0.9;
    // In the order of the examples, so that no class lies on top of the others.
    for (let i = 0; i < count; i++) {
      const label = this.labels ? this.labels[i] : 0;
      if (this.hidden.has(label)) continue;
      const px = width / 2 + (xy[2 * i] - this.x0) * this.scale;
      const py = height / 2 - (xy[2 * i + 1] - this.y0) * this.scale;
      if (!(px > -9 && py > -9 && px < width + 9 && py < height + 9)) continue;
      const cell = Math.floor(px / CELL) * 8192 + Math.floor(py / CELL);
      const held = this.index.get(cell);
      if (held) held.push(i);
      else this.index.set(cell, [i]);
      const dot = dotOf(label);
      const side = dot.width / ratio;
      context.globalAlpha = this.selected && !this.selected.has(i) ? 0.12 : alpha;
      context.drawImage(dot, px - side / 2, py - side / 2, side, side);
    }
    context.globalAlpha = 1;
  }

  renderGrid(context) {
    const style = getComputedStyle(document.documentElement);
    const rough = Math.max(50, Math.min(140, this.width / 9)) / this.scale;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((k) => k * power).find((v) => v >= rough) ?? 10 * power;
    const [left, top] = this.toData(0, 0);
    const [right, bottom] = this.toData(this.width, this.height);
    context.strokeStyle = style.getPropertyValue("--line");
    context.fillStyle = style.getPropertyValue("--soft");
    context.font = `${Math.max(11, Math.min(24, this.width / 90))}px system-ui, sans-serif`;
    context.lineWidth = 1;
    const isNarrow = this.width < 600; // the legend lies along the top
    const low = this.height - (isNarrow ? 24 : 6);
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    for (let k = Math.ceil(left / step); k * step <= right && k < 1e6; k++) {
      const [px] = this.toScreen(k * step, 0);
      context.globalAlpha = k === 0 ? 1 : 0.5;
      context.beginPath();
      context.moveTo(px, 0);
      context.lineTo(px, this.height);
      context.stroke();
      context.globalAlpha = 1;
      if (px > 30 && px < this.width - 60) context.fillText((k * step).toFixed(digits), px + 3, this.height - 5);
    }
    for (let k = Math.ceil(bottom / step); k * step <= top && k < 1e6; k++) {
      const [, py] = this.toScreen(0, k * step);
      context.globalAlpha = k === 0 ? 1 : 0.5;
      context.beginPath();
      context.moveTo(0, py);
      context.lineTo(this.width, py);
      context.stroke();
      context.globalAlpha = 1;
      if (py < low - 14 && py > 34) context.fillText((k * step).toFixed(digits), 4, py - 3);
    }
    context.fillText(this.names[1], 4, isNarrow ? low : 16);
    context.textAlign = "right";
    context.fillText(this.names[0], this.width - 8, this.height - 5);
    context.textAlign = "left";
  }

  /** The visible point nearest to a place, or -1 beyond `reach` pixels. */
  nearest(px, py, reach = 9) {
    let [best, distance] = [-1, reach * reach];
    const cells = Math.ceil(reach / CELL);
    const [cx, cy] = [Math.floor(px / CELL), Math.floor(py / CELL)];
    for (let x = cx - cells; x <= cx + cells; x++) {
      for (let y = cy - cells; y <= cy + cells; y++) {
        for (const i of this.index?.get(x * 8192 + y) ?? []) {
          const [qx, qy] = this.toScreen(this.xy[2 * i], this.xy[2 * i + 1]);
          const d = (qx - px) ** 2 + (qy - py) ** 2;
          if (d < distance) [best, distance] = [i, d];
        }
      }
    }
    return best;
  }

  /** The visible points inside a polygon of pixels. */
  inside(polygon) {
    const found = [];
    for (const members of this.index?.values() ?? []) {
      for (const i of members) {
        const [px, py] = this.toScreen(this.xy[2 * i], this.xy[2 * i + 1]);
        let is = false;
        for (let a = 0, b = polygon.length - 1; a < polygon.length; b = a++) {
          const [ax, ay] = polygon[a];
          const [bx, by] = polygon[b];
          if (ay > py !== by > py && px < ((bx - ax) * (py - ay)) / (by - ay) + ax) is = !is;
        }
        if (is) found.push(i);
      }
    }
    return found;
  }
}
