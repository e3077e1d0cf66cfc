// The stage large: its row of the panel, with the controls that change what it shows, over the whole page.

const TEXT = "textarea, select, [contenteditable], input:not([type=range], [type=checkbox], [type=radio], [type=button])";

export class Large {
  /** `root`: the stage; `label`: names the row while it is large; `button`: opens and closes it. */
  constructor({ document, root, label, button }) {
    Object.assign(this, { document, root, label, button });
    this.row = null; // while it is large
    this.inert = [];
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => this.toggle());
    document.addEventListener("keydown", (event) => this.onKey(event));
  }

  toggle() {
    if (this.row) this.close();
    else this.open();
  }

  open() {
    const row = this.root.closest(".depth2img-row");
    if (!row) return;
    this.row = row;
    this.before = this.document.activeElement;
    this.room = this.document.createElement("div"); // stands in for the row, so that nothing on the page moves
    this.room.style.cssText = `flex: none; height: ${row.getBoundingClientRect().height}px`;
    row.after(this.room);
    row.classList.add("depth2img-large");
    for (const [name, value] of [["role", "dialog"], ["aria-modal", "true"], ["aria-label", this.label]]) row.setAttribute(name, value);
    // All that is not in the row can be neither reached nor read meanwhile.
    for (let element = row; element !== this.document.body; element = element.parentElement) {
      for (const other of element.parentElement.children) {
        if (other === element || other.inert) continue;
        other.inert = true;
        this.inert.push(other);
      }
    }
    this.document.documentElement.classList.add("depth2img-behind");
    this.button.setAttribute("aria-pressed", "true");
    if (!row.contains(this.before)) this.button.focus();
  }

  close() {
    const { row } = this;
    if (!row) return;
    this.row = null;
    row.classList.remove("depth2img-large");
    for (const name of ["role", "aria-modal", "aria-label"]) row.removeAttribute(name);
    for (const element of this.inert.splice(0)) element.inert = false;
    this.room.remove();
    this.document.documentElement.classList.remove("depth2img-behind");
    this.button.setAttribute("aria-pressed", "false");
    (this.before?.isConnected && this.before !== this.document.body ? this.before : this.button).focus({ preventScroll: true });
  }

  /** `f` opens and closes where the stage has the focus or the pointer; Escape closes. */
  onKey(event) {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || event.target.closest?.(TEXT)) return;
    if (event.key === "Escape" && this.row) this.close();
    else if (event.key.toLowerCase() === "f" && (this.row || this.root.contains(event.target) || this.root.matches(":hover"))) this.toggle();
    else return;
    event.preventDefault();
  }
}
