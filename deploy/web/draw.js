// made by Falconet
// What is drawn and listed of each task's answer. Nothing is computed here that the graph has not said.
// Pixels of a drawing's longer side: enough to read labels on, no more than a screen shows.
const [SHORTEST, LONGEST] = [800, 1280];
const TOP = 5;

export function colour(index, alpha = 1) {
  // Neighbouring indices are far apart on the colour wheel.
  return `hsl(${Math.round((index * 137.508 + 210) % 360)} 85% ${index % 2 ? 42 : 55}% / ${alpha})`;
}

export function drawingScale(width, height) {
  const side = Math.max(width, height);
  return Math.min(LONGEST, Math.max(SHORTEST, side)) / side;
}

// Red, green and blue, 0 to 255, of a colour in CSS.
function channels(css) {
  const probe = new OffscreenCanvas(1, 1).getContext('2d');
  probe.fillStyle = css;
  probe.fillRect(0, 0, 1, 1);
  return [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

// Black or white, whichever stands out more (relative luminance of WCAG 2).
function inkOn(css) {
  const [red, green, blue] = channels(css).map((value) => (value / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? '#000' : '#fff';
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

// Each takes (context, outputs, { classes, width, height, threshold }) and returns rows { name, share, colour? }.
export const DRAWERS = {
  classification(context, { scores }, { classes }) {
    return Array.from(scores.data, (share, index) => ({ name: classes[index], share, bar: true }))
      .sort((one, other) => other.share - one.share)
      .slice(0, TOP);
  },

  detection(context, { boxes, scores, labels, count }, { classes, width, height, threshold }) {
    const { canvas } = context;
    const across = canvas.width / width;
    const down = canvas.height / height;
    const line = Math.max(2, canvas.width / 220);
    const size = Math.max(12, Math.round(canvas.width / 30));
    context.lineWidth = line;
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.textBaseline = 'top';
    const rows = [];
    for (let place = 0; place < count.data[0] && scores.data[place] >= threshold; place++) {
      const [left, top, right, bottom] = boxes.data.slice(4 * place, 4 * place + 4);
      const name = classes[labels.data[place]];
      const shade = colour(labels.data[place]);
      context.strokeStyle = shade;
      context.strokeRect(left * across, top * down, (right - left) * across, (bottom - top) * down);
      rows.push({ name, share: scores.data[place], colour: shade, at: [left * across - line / 2, top * down] });
    }
    // Labels above all boxes, the best on top.
    for (const { name, share, colour: shade, at } of [...rows].reverse()) {
      const text = `${name} ${percent(share)}`;
      const wide = context.measureText(text).width + size * 0.6;
      const x = Math.max(0, Math.min(at[0], canvas.width - wide));
      const y = Math.max(0, at[1] - size * 1.35);
      context.fillStyle = shade;
      context.fillRect(x, y, wide, size * 1.35);
      context.fillStyle = inkOn(shade);
      context.fillText(text, x + size * 0.3, y + size * 0.2);
    }
    return rows;
  },

  segmentation(context, { mask }, { classes }) {
    const [, height, width] = mask.dims;
    const counts = new Map();
    const layer = new OffscreenCanvas(width, height);
    const brush = layer.getContext('2d');
    const pixels = brush.createImageData(width, height);
    const shades = new Map();
    for (let place = 0; place < mask.data.length; place++) {
      const label = mask.data[place];
      counts.set(label, (counts.get(label) ?? 0) + 1);
      if (!shades.has(label)) shades.set(label, rgba(label, classes[label]));
      pixels.data.set(shades.get(label), 4 * place);
    }
    brush.putImageData(pixels, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(layer, 0, 0, context.canvas.width, context.canvas.height);
    return [...counts]
      .map(([label, pixelCount]) => ({
        name: classes[label],
        share: pixelCount / mask.data.length,
        colour: classes[label] === 'background' ? undefined : colour(label),
      }))
      .sort((one, other) => other.share - one.share);
  },
};

function rgba(label, name) {
  if (name === 'background') return [0, 0, 0, 0];
  return [...channels(colour(label)), 140];
}

export function sentence(task, rows) {
  if (!rows.length) return 'nothing above the minimum score';
  if (task !== 'detection') return rows.map(({ name, share }) => `${name} ${percent(share)}`).join(', ');
  const counts = new Map();
  for (const { name } of rows) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].map(([name, count]) => `${count} × ${name}`).join(', ');
}

export function listRows(list, rows) {
  list.replaceChildren(
    ...rows.map(({ name, share, colour: shade, bar }) => {
      const item = document.createElement('li');
      const swatch = document.createElement('span');
      swatch.className = shade ? 'swatch' : '';
      swatch.style.background = shade ?? '';
      const text = document.createElement('span');
      text.textContent = name; // data, never markup
      const number = document.createElement('span');
      number.className = 'share';
      number.textContent = percent(share);
      item.append(swatch, text, number);
      if (bar) {
        const track = document.createElement('span');
        const filled = document.createElement('span');
        track.className = 'bar';
        filled.style.width = `${100 * share}%`;
        track.append(filled);
        item.append(track);
      }
      return item;
    })
  );
}
