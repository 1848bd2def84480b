// Where the boxes of a lineage go: in layers from left to right, each to the right of all that it was made of.
// The layered drawing of Sugiyama et al., "Methods for visual understanding of hierarchical system structures" (1981):
// layers by the longest path, then sweeps that put each box at the mean height of its neighbours.
"use strict";

const GraphLayout = (() => {
  const WIDTH = 156, HEIGHT = 42, GAP_X = 46, GAP_Y = 12;
  const TALLEST = 16; // boxes above one another: a layer of more is folded into several columns
  const SWEEPS = 6;

  /** Return {places: id -> {x, y, layer, row}, width, height, columns}. */
  function layOut(items, edges) {
    const links = neighbours(items, edges);
    const layer = layers(items, links);
    const rows = ordered(items, layer, links);
    return place(rows);
  }

  function neighbours(items, edges) {
    const links = new Map([...items.keys()].map((id) => [id, { before: [], after: [] }]));
    for (const edge of edges) {
      if (edge.weak) continue; // a comparison made nothing: it has no say in the order
      links.get(edge.source).after.push(edge.target);
      links.get(edge.target).before.push(edge.source);
    }
    return links;
  }

  /** Return the layer of each item. An arrow that closes a circle, which only groups can, is left out. */
  function layers(items, links) {
    const { order, backward } = topological(items, links);
    const layer = new Map(order.map((id) => [id, 0]));
    for (const id of order) {
      for (const next of links.get(id).after) {
        if (!backward.has(`${id} > ${next}`)) layer.set(next, Math.max(layer.get(next), layer.get(id) + 1));
      }
    }
    for (const id of order) { // an input stands just before its first use, not at the far left
      const after = links.get(id).after.filter((next) => layer.get(next) > layer.get(id));
      if (!links.get(id).before.length && after.length) {
        layer.set(id, Math.min(...after.map((next) => layer.get(next))) - 1);
      }
    }
    return layer;
  }

  function topological(items, links) {
    const state = new Map();
    const finished = [];
    const backward = new Set();
    for (const start of items.keys()) {
      const stack = state.has(start) ? [] : [[start, 0]];
      if (stack.length) state.set(start, "open");
      while (stack.length) {
        const top = stack[stack.length - 1];
        const next = links.get(top[0]).after[top[1]++];
        if (next === undefined) {
          state.set(top[0], "done");
          finished.push(top[0]);
          stack.pop();
        } else if (!state.has(next)) {
          state.set(next, "open");
          stack.push([next, 0]);
        } else if (state.get(next) === "open") {
          backward.add(`${top[0]} > ${next}`);
        }
      }
    }
    return { order: finished.reverse(), backward };
  }

  /** Return the ids of each layer from top to bottom. */
  function ordered(items, layer, links) {
    const rows = [];
    for (const id of items.keys()) (rows[layer.get(id)] ||= []).push(id);
    const filled = rows.filter(Boolean);
    const at = new Map();
    const number = (ids) => ids.forEach((id, row) => at.set(id, row / Math.max(1, ids.length - 1 || 1)));
    filled.forEach(number);
    for (let sweep = 0; sweep < SWEEPS; sweep++) {
      const side = sweep % 2 ? "after" : "before";
      for (const ids of sweep % 2 ? [...filled].reverse() : filled) {
        const mean = new Map(ids.map((id) => [id, middle(links.get(id)[side].map((other) => at.get(other)), at.get(id))]));
        ids.sort((a, b) => mean.get(a) - mean.get(b));
        number(ids);
      }
    }
    return filled;
  }

  function middle(values, otherwise) {
    return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : otherwise;
  }

  function place(rows) {
    const columns = rows.flatMap((ids) => folded(ids));
    const tallest = Math.max(0, ...columns.map((ids) => ids.length));
    const places = new Map();
    columns.forEach((ids, column) => {
      const top = ((tallest - ids.length) * (HEIGHT + GAP_Y)) / 2;
      ids.forEach((id, row) => {
        places.set(id, { x: column * (WIDTH + GAP_X), y: top + row * (HEIGHT + GAP_Y), column, row });
      });
    });
    return {
      places, columns,
      width: Math.max(1, columns.length * (WIDTH + GAP_X) - GAP_X), height: Math.max(1, tallest * (HEIGHT + GAP_Y) - GAP_Y),
    };
  }

  function folded(ids) {
    const parts = Math.ceil(ids.length / TALLEST);
    const size = Math.ceil(ids.length / parts);
    return Array.from({ length: parts }, (_, part) => ids.slice(part * size, (part + 1) * size)).filter((part) => part.length);
  }

  /** Return the SVG path from the right side of one box to the left side of another; around what stands between. */
  function path(from, to) {
    const x1 = from.x + WIDTH, y1 = from.y + HEIGHT / 2, x2 = to.x, y2 = to.y + HEIGHT / 2;
    const passed = Math.round((x2 - x1) / (WIDTH + GAP_X));
    if (passed > 0 && Math.abs(y2 - y1) < HEIGHT) {
      const bow = -(HEIGHT + 14 + 8 * passed) * (from.row % 2 ? -1 : 1);
      return `M${x1},${y1} C${x1 + WIDTH / 2},${y1 + bow} ${x2 - WIDTH / 2},${y2 + bow} ${x2},${y2}`;
    }
    const bend = Math.max(22, Math.min(90, Math.abs(x2 - x1) / 2));
    return `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`;
  }

  return { WIDTH, HEIGHT, layOut, path };
})();
