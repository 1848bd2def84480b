// The search field of a lineage: a list of nodes that match, chosen by pointer or keyboard.
"use strict";

const GraphSearch = (() => {
  const MOST = 12;

  function attach(graph, goTo) {
    const field = document.getElementById("find");
    const list = document.getElementById("hits");
    const known = [...graph.nodes.values()].map((node) => [haystack(node), node]);
    let hits = [];
    let at = 0;

    function close() {
      list.hidden = true;
      field.setAttribute("aria-expanded", "false");
      field.removeAttribute("aria-activedescendant");
    }

    function take(node) {
      close();
      if (node) goTo(node);
    }

    function refresh() {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      const all = words.length ? known.filter(([text]) => words.every((word) => text.includes(word))).map(([, node]) => node) : [];
      all.sort((a, b) => rank(a, words[0]) - rank(b, words[0]));
      hits = all.slice(0, MOST);
      at = 0;
      const entries = hits.map((node, number) => entry(node, number, () => take(node)));
      if (words.length && !hits.length) entries.push(note("nothing matches"));
      if (all.length > MOST) entries.push(note(`and ${all.length - MOST} more: type on`));
      list.replaceChildren(...entries);
      list.hidden = !words.length;
      field.setAttribute("aria-expanded", String(!list.hidden));
      point();
    }

    function point() {
      [...list.children].forEach((child, number) => {
        if (child.id) child.setAttribute("aria-selected", String(number === at));
      });
      if (hits.length) field.setAttribute("aria-activedescendant", `hit-${at}`);
    }

    field.addEventListener("input", refresh);
    field.addEventListener("focus", () => { if (field.value) refresh(); });
    field.addEventListener("blur", () => setTimeout(close, 150));
    field.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        at = (at + (event.key === "ArrowDown" ? 1 : hits.length - 1)) % Math.max(1, hits.length);
        point();
      } else if (event.key === "Enter") take(hits[at]);
      else if (event.key === "Escape") { field.value = ""; close(); }
      else return;
      event.preventDefault();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
      event.preventDefault();
      field.focus();
      field.select();
    });
  }

  function haystack(node) {
    const groups = [];
    for (let group = node.parent; group; group = group.parent) groups.push(group.label);
    const facts = node.facts.map(([, value]) => value);
    return [node.label, node.sub, node.tags, node.digest, ...facts, ...groups].join(" ").toLowerCase();
  }

  /** Return 0 for a node that is called so, 1 for one that is called something like it, 2 for the rest. */
  function rank(node, word) {
    const label = node.label.toLowerCase();
    return label === word ? 0 : label.includes(word) ? 1 : 2;
  }

  function entry(node, number, act) {
    const element = document.createElement("li");
    element.id = `hit-${number}`;
    element.setAttribute("role", "option");
    const where = document.createElement("span");
    where.className = "soft";
    where.textContent = ` ${node.sub} ${node.digest.slice(0, 12)}`;
    element.append(node.label, where);
    element.addEventListener("pointerdown", (event) => { event.preventDefault(); act(); });
    return element;
  }

  function note(text) {
    const element = document.createElement("li");
    element.className = "soft";
    element.textContent = text;
    return element;
  }

  return { attach };
})();
