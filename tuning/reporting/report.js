"use strict";
// Tables are sorted by a click on a column's title, and the other way round by the next; empty cells stay last.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const title = button.parentElement;
    const body = title.closest("table").tBodies[0];
    const column = title.cellIndex;
    const numbers = title.classList.contains("number");
    const was = title.getAttribute("aria-sort");
    const descending = was ? was === "ascending" : numbers;
    for (const other of title.parentElement.cells) other.removeAttribute("aria-sort");
    title.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.key;
    const compare = (one, other) =>
      numbers ? Number(one) - Number(other) : one.localeCompare(other, "en", { numeric: true });
    const rows = [...body.rows].sort((one, other) => {
      const [first, second] = [key(one), key(other)];
      if (first === "" || second === "") return (first === "") - (second === "");
      return descending ? compare(second, first) : compare(first, second);
    });
    body.append(...rows);
  });
}
