"use strict";
// Points at one character in every view of a passage at once, by pointer or arrow keys, and says what is known of it.
for (const passage of document.querySelectorAll(".passage")) {
  const data = JSON.parse(passage.querySelector("script").textContent);
  const readout = passage.querySelector(".readout");
  const hint = readout.textContent;
  // First bytes as numbers: to read them from the cells of a long text whenever the pointer moves takes far longer.
  const views = [...passage.querySelectorAll(".text")].map((view) => {
    const cells = [...view.querySelectorAll("i")];
    return { view, cells, starts: cells.map(({ dataset }) => Number(dataset.b)) };
  });
  const bits = (value) => (value === null ? "?" : value.toFixed(2));
  let marked = [];

  const show = (view, cell) => {
    marked.forEach((element) => element.classList.remove("on", "in"));
    marked = [];
    readout.textContent = hint;
    if (!cell) return;
    const start = Number(cell.dataset.b);
    for (const { view: other, cells, starts } of views) {
      const same = other === view ? cell : cells[starts.findLastIndex((candidate) => candidate <= start)];
      const unit = same.closest("u");
      same.classList.add("on");
      if (unit) unit.classList.add("in");
      marked.push(same, ...(unit ? [unit] : []));
    }
    const end = start + Number(cell.dataset.n || 1);
    const bytes = data.hex.slice(2 * start, 2 * end).match(/../g);
    const level = Math.max(...data.levels.slice(start, end));
    const closes = Array.from({ length: level }, (_, i) => i + 2).join(" and ");
    const parts = [
      `“${cell.textContent.trimEnd() || "␣"}”`,
      `${bytes.length > 1 ? "bytes" : "byte"} ${bytes.join(" ")} at ${start}`,
      `level ${level}: ${level ? `ends a unit of stage ${closes}` : "inside a unit"}`,
    ];
    if (data.bits) {
      const each = data.bits.slice(start, end);
      const total = each.includes(null) ? null : each.reduce((sum, value) => sum + value, 0);
      parts.push(`${bits(total)} bits${each.length > 1 ? ` (${each.map(bits).join(" + ")})` : ""}`);
    }
    readout.textContent = parts.join("   ");
  };

  for (const { view, cells } of views) {
    view.addEventListener("pointerover", (event) => show(view, event.target.closest("i")));
    view.addEventListener("pointerleave", () => show(view, null));
    view.addEventListener("blur", () => show(view, null));
    view.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      // With another key they are the browser's: Alt goes back.
      if (!move || !cells.length || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const at = cells.findIndex((cell) => cell.classList.contains("on"));
      const next = cells[Math.min(Math.max(at + move, 0), cells.length - 1)];
      show(view, next);
      next.scrollIntoView({ block: "nearest" });
    });
  }
}
