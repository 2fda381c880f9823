// The shop works without this. With it, what is chosen from a list applies at once, without a button.
for (const form of document.querySelectorAll("form[data-apply]")) {
  form.querySelector("button").hidden = true;
  form.addEventListener("change", () => form.requestSubmit());
}
