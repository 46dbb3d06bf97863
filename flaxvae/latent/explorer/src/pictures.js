// Draws examples: images as pixels, series as lines, tables as bars in their own units.

export const colorOf = (v) => Math.max(0, Math.min(255, Math.round(v * 255)));

/** From what the model sees to the data's own unit. */
export function toOwn(column, v) {
  const [low, high] = column.grid;
  const last = column.own.length - 1;
  const t = ((v - low) / (high - low)) * last;
  const i = Math.max(0, Math.min(last - 1, Math.floor(t)));
  return column.own[i] + (t - i) * (column.own[i + 1] - column.own[i]);
}

export function formatNumber(v) {
  if (!Number.isFinite(v)) return "–";
  const size = Math.abs(v);
  if (size !== 0 && (size < 0.001 || size >= 1e7)) return v.toExponential(2);
  return v.toLocaleString("en", { maximumSignificantDigits: size >= 1000 ? 6 : 4 });
}

export function drawImage(canvas, x, [height, width, channels]) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const step = channels >= 3 ? 1 : 0;
  for (let i = 0, from = 0, to = 0; i < width * height; i++, from += channels) {
    pixels.data[to++] = colorOf(x[from]);
    pixels.data[to++] = colorOf(x[from + step]);
    pixels.data[to++] = colorOf(x[from + 2 * step]);
    pixels.data[to++] = 255;
  }
  context.putImageData(pixels, 0, 0);
}

const LINES = ["#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#a96b59", "#e76300", "#717581", "#92dadd"];

export function drawSeries(canvas, x, [steps, features], large) {
  canvas.width = large ? 640 : 200;
  canvas.height = large ? 420 : 140;
  const context = canvas.getContext("2d");
  context.lineWidth = large ? 2.5 : 2;
  let [low, high] = [Infinity, -Infinity];
  for (const v of x) [low, high] = [Math.min(low, v), Math.max(high, v)];
  const scale = (canvas.height - 12) / (high - low || 1);
  for (let f = 0; f < features; f++) {
    context.strokeStyle = LINES[f % LINES.length];
    context.beginPath();
    for (let t = 0; t < steps; t++) {
      const px = 6 + (t / Math.max(steps - 1, 1)) * (canvas.width - 12);
      context.lineTo(px, canvas.height - 6 - (x[t * features + f] - low) * scale);
    }
    context.stroke();
  }
}

/** Bars of a table's columns; elements are made once and then changed. */
export function drawBars(box, x, columns) {
  if (!box.rows) {
    box.classList.add("bars");
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Columns in their units");
    box.rows = columns.map((column) => {
      const [name, track, value] = ["span", "span", "span"].map((tag) => box.appendChild(document.createElement(tag)));
      name.className = "name";
      name.textContent = name.title = column.name;
      track.className = "track";
      const parts = column.kind === "category" ? column.values : [0];
      const fills = parts.map((_, i) => {
        const fill = track.appendChild(document.createElement("span"));
        fill.className = column.kind === "category" ? "part" : "fill";
        if (column.kind === "category") {
          fill.style.background = LINES[i % LINES.length];
          fill.title = column.values[i];
        }
        return fill;
      });
      return { value, fills };
    });
  }
  columns.forEach((column, k) => {
    const { value, fills } = box.rows[k];
    if (column.kind === "category") {
      let best = 0;
      column.values.forEach((_, i) => {
        const p = x[column.feature + i];
        if (p > x[column.feature + best]) best = i;
        fills[i].style.width = `${Math.max(0, Math.min(1, p)) * 100}%`;
      });
      value.textContent = `${column.values[best]} ${Math.round(x[column.feature + best] * 100)}%`;
      return;
    }
    const v = x[column.feature];
    const [low, high] = column.grid;
    const share = column.kind === "binary" ? v : (v - low) / (high - low);
    fills[0].style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
    value.textContent =
      column.kind === "binary" ? `${column.values[1]} ${Math.round(v * 100)}%` : formatNumber(toOwn(column, v));
  });
}
