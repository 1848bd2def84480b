// The page of a lineage: draws the boxes, and answers the pointer, the keyboard and the search.
// A value of a record reaches the page by textContent and setAttribute only; nothing is parsed as markup.
"use strict";

(() => {
  const table = document.getElementById("nodes");
  const stage = document.getElementById("graph");
  if (!table || !stage) return;
  const MARGIN = 24; // pixels of the drawing around it
  const CLOSEST = 0.8, READABLE = 1.35; // pixels of the drawing a pixel of the screen: of a few boxes, of many
  const graph = GraphModel.read(table);
  const byId = (id) => document.getElementById(id);
  const canvas = byId("canvas"), count = byId("count"), aside = byId("chosen"), said = byId("said");
  const state = { expanded: new Set(), shown: null, chosen: null, view: null };
  let drawn = { items: new Map(), edges: [], of: new Map(), layout: null };

  const item = (id) => graph.nodes.get(id) || graph.groups.get(id);
  const isGroup = (it) => it.kind === "group";

  function svg(name, attributes, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  function html(name, properties, ...children) {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  }

  // ---- drawing

  function draw() {
    const seen = GraphModel.visible(graph, state.expanded, state.shown);
    drawn = { ...seen, layout: GraphLayout.layOut(seen.items, seen.edges) };
    const paths = svg("g", {}), boxes = svg("g", {});
    for (const edge of drawn.edges) paths.append(arrow(edge));
    for (const it of drawn.items.values()) boxes.append(box(it));
    canvas.replaceChildren(paths, boxes);
    const nodes = state.shown ? state.shown.size : graph.nodes.size;
    count.textContent = `${drawn.items.size} boxes for ${nodes} of ${graph.nodes.size} nodes`;
    mark();
  }

  function arrow(edge) {
    const { places } = drawn.layout;
    const line = GraphLayout.path(places.get(edge.source), places.get(edge.target));
    edge.element = svg("path", { d: line, class: edge.weak ? "edge weak" : "edge" });
    return edge.element;
  }

  function box(it) {
    const place = drawn.layout.places.get(it.id);
    const { WIDTH, HEIGHT } = GraphLayout;
    const group = isGroup(it);
    const g = svg("g", { class: `node ${it.kind}`, transform: `translate(${place.x},${place.y})` });
    g.dataset.id = it.id;
    if (group) g.append(svg("rect", { class: "back", x: 4, y: 4, width: WIDTH, height: HEIGHT, rx: 7 }));
    g.append(svg("rect", { width: WIDTH, height: HEIGHT, rx: 7 }));
    g.append(line(it.label, { x: 10, y: 18 }, it.tags ? 18 : 20));
    g.append(line(subtitle(it), { x: 10, y: 33, class: "sub" }, 21));
    if (it.tags) g.append(svg("circle", { cx: WIDTH - 12, cy: 14, r: 4.5 }));
    g.append(svg("title", {}, `${it.label}\n${subtitle(it)}${it.digest ? `\n${it.digest}` : ""}`));
    return g;
  }

  function subtitle(it) {
    if (!isGroup(it)) return it.tags || it.sub;
    return `${GraphModel.counted(it, state.shown)} nodes`;
  }

  function line(text, attributes, most) {
    const letters = [...text];
    return svg("text", attributes, letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : text);
  }

  /** Show what is chosen, and what it was made of and went into, without drawing anew. */
  function mark() {
    const chosen = state.chosen && drawn.items.get(state.chosen);
    const near = chosen ? related(chosen) : null;
    for (const element of canvas.querySelectorAll(".node")) {
      element.classList.toggle("chosen", element.dataset.id === state.chosen);
      element.classList.toggle("dim", Boolean(near) && !near.has(element.dataset.id));
    }
    for (const edge of drawn.edges) {
      const on = near && near.has(edge.source) && near.has(edge.target) && (!edge.weak || touches(edge));
      edge.element.classList.toggle("on", Boolean(on));
      edge.element.classList.toggle("dim", Boolean(near) && !on);
    }
    panel(chosen);
  }

  function touches(edge) {
    return edge.source === state.chosen || edge.target === state.chosen;
  }

  function related(it) {
    const start = GraphModel.leaves(it).filter((id) => drawn.of.has(id));
    const ids = [...GraphModel.reach(graph, start, "inputs"), ...GraphModel.reach(graph, start, "outputs")];
    const near = new Set(ids.map((id) => drawn.of.get(id)));
    for (const edge of drawn.edges) if (edge.weak && touches(edge)) near.add(edge.source).add(edge.target);
    return near;
  }

  // ---- the panel beside it

  function panel(it) {
    if (!it) {
      aside.replaceChildren(html("h2", { textContent: "Nothing chosen" }),
        html("p", { className: "soft", textContent: "Choose a box, or search. Its inputs and all that it went into light up." }));
      return;
    }
    const parts = [html("h2", { textContent: it.label }), buttons(it)];
    const list = html("dl", { className: "facts" });
    for (const [name, value] of described(it)) list.append(html("dt", { textContent: name }), html("dd", {}, html("code", { textContent: value })));
    parts.push(list, neighbours(it, "Made of", "source", "target"), neighbours(it, "Went into", "target", "source"));
    aside.replaceChildren(...parts.filter(Boolean));
  }

  function described(it) {
    if (isGroup(it)) return [["nodes", String(GraphModel.counted(it, state.shown))]];
    const own = [["what", it.sub], ["pointed at by", it.tags], ["sha256", it.digest]].filter(([, value]) => value);
    return [...own, ...it.facts];
  }

  function buttons(it) {
    const row = html("div", { className: "links" });
    const add = (label, act) => row.append(html("button", { type: "button", className: "plain", textContent: label, onclick: act }));
    if (isGroup(it)) add("Expand", () => expand(it));
    if (it.href) row.append(html("a", { className: "button", textContent: "Open page", href: it.href }));
    add("Only inputs", () => only(it, ["inputs"]));
    add("Only outputs", () => only(it, ["outputs"]));
    add("Both", () => only(it, ["inputs", "outputs"]));
    if (it.parent) add(`Collapse ${it.parent.label}`, () => collapse(it.parent));
    return row;
  }

  function neighbours(it, title, end, own) {
    const found = drawn.edges.filter((edge) => edge[own] === it.id).map((edge) => [item(edge[end]), edge.weak]);
    if (!found.length) return null;
    const list = html("ul", { className: "plain" });
    for (const [other, weak] of found.slice(0, 40)) {
      const name = `${other.label}${weak ? " (compared)" : ""}`;
      const button = html("button", { type: "button", textContent: name, onclick: () => choose(other.id, true) });
      list.append(html("li", {}, button, html("span", { className: "soft", textContent: ` ${subtitle(other)}` })));
    }
    if (found.length > 40) list.append(html("li", { className: "soft", textContent: `and ${found.length - 40} more` }));
    return html("div", {}, html("h3", { textContent: `${title} (${found.length})` }), list);
  }

  // ---- acts

  function choose(id, center) {
    state.chosen = id;
    mark();
    const it = item(id);
    if (it) said.textContent = `${it.label}, ${subtitle(it)}`;
    if (it && center) bring(id);
  }

  function expand(group) {
    state.expanded.add(group.id);
    GraphModel.shrink(graph, state.expanded, state.shown, group);
    const first = group.groups[group.groups.length - 1] || group.members[0];
    draw();
    choose(drawn.items.has(first.id) ? first.id : drawn.of.get(GraphModel.leaves(group)[0]), true);
  }

  function collapse(group) {
    for (const other of graph.groups.values()) {
      for (let at = other; at; at = at.parent) if (at === group) state.expanded.delete(other.id);
    }
    draw();
    choose(group.id, true);
  }

  /** Leave only what an item was made of, or went into, or both. */
  function only(it, directions) {
    const start = GraphModel.leaves(it).filter((id) => !state.shown || state.shown.has(id));
    state.shown = new Set(directions.flatMap((direction) => [...GraphModel.reach(graph, start, direction)]));
    GraphModel.fill(graph, state.expanded, state.shown, GraphModel.MOST / 4, true);
    GraphModel.shrink(graph, state.expanded, state.shown, it);
    byId("all").disabled = false;
    draw();
    fit();
  }

  function showAll() {
    state.shown = null;
    byId("all").disabled = true;
    draw();
    fit();
  }

  function open(it) {
    if (isGroup(it)) expand(it);
    else if (it.href) window.location.href = it.href;
  }

  /** Choose a node wherever it is, expanding the groups around it. */
  function goTo(node) {
    if (state.shown && !state.shown.has(node.id)) state.shown = null;
    byId("all").disabled = state.shown === null;
    GraphModel.reveal(node, state.expanded);
    GraphModel.shrink(graph, state.expanded, state.shown, node);
    draw();
    choose(node.id, true);
    canvas.focus({ preventScroll: true });
  }

  // ---- pan and zoom: the view is the SVG's viewBox

  function show(view) {
    state.view = view;
    canvas.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.h}`);
  }

  /** Return a view that shows no more of the empty margin than it must: centred where all fits. */
  function within(view) {
    const { width, height } = drawn.layout;
    const kept = (start, length, whole) => length >= whole + 2 * MARGIN
      ? (whole - length) / 2 : Math.min(Math.max(start, -MARGIN), whole + MARGIN - length);
    return { ...view, x: kept(view.x, view.w, width), y: kept(view.y, view.h, height) };
  }

  function size() {
    return { w: canvas.clientWidth || 800, h: canvas.clientHeight || 500 };
  }

  function fit() {
    const { w, h } = size();
    const { width, height } = drawn.layout;
    const scale = Math.max((width + 2 * MARGIN) / w, (height + 2 * MARGIN) / h, CLOSEST);
    show(within({ x: 0, y: 0, w: w * scale, h: h * scale }));
  }

  function zoom(factor, at) {
    const { w, h } = size();
    const view = state.view;
    const scale = Math.min(Math.max((view.w / w) * factor, 0.25), Math.max(12, drawn.layout.width / w));
    const part = at || { x: 0.5, y: 0.5 };
    const next = { w: w * scale, h: h * scale };
    show({ ...next, x: view.x + (view.w - next.w) * part.x, y: view.y + (view.h - next.h) * part.y });
  }

  function bring(id) {
    const place = drawn.layout.places.get(id);
    if (!place) return;
    const { w, h } = size();
    const scale = Math.min(state.view ? state.view.w / w : 1, READABLE);
    const view = { w: w * scale, h: h * scale };
    show(within({ ...view, x: place.x + GraphLayout.WIDTH / 2 - view.w / 2, y: place.y + GraphLayout.HEIGHT / 2 - view.h / 2 }));
  }

  // ---- keyboard

  function step(key) {
    const place = drawn.layout.places.get(state.chosen);
    if (!place) { choose(drawn.layout.columns[0][0], true); return; }
    if (key === "ArrowUp" || key === "ArrowDown") {
      const column = drawn.layout.columns[place.column];
      const row = place.row + (key === "ArrowDown" ? 1 : -1);
      if (column[row]) choose(column[row], true);
      return;
    }
    const [end, own] = key === "ArrowLeft" ? ["source", "target"] : ["target", "source"];
    const next = drawn.edges.filter((edge) => edge[own] === state.chosen).sort((a, b) => a.weak - b.weak);
    const near = next.filter((edge) => edge.weak === next[0].weak).map((edge) => edge[end]);
    const distance = (id) => Math.abs(drawn.layout.places.get(id).y - place.y) + Math.abs(drawn.layout.places.get(id).x - place.x);
    near.sort((a, b) => distance(a) - distance(b));
    if (near.length) choose(near[0], true);
  }

  function onKey(event) {
    const chosen = state.chosen && drawn.items.get(state.chosen);
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.startsWith("Arrow")) step(event.key);
    else if (event.key === "Enter" && chosen) open(chosen);
    else if (event.key === "c" && chosen && chosen.parent) collapse(chosen.parent);
    else if (event.key === "u" && chosen) only(chosen, ["inputs"]);
    else if (event.key === "d" && chosen) only(chosen, ["outputs"]);
    else if (event.key === "Escape") { if (state.shown) showAll(); else choose(null); }
    else if (event.key === "+" || event.key === "=") zoom(0.8);
    else if (event.key === "-") zoom(1.25);
    else if (event.key === "0") fit();
    else return;
    event.preventDefault();
  }

  // ---- pointer

  const pointer = { from: null, moved: false };

  function boxAt(event) {
    const element = event.target.closest(".node");
    return element ? item(element.dataset.id) : null;
  }

  canvas.addEventListener("pointerdown", (event) => {
    pointer.from = { x: event.clientX, y: event.clientY, view: state.view };
    pointer.moved = false;
  });
  window.addEventListener("pointermove", (event) => {
    if (!pointer.from) return;
    const dx = event.clientX - pointer.from.x, dy = event.clientY - pointer.from.y;
    if (Math.abs(dx) + Math.abs(dy) > 4) pointer.moved = true;
    const scale = pointer.from.view.w / size().w;
    if (pointer.moved) show({ ...pointer.from.view, x: pointer.from.view.x - dx * scale, y: pointer.from.view.y - dy * scale });
  });
  window.addEventListener("pointerup", () => { pointer.from = null; });
  canvas.addEventListener("click", (event) => {
    if (pointer.moved) return;
    const it = boxAt(event);
    choose(it ? it.id : null);
  });
  canvas.addEventListener("dblclick", (event) => {
    const it = boxAt(event);
    if (it) open(it);
  });
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return; // the wheel scrolls the page until the graph is chosen
    event.preventDefault();
    const area = canvas.getBoundingClientRect();
    zoom(event.deltaY > 0 ? 1.12 : 0.89, { x: (event.clientX - area.left) / area.width, y: (event.clientY - area.top) / area.height });
  }, { passive: false });
  canvas.addEventListener("keydown", onKey);
  window.addEventListener("resize", () => { if (state.view) zoom(1); });

  // ---- start

  byId("fit").addEventListener("click", fit);
  byId("closer").addEventListener("click", () => zoom(0.8));
  byId("farther").addEventListener("click", () => zoom(1.25));
  byId("collapse").addEventListener("click", () => { state.expanded.clear(); draw(); fit(); });
  byId("all").addEventListener("click", showAll);
  GraphSearch.attach(graph, goTo);

  const wanted = decodeURIComponent(window.location.hash.slice(1));
  const focus = [...graph.nodes.values()].find((node) => wanted && (node.digest === wanted || node.facts.some(([, value]) => value === wanted)))
    || graph.nodes.get(stage.dataset.focus);
  state.expanded = GraphModel.opening(graph, focus);
  stage.hidden = false;
  byId("as-table").open = false;
  draw();
  fit();
  if (focus) choose(focus.id, state.view.w / size().w > READABLE);
})();
