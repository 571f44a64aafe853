"""The script of a page: it sorts tables, shows a card's picture whole, moves a threshold.

A page says all without it. It reads numbers and sentences from attributes of the page and writes
text only, never markup, so that no name in the page becomes part of it; a page allows this one
script by its hash.
"""

SCRIPT = r"""
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // --- tables -----------------------------------------------------------------------------------
  const compare = (numeric, sign) => (a, b) => {
    if (!numeric) return sign * a.localeCompare(b, undefined, {numeric: true});
    const [x, y] = [a, b].map((text) => Number.parseFloat(text.replace("−", "-")));
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return sign * (x - y);
  };
  const sort = (table, head, column) => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of all("th", table)) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const order = compare(head.classList.contains("number"), up ? 1 : -1);
    const text = (row) => row.cells[column].textContent;
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => order(text(a), text(b))));
  };
  for (const table of all("table.sortable")) {
    all("th", table).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.addEventListener("click", () => sort(table, head, column));
      head.replaceChildren(button);
    });
  }

  // --- cards ------------------------------------------------------------------------------------
  const dialog = document.createElement("dialog");
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Close";
  dialog.addEventListener("click", () => dialog.close());
  document.body.append(dialog);
  for (const link of all("a.whole")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const facts = link.closest("li").querySelector("dl").cloneNode(true);
      dialog.replaceChildren(...link.cloneNode(true).childNodes, facts, close);
      dialog.showModal();
    });
  }

  // --- threshold --------------------------------------------------------------------------------
  const words = {normal: ["no", "false alarm"], defect: ["missed", "yes"], "": ["no", "yes"]};
  for (const control of all(".slider")) {
    const stops = JSON.parse(control.dataset.stops);
    const input = control.querySelector("input");
    const start = Number(input.value);
    const plot = control.closest("section").querySelector("img.plot");
    const line = document.createElement("span");
    line.className = "line";
    plot.parentNode.classList.add("under-line");
    plot.parentNode.append(line);
    const narrow = matchMedia("(max-width: 42rem)");
    const show = () => {
      const [threshold, wide, small, outcome] = stops[Number(input.value)];
      control.querySelector(".outcome").textContent = outcome;
      line.style.left = `${100 * (narrow.matches ? small : wide)}%`;
      line.hidden = Number(input.value) === start;
      for (const item of all("[data-score]")) {
        const alarm = Number(item.dataset.score) > threshold;
        item.classList.toggle(item.tagName === "TR" ? "strong" : "marked", alarm);
        const word = item.querySelector('[data-fact="alarm"]');
        if (word) word.textContent = words[item.dataset.kind][Number(alarm)];
      }
    };
    input.addEventListener("input", show);
    narrow.addEventListener("change", show);
    control.querySelector("button").addEventListener("click", () => {
      input.value = start;
      show();
    });
    for (const hidden of all("[hidden]", control)) hidden.hidden = false;
    show();
  }
})();
"""
