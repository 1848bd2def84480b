// The lineage as data: reads the page's table of nodes, and says which boxes are visible when groups are collapsed.
// Nothing here draws. Every value stays text.
"use strict";

const GraphModel = (() => {
  const MOST = 300; // boxes at once: more cannot be read, and browsers slow down
  const FIRST = 24; // boxes on opening

  /** A node is a row of the table; a group stands for its members until it is expanded. */
  function read(table) {
    const nodes = new Map();
    const groups = new Map();
    for (const row of table.tBodies[0].rows) {
      const node = {
        id: row.id, kind: row.dataset.kind, label: text(row, ".n-label"), sub: text(row, ".n-sub"),
        digest: text(row, ".n-digest"), href: link(row), tags: row.dataset.tags || "", facts: facts(row),
        inputs: words(row.dataset.inputs), compared: words(row.dataset.compared), outputs: [], parent: null,
      };
      node.parent = groupOf(groups, JSON.parse(row.dataset.group));
      if (node.parent) node.parent.members.push(node);
      nodes.set(node.id, node);
    }
    for (const node of nodes.values()) {
      node.inputs = node.inputs.filter((id) => nodes.has(id));
      node.compared = node.compared.filter((id) => nodes.has(id));
      for (const id of node.inputs) nodes.get(id).outputs.push(node.id);
    }
    return { nodes, groups };
  }

  function text(row, selector) {
    const cell = row.querySelector(selector);
    return cell ? cell.textContent.trim() : "";
  }

  function link(row) {
    const anchor = row.querySelector("a.n-open");
    return anchor ? anchor.getAttribute("href") : "";
  }

  function facts(row) {
    return [...row.querySelectorAll(".n-fact")].map((cell) => [cell.dataset.name, cell.textContent.trim()]);
  }

  function words(value) {
    return (value || "").split(" ").filter(Boolean);
  }

  /** Return the innermost group of a path of names, making those that do not exist yet. */
  function groupOf(groups, path) {
    let parent = null;
    path.forEach((label, depth) => {
      const id = "group " + JSON.stringify(path.slice(0, depth + 1));
      if (!groups.has(id)) {
        const group = { id, label, kind: "group", parent, groups: [], members: [], depth };
        groups.set(id, group);
        if (parent) parent.groups.push(group);
      }
      parent = groups.get(id);
    });
    return parent;
  }

  /** Return the ids of all that `start` (ids) was made of ("inputs") or went into ("outputs"), themselves included. */
  function reach(graph, start, direction) {
    const seen = new Set(start);
    const queue = [...start];
    while (queue.length) {
      for (const next of graph.nodes.get(queue.pop())[direction]) {
        if (!seen.has(next)) { seen.add(next); queue.push(next); }
      }
    }
    return seen;
  }

  /** Return the ids of the nodes that an item, a node or a group, stands for. */
  function leaves(item) {
    if (item.kind !== "group") return [item.id];
    return [...item.members.map((node) => node.id), ...item.groups.flatMap(leaves)];
  }

  function counted(group, shown) {
    return leaves(group).filter((id) => !shown || shown.has(id)).length;
  }

  /** Return what stands for a node: itself, or the outermost of its groups that is collapsed. */
  function standIn(node, expanded) {
    let item = node;
    for (let group = node.parent; group; group = group.parent) {
      if (!expanded.has(group.id)) item = group;
    }
    return item;
  }

  /** Return the visible items by id, and the arrows between them. `shown`: only these nodes; null means all. */
  function visible(graph, expanded, shown) {
    const items = new Map();
    const of = new Map();
    for (const node of graph.nodes.values()) {
      if (shown && !shown.has(node.id)) continue;
      const item = standIn(node, expanded);
      items.set(item.id, item);
      of.set(node.id, item.id);
    }
    return { items, edges: edges(graph, of), of };
  }

  function edges(graph, of) {
    const found = new Map();
    for (const [id, target] of of) {
      const node = graph.nodes.get(id);
      for (const [names, weak] of [[node.inputs, false], [node.compared, true]]) {
        for (const name of names) {
          const source = of.get(name);
          if (source === undefined || source === target) continue;
          const key = `${source} > ${target}`;
          const known = found.get(key);
          if (!known) found.set(key, { source, target, weak });
          else known.weak = known.weak && weak;
        }
      }
    }
    return [...found.values()];
  }

  /** Expand the groups around a node, outermost first. */
  function reveal(node, expanded) {
    for (let group = node.parent; group; group = group.parent) expanded.add(group.id);
  }

  /** Return the groups to expand on opening: those around `focus`, then the last groups while few boxes are visible. */
  function opening(graph, focus) {
    const expanded = new Set();
    if (focus) reveal(focus, expanded);
    fill(graph, expanded, null, FIRST, false);
    return expanded;
  }

  /** Expand groups, outer ones first and of those the last, while no more than `most` boxes are visible.
   *  all: go on after one that is too large. */
  function fill(graph, expanded, shown, most, all) {
    const order = [...graph.groups.values()].reverse().sort((a, b) => a.depth - b.depth);
    for (const group of order) {
      if (expanded.has(group.id) || (group.parent && !expanded.has(group.parent.id))) continue;
      expanded.add(group.id);
      if (visible(graph, expanded, shown).items.size <= most) continue;
      expanded.delete(group.id);
      if (!all) return;
    }
  }

  /** Collapse groups apart from those around `kept` until no more than MOST boxes are visible. */
  function shrink(graph, expanded, shown, kept) {
    const keep = new Set();
    for (let group = kept.kind === "group" ? kept : kept.parent; group; group = group.parent) keep.add(group.id);
    for (const id of [...expanded]) {
      if (visible(graph, expanded, shown).items.size <= MOST) return;
      if (!keep.has(id)) expanded.delete(id);
    }
  }

  return { MOST, read, reach, leaves, counted, standIn, visible, reveal, opening, fill, shrink };
})();
