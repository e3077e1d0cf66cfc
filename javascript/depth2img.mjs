// Page side of "Depth to image": the state of the checkpoint in the header, and a panel that opens when it is of use.
// Runs inside the WebUI, whose script.js provides gradioApp, onUiLoaded and onOptionsChanged.

const TABS = ["txt2img", "img2img"];

/** Element id of a part of the panel; the same rule as the host's Script.elem_id. */
export function elementId(tab, part) {
  return `script_${tab}_depth_to_image_${part}`;
}

/** The short text for the header, from the state that the server sends with the status line. */
export function badgeText(state) {
  return { ready: "", wrong: "needs a depth checkpoint", failed: "checkpoint failed to load", host: "not in Forge" }[state] ?? "";
}

function find(tab, part) {
  return gradioApp().getElementById(elementId(tab, part));
}

function showBadge(tab) {
  const header = find(tab, "enabled")?.querySelector(".label-wrap span");
  const state = find(tab, "status")?.querySelector("[data-state]")?.dataset.state;
  if (!header || state === undefined) return;
  let badge = header.querySelector(".depth2img-badge");
  if (!badge) {
    badge = document.createElement("span");
    badge.className = "depth2img-badge";
    header.append(badge);
  }
  badge.textContent = badgeText(state);
  badge.hidden = badge.textContent === "";
}

/**
 * Start with the panel closed and the toggle as it is. The host ties the two together until its checkbox is clicked;
 * two clicks leave the value as it was.
 */
function closePanel(tab) {
  const accordion = find(tab, "enabled");
  const label = accordion?.querySelector(".label-wrap");
  if (!accordion?.visibleCheckbox || !label?.classList.contains("open")) return;
  accordion.visibleCheckbox.click();
  accordion.visibleCheckbox.click();
  label.click();
}

/** Give every control the help text of the options table as its tooltip. */
function showTooltips() {
  for (const holder of gradioApp().querySelectorAll(".depth2img-tooltips [data-tooltips]")) {
    for (const [id, help] of Object.entries(JSON.parse(holder.dataset.tooltips))) {
      const element = gradioApp().getElementById(id);
      if (element) (element.querySelector(".label-wrap") ?? element).title = help;
    }
  }
}

function refreshStatus() {
  for (const tab of TABS) find(tab, "refresh")?.click();
}

function start() {
  for (const tab of TABS) {
    const status = find(tab, "status");
    if (!status) continue;
    new MutationObserver(() => showBadge(tab)).observe(status, { childList: true, subtree: true, attributes: true });
    closePanel(tab);
  }
  showTooltips();
  refreshStatus();
}

if (typeof onUiLoaded === "function") {
  onUiLoaded(start);
  onOptionsChanged(refreshStatus);
}
