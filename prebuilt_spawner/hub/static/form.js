// The spawn form's comforts; without this script it works all the same. `prebuiltPackages` is of packages.js.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("prebuilt-spawner-data").textContent);
  const text = document.getElementById("prebuilt-packages");
  const outlook = document.getElementById("prebuilt-outlook");
  const form = outlook.closest("form");
  const reader = prebuiltPackages(data.rules);

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // -- the package list as chips ------------------------------------------------------------------------------------

  // The textarea stays what is sent; `entries` is what is in it, and `typing` takes what comes next.
  let entries = [];
  let typing = null;
  let list = null;
  let mistakes = null;
  let asText = null;

  const write = () => {
    text.value = reader.toText(entries);
    draw();
    foresee();
  };

  const add = (pasted) => {
    entries = reader.entries(`${reader.toText(entries)}\n${pasted}`);
    write();
  };

  const remove = (index) => {
    entries = reader.entries(reader.toText(entries.filter((_, other) => other !== index)));
    write();
    (list.children[Math.min(index, entries.length - 1)]?.lastChild ?? typing).focus();
  };

  // A mistake that only the server can see is its own as long as the entry is there.
  const wrong = (entry) => {
    if (entry.mistake) return entry.mistake;
    if (entry.duplicate) return `'${entry.text}' repeats a package of this list. Leave one out.`;
    const { reason } = data;
    return reason && reason.entry && [entry.text, entry.name, entry.name + entry.wish].includes(reason.entry)
      ? reason.message
      : "";
  };

  // As it is shown: spaces only where a condition needs them.
  const wish = (entry) => {
    const [versions, ...condition] = entry.wish.split(";");
    return [versions.replace(/[ \t]/gu, ""), ...condition].join(";");
  };

  const chip = (entry, index) => {
    const flaw = wrong(entry);
    const edit = make(
      "button",
      { type: "button", title: "Change" },
      ...(entry.name ? [make("b", {}, entry.name), make("span", { className: "font-monospace" }, wish(entry))] : [entry.text]),
    );
    edit.addEventListener("click", () => {
      remove(index);
      typing.value = entry.text;
      typing.focus();
    });
    const away = make("button", { type: "button", title: "Remove" }, "×");
    away.setAttribute("aria-label", `Remove ${entry.text}`);
    away.addEventListener("click", () => remove(index));
    const item = make("li", { className: "prebuilt-chip" }, edit, away);
    if (flaw) {
      item.classList.add("prebuilt-wrong");
      edit.setAttribute("aria-invalid", "true");
      edit.setAttribute("aria-description", flaw);
    }
    return item;
  };

  const draw = () => {
    list.replaceChildren(...entries.map(chip));
    list.hidden = !entries.length;
    const flaws = new Set(entries.map(wrong).filter(Boolean));
    // The server's own sentence stands above the list already, until its entry has gone.
    const told = document.getElementById("prebuilt-packages-reason");
    if (told && data.reason) {
      told.hidden = Boolean(data.reason.entry) && !flaws.has(data.reason.message);
      flaws.delete(data.reason.message);
    }
    mistakes.replaceChildren(...[...flaws].map((flaw) => make("p", { className: "prebuilt-reason" }, flaw)));
    // What the server is sure to refuse is not sent; what it has refused once may be sent again.
    typing.setCustomValidity(entries.find((entry) => entry.mistake)?.mistake ?? "");
  };

  const take = () => {
    if (!typing.value.trim()) return;
    const pasted = typing.value;
    typing.value = "";
    add(pasted);
  };

  const showChips = () => {
    entries = reader.entries(text.value);
    typing.parentElement.parentElement.hidden = false;
    text.hidden = true;
    typing.id = text.id;
    text.id = "prebuilt-packages-as-text";
    asText.textContent = "Edit as text";
    text.value = reader.toText(entries);
    draw();
  };

  const showText = () => {
    take();
    typing.parentElement.parentElement.hidden = true;
    typing.setCustomValidity("");
    text.hidden = false;
    typing.id = "";
    text.id = "prebuilt-packages";
    asText.textContent = "Edit as chips";
    text.focus();
  };

  const makeChips = () => {
    typing = make("textarea", { rows: 1, autocomplete: "off", spellcheck: false, placeholder: "Add packages" });
    typing.setAttribute("autocapitalize", "off");
    typing.setAttribute("aria-describedby", text.getAttribute("aria-describedby"));
    list = make("ul", { className: "m-0 p-0" });
    list.setAttribute("aria-label", "Packages in the list");
    mistakes = make("div", { className: "text-danger-emphasis" });
    mistakes.setAttribute("role", "status");
    const box = make("div", { className: "form-control prebuilt-chips" }, list, typing);
    box.addEventListener("click", (event) => event.target === box && typing.focus());
    document.getElementById("prebuilt-chips").append(box, mistakes);
    asText = make("button", { type: "button", className: "btn btn-link btn-sm p-0" });
    asText.addEventListener("click", () => (text.hidden ? showText() : (showChips(), typing.focus())));
    document.getElementById("prebuilt-packages-text").after(asText);

    typing.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter" && typing.value.trim()) {
        event.preventDefault();
        take();
      } else if (event.key === "Enter") {
        event.preventDefault();
        form.requestSubmit();
      } else if (event.key === "Backspace" && !typing.value && entries.length) {
        event.preventDefault();
        const last = entries.at(-1);
        remove(entries.length - 1);
        typing.value = last.text;
        typing.focus();
      }
    });
    typing.addEventListener("paste", (event) => {
      const pasted = event.clipboardData?.getData("text/plain");
      if (!pasted || typing.value) return;
      event.preventDefault();
      add(pasted);
    });
    typing.addEventListener("input", () => {
      // A comma after a name ends it; after a version, another condition on it may follow.
      if (/^[^<>=!~[(]*,$|\n$/u.test(typing.value)) take();
      else foresee();
    });
    typing.addEventListener("blur", take);
    showChips();
  };

  // -- what pressing Start will do ----------------------------------------------------------------------------------

  const chosen = (name) => new FormData(form).get(name) ?? "";

  const wishes = (packages) =>
    reader
      .entries(packages)
      .map((entry) => `${entry.name}${entry.wish}`.replace(/[ \t]/gu, ""))
      .sort()
      .join("\n");

  const shown = outlook.textContent;
  const state = () => `${chosen("profile")}\n${chosen("image")}\n${chosen("refresh")}\n${text ? wishes(text.value) : ""}`;
  let before = "";

  const foresee = () => {
    const profile = chosen("profile");
    const takesPackages = !text || !data.default || data.extras.includes(profile);
    if (text) text.disabled = !takesPackages;
    const packages = text && takesPackages ? wishes(`${text.value}\n${typing?.value ?? ""}`) : "";
    const match = data.known.find(
      (known) =>
        (known.profile || data.default) === (profile || data.default) &&
        known.image === chosen("image") &&
        wishes(known.packages) === packages,
    );
    let words = "A list that is new here is built first; the next page says how long that takes.";
    if (state() === before) words = shown;
    else if (text && takesPackages && reader.entries(text.value).some((entry) => entry.mistake))
      words = "Cannot work as it is; the reason is above.";
    else if (chosen("refresh")) words = "Newer versions are looked for, and built first if there are any.";
    else if (match) words = match.outlook;
    if (outlook.textContent !== words) outlook.textContent = words;
  };

  if (text) makeChips();
  before = state();
  form.addEventListener("change", foresee);
  // Before the form is checked and sent: what was typed last is in the list, too.
  form.querySelector("[type=submit]")?.addEventListener("click", () => typing && text.hidden && take());

  // -- a list of lately, in one click -------------------------------------------------------------------------------

  for (const link of document.querySelectorAll(".prebuilt-spawner a[data-known]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const known = data.known[Number(link.dataset.known)];
      for (const radio of form.querySelectorAll('input[name="profile"]')) {
        if (radio.type === "radio") radio.checked = radio.value === (known.profile || data.default);
      }
      const image = document.getElementById("prebuilt-image");
      if (image) image.value = known.image;
      if (text) {
        text.disabled = false;
        text.value = known.packages;
        entries = reader.entries(text.value);
        if (text.hidden) draw();
      }
      foresee();
      outlook.scrollIntoView({ block: "nearest" });
    });
  }
})();
