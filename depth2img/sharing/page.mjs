// Opens the page: what is above this line in the file are the panel's own modules.

/** Show the page's picture and depth in a hover view; the picture alone where there is no WebGL. */
async function open(page) {
  const [picture, depth] = ["picture", "depth"].map((name) => page.getElementById(name));
  await Promise.all([picture.decode(), depth.decode()]);
  const { naturalWidth: width, naturalHeight: height } = depth;
  const drawn = Object.assign(page.createElement("canvas"), { width, height }).getContext("2d", { willReadFrequently: true });
  drawn.drawImage(depth, 0, 0);
  const values = decode(drawn.getImageData(0, 0, width, height).data);
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const viewer = new Viewer({ document: page, reducedMotion: () => calm.matches });
  if (!viewer.usable) {
    page.getElementById("note").textContent = "This browser has no WebGL at the moment: nothing moves.";
    return;
  }
  const { canvas } = viewer;
  const { movement, focus } = page.body.dataset;
  viewer.set({ strength: Number(movement), focus: Number(focus) });
  const controls = [["movement", "strength", movement], ["blend", "blend", 0]];
  for (const [name, setting, value] of controls) {
    const slider = page.getElementById(name);
    slider.value = value;
    slider.addEventListener("input", () => viewer.set({ [setting]: Number(slider.value) }));
    slider.parentElement.hidden = false;
  }
  canvas.width = picture.naturalWidth;
  canvas.height = picture.naturalHeight;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${picture.alt}: move the pointer or use the arrow keys; click sets the plane that stays still`);
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    const column = Math.min(width - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * width)));
    const row = Math.min(height - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * height)));
    viewer.set({ focus: values[row * width + column] });
    if (viewer.tiltNeedsConsent) viewer.askForTilt();
  });
  picture.hidden = true;
  picture.after(canvas);
  viewer.addEventListener("lost", () => { canvas.hidden = true; picture.hidden = false; });
  viewer.addEventListener("restored", () => { canvas.hidden = false; picture.hidden = true; });
  viewer.load(picture, dilated(values, width, height), width, height);
  viewer.show(true);
  addEventListener("resize", () => viewer.draw());
}

open(document);
