// The form that chooses a board: what is chosen with a pointer is shown at once. By keys one passes through what one does not
// want, so there the button sends it, as it does without JavaScript.
"use strict";
(function () {
  const form = document.querySelector("form.chooser");
  if (!form) return;
  const { env, split } = form.elements;
  let keys = false;

  form.addEventListener("keydown", () => {
    keys = true;
  });
  form.addEventListener("pointerdown", () => {
    keys = false;
  });
  form.addEventListener("change", () => {
    if (!keys) form.requestSubmit();
  });
  form.addEventListener("submit", () => {
    // A split that the environment does not have is left to the server to choose.
    split.disabled = !split.selectedOptions[0].dataset.envs.split(" ").includes(env.value);
  });
  window.addEventListener("pageshow", () => {
    split.disabled = false;
  });
})();
