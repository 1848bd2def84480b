// Small comforts of every page; each works on what the page already shows, and pages are readable without it.
"use strict";

(() => {
  /** Sort a table by a column: numbers by value, the rest as text. */
  function sortable(table) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => compare(value(a.cells[column]), value(b.cells[column])) * (down ? -1 : 1));
        table.tBodies[0].append(...rows);
      });
    });
  }

  function value(cell) {
    return cell ? (cell.dataset.value ?? cell.textContent.trim()) : "";
  }

  function compare(a, b) {
    const [x, y] = [Number(a), Number(b)];
    if (a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b, "en", { numeric: true });
  }

  /** Show only the rows of a table that hold every word of a field. */
  function filter(field) {
    const table = document.getElementById(field.dataset.filter);
    if (!table) return;
    const rows = [...table.tBodies[0].rows].map((row) => [row, row.textContent.toLowerCase()]);
    const none = document.getElementById(`${field.dataset.filter}-none`);
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      for (const [row, text] of rows) {
        row.hidden = !words.every((word) => text.includes(word));
        left += row.hidden ? 0 : 1;
      }
      if (none) none.hidden = left > 0;
    });
  }

  /** Go to the page of a pair: a site of files has no server that could read the form. */
  function compareForm(form) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const [a, b] = [form.elements.a.value, form.elements.b.value];
      const link = [...document.querySelectorAll("a[data-pair]")].find((other) => other.dataset.pair === `${a}..${b}`);
      const note = document.getElementById("no-pair");
      if (link) window.location.href = link.getAttribute("href");
      else if (form.dataset.served) form.submit();
      else note.hidden = false;
    });
  }

  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("input[data-filter]").forEach(filter);
  document.querySelectorAll("form.find-form:not([data-served])").forEach((form) => {
    form.addEventListener("submit", (event) => event.preventDefault());
  });
  document.querySelectorAll("form.compare").forEach(compareForm);
})();
