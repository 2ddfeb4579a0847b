// Copy buttons, local times, and the deciding record in sight. The pages are complete without this file: the buttons are hidden until it runs.
"use strict";
(() => {
  const status = () => document.getElementById("status");

  function prepare(root) {
    for (const button of root.querySelectorAll("button.copy[hidden]")) button.hidden = false;
    for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
      const at = new Date(time.dateTime);
      if (!Number.isNaN(at.getTime())) time.title = "Local time: " + at.toLocaleString();
    }
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    const label = button.getAttribute("aria-label");
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
      status().textContent = label.replace(/^Copy/, "Copied");
    } catch {
      // Without a secure context there is no clipboard; select the text instead.
      const text = button.parentElement.querySelector("code");
      if (text) getSelection().selectAllChildren(text);
      button.textContent = "Selected";
      status().textContent = "Selected; copy it with the keyboard";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });

  new MutationObserver((changes) => {
    for (const change of changes) for (const node of change.addedNodes) if (node.querySelectorAll) prepare(node);
  }).observe(document.documentElement, { childList: true, subtree: true });
  prepare(document);

  // A long authentication summary scrolls within its card; the record that decides is to be seen.
  const box = document.querySelector(".summaries"), row = box?.querySelector("tr[aria-current]");
  if (row && row.offsetTop + row.offsetHeight > box.clientHeight) box.scrollTop = row.offsetTop - box.clientHeight / 2;
})();
