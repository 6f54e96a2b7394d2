// Bars behind figures: their part of the largest in the column.
for (const table of document.querySelectorAll("table")) {
  const largest = [];
  const bars = [...table.querySelectorAll("td.bar")];
  for (const { cellIndex: i, dataset } of bars) {
    if (Number(dataset.v) < 1e300) largest[i] = Math.max(largest[i] ?? 0, Number(dataset.v));
  }
  for (const cell of bars) {
    const share = Math.min(1, Number(cell.dataset.v) / (largest[cell.cellIndex] || 1));
    cell.style.setProperty("--w", `${(100 * share).toFixed(1)}%`);
  }
}

const table = document.getElementById("layers");
const body = table.tBodies[0];
const heads = [...table.tHead.rows[0].cells];
heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
  const number = head.classList.contains("n");
  // Figures are looked at from the largest down, names and places from the first up.
  const first = number && column > 0 ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  heads.forEach((h) => h.setAttribute("aria-sort", h === head ? order : "none"));
  const key = (row) => number ? Number(row.cells[column].dataset.v) : row.cells[column].dataset.v;
  const sign = order === "ascending" ? 1 : -1;
  const sorted = [...body.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    return x < y ? -sign : x > y ? sign : 0;
  });
  body.append(...sorted);
}));

const filter = document.getElementById("filter");
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of body.rows) {
    const text = row.cells[1].textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  document.getElementById("shown").textContent = `${shown} of ${body.rows.length}`;
});

const svg = document.querySelector("#depth svg");
const readout = document.getElementById("readout");
svg.addEventListener("pointermove", (event) => {
  const box = svg.getBoundingClientRect();
  const share = (event.clientX - box.left) / box.width;
  const index = Math.min(rows.length - 1, Math.max(0, Math.floor(share * rows.length)));
  const [node, operator, own, accumulated] = rows[index];
  readout.textContent = `${index + 1}. ${node} (${operator}): accumulated ${accumulated}, own ${own}`;
  svg.querySelector(".cursor").setAttribute("d", `M${100 * (index + 0.5) / rows.length} 0V100`);
});
