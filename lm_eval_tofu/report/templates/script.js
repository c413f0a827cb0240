"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const plain = (text) => text.toLocaleLowerCase().normalize("NFKD").replace(/\p{M}/gu, "");
  const show = (items, wanted, count) => {
    let shown = 0;
    for (const item of items) {
      item.element.hidden = !wanted(item);
      shown += item.element.hidden ? 0 : 1;
    }
    count.textContent = `${shown} of ${items.length}`;
  };
  const all = (selector) =>
    [...document.querySelectorAll(selector)].map((element) => ({ element, text: plain(element.textContent) }));

  const leakSearch = byId("leak-search");
  if (leakSearch) {
    const leaks = all("#leak-cards > article");
    leakSearch.addEventListener("input", () => {
      const words = plain(leakSearch.value).split(/\s+/).filter(Boolean);
      show(leaks, (leak) => words.every((word) => leak.text.includes(word)), byId("leak-count"));
    });
  }

  const table = byId("row-table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = all("#row-table tbody tr");
  const arm = byId("row-arm");
  const rowSearch = byId("row-search");
  const filter = () => {
    const words = plain(rowSearch.value).split(/\s+/).filter(Boolean);
    const own = rows.filter((row) => row.element.dataset.arm === arm.value);
    for (const row of rows) row.element.hidden = true;
    show(own, (row) => words.every((word) => row.text.includes(word)), byId("row-count"));
  };
  arm.addEventListener("change", filter);
  rowSearch.addEventListener("input", filter);
  filter();

  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.v ?? cell.textContent;
    const number = Number(text.replace("−", "-"));
    return text.trim() === "" || Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a.localeCompare(b);
  };
  table.tHead.addEventListener("click", (event) => {
    const heading = event.target.closest("th");
    if (!heading || !event.target.closest("button")) return;
    // Leaks are looked for from the top: their first click sorts downwards.
    const first = heading.cellIndex > 5 ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = heading.getAttribute("aria-sort") === first ? other : first;
    for (const each of table.tHead.rows[0].cells) each.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const keyed = [...body.rows].map((row) => [value(row, heading.cellIndex), row]);
    // What has no value stays at the end, in both orders.
    const gap = ([key]) => key === "–";
    keyed.sort((a, b) => gap(a) - gap(b) || sign * compare(a[0], b[0]));
    body.append(...keyed.map(([, row]) => row));
  });
})();
