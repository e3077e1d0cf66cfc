// The elements that the stage is made of, with their texts in the user's language.

export class Elements {
  constructor({ document, t }) {
    Object.assign(this, { document, t });
  }

  make(tag, className, parent) {
    const element = this.document.createElement(tag);
    if (className) element.className = className;
    parent?.append(element);
    return element;
  }

  button(title, parent, action, help = "") {
    const button = this.make("button", "depth2img-button", parent);
    button.type = "button";
    button.textContent = this.t(title);
    if (help) button.title = this.t(help);
    button.addEventListener("click", action);
    return button;
  }

  label(title, parent) {
    const label = this.make("label", "depth2img-label", parent);
    this.make("span", "", label).textContent = this.t(title);
    return label;
  }

  select(title, options, parent, chosen) {
    const select = this.make("select", "", this.label(title, parent));
    for (const [value, name] of Object.entries(options)) {
      const option = this.make("option", "", select);
      Object.assign(option, { value, textContent: this.t(name), selected: value === chosen });
    }
    return select;
  }

  slider(title, parent, range, action) {
    const slider = this.make("input", "", this.label(title, parent));
    Object.assign(slider, { type: "range", ...range });
    slider.value = range.value;
    slider.addEventListener("input", () => action(Number(slider.value)));
    return slider;
  }

  check(title, parent, action) {
    const label = this.make("label", "depth2img-label depth2img-check", parent);
    const box = this.make("input", "", label);
    box.type = "checkbox";
    box.addEventListener("change", () => action(box.checked));
    this.make("span", "", label).textContent = this.t(title);
    return box;
  }
}
