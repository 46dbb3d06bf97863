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

/** A number of a column, or the date that it is. */
function formatValue(column, v) {
  if (!column.unit || !Number.isFinite(v)) return formatNumber(v);
  const date = new Date(v * column.unit * 1000);
  return Number.isNaN(date.getTime()) ? "–" : date.toISOString().slice(0, 10);
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

/** The values between which series are drawn: those of all examples, and of this one. */
function rangeOf(x, columns) {
  let low = Math.min(...columns.map((column) => column.grid[0]));
  let high = Math.max(...columns.map((column) => column.grid[1]));
  for (const v of x) [low, high] = [Math.min(low, v), Math.max(high, v)];
  return [low, high];
}

/** Lines of the features by time step; a large picture has a scale and names. */
export function drawSeries(canvas, x, [steps, features], columns, large) {
  canvas.width = large ? 640 : 200;
  canvas.height = large ? 420 : 140;
  const context = canvas.getContext("2d");
  const [left, right, above, below] = large ? [96, 8, 34, 34] : [6, 6, 6, 6];
  const [low, high] = rangeOf(x, columns);
  const [width, height] = [canvas.width - left - right, canvas.height - above - below];
  const up = (v) => above + height * (1 - (v - low) / (high - low || 1));
  if (large) drawScale(context, { left, width, low, high, up, steps, columns });
  context.globalAlpha = 1;
  context.lineWidth = large ? 2.5 : 2;
  for (let f = 0; f < features; f++) {
    context.strokeStyle = LINES[f % LINES.length];
    context.beginPath();
    for (let t = 0; t < steps; t++) context.lineTo(left + (t / Math.max(steps - 1, 1)) * width, up(x[t * features + f]));
    context.stroke();
  }
}

/** Three values, in the data's own unit where there is one feature; steps and names. */
function drawScale(context, { left, width, low, high, up, steps, columns }) {
  const ink = getComputedStyle(context.canvas).color;
  const write = (text, x, y, align, color = ink) => {
    context.fillStyle = color;
    context.textAlign = align;
    context.fillText(text, x, y);
    return context.measureText(text).width;
  };
  context.font = "22px system-ui, sans-serif";
  context.lineWidth = 1;
  context.strokeStyle = ink;
  for (const v of [low, (low + high) / 2, high]) {
    context.globalAlpha = 0.25;
    context.beginPath();
    context.moveTo(left, up(v));
    context.lineTo(left + width, up(v));
    context.stroke();
    context.globalAlpha = 0.8;
    write(columns.length === 1 ? formatNumber(toOwn(columns[0], v)) : v.toFixed(1), left - 8, up(v) + 7, "right");
  }
  const bottom = context.canvas.height - 8;
  write("step 1", left, bottom, "left");
  write(`${steps}`, left + width, bottom, "right");
  context.globalAlpha = 1;
  let at = left;
  columns.forEach((column, f) => {
    if (at < left + width) at += write(column.name, at, 22, "left", LINES[f % LINES.length]) + 14;
  });
  if (columns.length > 1 && at < 0.7 * context.canvas.width) write("standardized", left + width, 22, "right");
}

/** Bars of a table's columns, with marks at an example; elements are made once. */
export function drawBars(box, x, columns, original = null, example = -1) {
  if (!box.rows) {
    box.classList.add("bars");
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Columns in their units");
    box.rows = columns.map((column) => {
      const [name, track, value, given] = ["span", "span", "span", "span"].map((tag) => box.appendChild(document.createElement(tag)));
      name.className = "name";
      name.textContent = name.title = column.name;
      track.className = "track";
      given.className = "given";
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
      const mark = track.appendChild(document.createElement("i"));
      return { value, given, fills, mark };
    });
  }
  columns.forEach((column, k) => {
    const { value, given, fills, mark } = box.rows[k];
    const shares = sharesOf(column, x);
    shares.forEach((share, i) => (fills[i].style.width = `${share * 100}%`));
    value.textContent = textOf(column, x);
    given.textContent = original ? textOf(column, original, example) : "";
    mark.hidden = column.kind === "category" || !Number.isFinite(original?.[column.feature]);
    if (!mark.hidden) mark.style.left = `${sharesOf(column, original)[0] * 100}%`;
  });
}

/** The length of a column's bar, from 0 to 1, or of its parts: one per category. */
function sharesOf(column, x) {
  const clip = (v) => Math.max(0, Math.min(1, v));
  const v = x[column.feature];
  if (column.kind === "category") return column.values.map((_, i) => clip(x[column.feature + i]));
  if (column.kind === "binary") return [clip(v)];
  const [low, high] = column.grid;
  return [clip((v - low) / (high - low))];
}

function textOf(column, x, example = -1) {
  const v = x[column.feature];
  const isExample = example >= 0;
  const percent = (p) => (isExample ? "" : ` ${Math.round(p * 100)}%`);
  if (column.kind === "binary") return isExample ? (column.values[Math.round(v)] ?? "–") : `${column.values[1]}${percent(v)}`;
  if (column.kind !== "category") return formatValue(column, isExample ? (column.examples?.[example] ?? toOwn(column, v)) : toOwn(column, v));
  const all = column.values.map((_, i) => x[column.feature + i]);
  const best = all.indexOf(Math.max(...all));
  return `${column.values[best]}${percent(all[best])}`;
}
