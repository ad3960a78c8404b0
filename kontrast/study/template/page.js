"use strict";
document.documentElement.classList.add("js");

// Tables: a button in the head of each column sorts by it. Cells without a number stay last.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table.tBodies[0], heads, column));
    head.append(button);
  });
}

function sort(body, heads, column) {
  const sign = heads[column].getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const rows = Array.from(body.rows, (row) => ({ row, cell: row.cells[column] }));
  const absent = ({ cell }) => cell.dataset.value === "" || cell.dataset.value === "nan";
  rows.sort((a, b) => {
    if (absent(a) || absent(b)) return absent(a) - absent(b);
    if ("value" in a.cell.dataset) return sign * (a.cell.dataset.value - b.cell.dataset.value);
    return sign * a.cell.textContent.localeCompare(b.cell.textContent, "en", { numeric: true });
  });
  body.append(...rows.map(({ row }) => row));
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[column].setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
}

// The map: the mark next to the pointer, or the next one in the direction of an arrow key, shows its image.
for (const plot of document.querySelectorAll(".plot")) {
  const tip = plot.querySelector(".tip");
  const tile = plot.querySelector(".tile");
  const said = plot.closest("figure").querySelector(".said");
  const side = Number(plot.dataset.tile);
  const maps = Array.from(plot.querySelectorAll(".map"), (svg) => ({
    svg,
    ring: svg.querySelector(".ring"),
    marks: Array.from(svg.querySelectorAll("use"), (use, i) => {
      const title = use.querySelector("title");
      title.remove(); // Else the browser shows it too.
      return { i, x: use.x.baseVal.value, y: use.y.baseVal.value, code: use.dataset.code, text: title.textContent };
    }),
  }));
  const shown = () => maps.find(({ svg }) => svg.getBoundingClientRect().width > 0);
  let current = -1;

  const hide = () => {
    tip.hidden = true;
    for (const { ring } of maps) ring.setAttribute("hidden", "");
  };
  const show = ({ i, x, y, text }) => {
    const { svg, ring } = shown();
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    current = i;
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    ring.removeAttribute("hidden");
    tile.style.backgroundPosition = `${-side * (i % plot.dataset.columns)}px ${-side * Math.floor(i / plot.dataset.columns)}px`;
    tip.querySelector(".name").textContent = text;
    tip.hidden = false;
    const left = x * scale + 16 + tip.offsetWidth > plot.offsetWidth ? x * scale - 16 - tip.offsetWidth : x * scale + 16;
    tip.style.left = `${Math.max(0, Math.min(left, plot.offsetWidth - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, Math.min(y * scale - 40, plot.offsetHeight - tip.offsetHeight))}px`;
  };
  const nearest = (marks, cost) => {
    let best = null;
    let least = Infinity;
    for (const mark of marks) {
      const value = cost(mark);
      if (value < least) [best, least] = [mark, value];
    }
    return best;
  };

  const point = (event) => {
    const { svg, marks } = shown();
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const reach = 16 * scale;
    const found = nearest(marks, (mark) => {
      const distance = Math.hypot(mark.x - x, mark.y - y);
      return distance < reach ? distance : Infinity;
    });
    if (found) show(found);
    else hide();
  };
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);

  const directions = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  plot.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const direction = directions[event.key];
    if (!direction || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const { marks, svg } = shown();
    const middle = svg.viewBox.baseVal.width / 2;
    const from = marks[current];
    const next = from
      ? nearest(marks, (mark) => {
          const [dx, dy] = [mark.x - from.x, mark.y - from.y];
          const along = dx * direction[0] + dy * direction[1];
          const across = Math.abs(dx * direction[1] - dy * direction[0]);
          return along > 0 && across <= along ? Math.hypot(dx, dy) : Infinity;
        })
      : nearest(marks, (mark) => Math.hypot(mark.x - middle, mark.y - middle));
    if (!next) return;
    show(next);
    said.textContent = next.text.replace("\n", ", ");
  });
  plot.tabIndex = 0;
  plot.setAttribute("role", "application");
  plot.setAttribute("aria-label", "Map of the test images");
  plot.setAttribute("aria-describedby", "how");

  // The key: an entry lights its class up, while the pointer is on it or for as long as it is pressed.
  let pressed = null;
  const light = (code) => {
    for (const { svg } of maps) {
      svg.classList.toggle("lit", code !== null);
      for (const use of svg.querySelectorAll("use")) use.classList.toggle("lit", use.dataset.code === code);
    }
  };
  for (const entry of plot.closest("figure").querySelectorAll(".classes li")) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.append(...entry.childNodes);
    button.addEventListener("click", () => {
      const before = pressed;
      if (before) before.setAttribute("aria-pressed", "false");
      pressed = before === button ? null : button;
      if (pressed) pressed.setAttribute("aria-pressed", "true");
      light(pressed ? entry.dataset.code : null);
    });
    button.addEventListener("pointerenter", () => light(entry.dataset.code));
    button.addEventListener("pointerleave", () => light(pressed ? pressed.parentNode.dataset.code : null));
    entry.append(button);
  }
}
