"use strict";
// Tables: a click on a column's head sorts by it, a second one turns the order.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, column = head.cellIndex, body = head.closest("table").tBodies[0];
    const down = head.ariaSort === "descending" || (head.ariaSort !== "ascending" && column === 0);
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.ariaSort = down ? "ascending" : "descending";
    const key = (row) => {
      const cell = row.cells[column], value = cell.dataset.value;
      return value === undefined ? cell.textContent.trim() : parseFloat(value);
    };
    const compare = (a, b) => typeof a === "string" ? a.localeCompare(b, undefined, {numeric: true}) : a - b;
    const rows = [...body.rows].sort((a, b) => compare(key(a), key(b)) * (down ? 1 : -1));
    body.append(...rows);
  });
}
// Players: a line runs over the pictures with the sound; a click on them goes there.
for (const card of document.querySelectorAll(".utterance")) {
  const audio = card.querySelector("audio"), tracks = card.querySelector(".tracks");
  if (!audio || !tracks) continue;
  const head = tracks.querySelector(".playhead"), seconds = parseFloat(tracks.dataset.seconds);
  const show = () => {
    head.style.left = 100 * Math.min(1, audio.currentTime / seconds) + "%";
    if (!audio.paused) requestAnimationFrame(show);
  };
  for (const event of ["play", "seeked", "timeupdate"]) audio.addEventListener(event, show);
  tracks.addEventListener("click", (event) => {
    const box = tracks.getBoundingClientRect();
    audio.currentTime = seconds * (event.clientX - box.left) / box.width;
    audio.play();
  });
}
// All utterances: show the rows that hold what is typed.
const search = document.querySelector("#search");
if (search) search.addEventListener("input", () => {
  const wanted = search.value.toLowerCase();
  for (const row of document.querySelectorAll("#all tbody tr"))
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
});
