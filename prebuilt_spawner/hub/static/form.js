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
    if (entry.duplicate) return `${reader.quoted(entry.text)} repeats a package of this list. Leave one out.`;
    if (!data.reason?.entry) return "";
    const about = reader.entries(data.reason.entry).map(canonical);
    const isAbout = data.reason.entry === entry.text || about.includes(canonical(entry)) || about.includes(entry.name);
    return isAbout ? data.reason.message : "";
  };

  // One spelling of what an entry wishes: order and spaces mean nothing.
  const canonical = (entry) => {
    const [wished, ...condition] = entry.wish.split(";");
    const [, extras = "", versions] = /^(?:\[([^\]]*)\])?(.*)$/u.exec(wished.replace(/[ \t()]/gu, ""));
    const sorted = (items) => items.split(",").filter(Boolean).sort().join(",");
    const spelled = condition.join(";").replace(/[ \t]/gu, "").replace(/"/gu, "'");
    return [entry.name, sorted(extras.toLowerCase()), sorted(versions), spelled].join("|").replace(/\|+$/u, "");
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
      take();
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
    drawFlaws();
  };

  const drawFlaws = () => {
    const tooLong = reader.refusal(text.value);
    const flaws = new Set([tooLong, ...entries.map(wrong)].filter(Boolean));
    // The server's own sentence stands above the list already, until its entry has gone.
    const told = document.getElementById("prebuilt-packages-reason");
    if (told && data.reason) {
      told.hidden = Boolean(data.reason.entry) && !flaws.has(data.reason.message);
      flaws.delete(data.reason.message);
    }
    mistakes.replaceChildren(...[...flaws].map((flaw) => make("p", { className: "prebuilt-reason" }, flaw)));
    // What the server is sure to refuse is not sent; what it has refused once may be sent again.
    typing.setCustomValidity(text.hidden ? tooLong || (entries.find((entry) => entry.mistake)?.mistake ?? "") : "");
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
    text.hidden = false;
    drawFlaws();
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
    list.setAttribute("role", "list"); // without bullets, Safari does not take it for one
    list.setAttribute("aria-label", "Packages in the list");
    mistakes = make("div", { className: "text-danger-emphasis" });
    mistakes.setAttribute("role", "status");
    const box = make("div", { className: "form-control prebuilt-chips" }, list, typing);
    box.addEventListener("click", (event) => event.target === box && typing.focus());
    document.getElementById("prebuilt-chips").append(box);
    text.after(mistakes);
    text.addEventListener("input", () => {
      entries = reader.entries(text.value);
      drawFlaws();
      foresee();
    });
    asText = make("button", { type: "button", className: "btn btn-link btn-sm p-0" });
    asText.addEventListener("click", () => (text.hidden ? showText() : (showChips(), typing.focus())));
    document.getElementById("prebuilt-packages-text").after(asText);

    typing.addEventListener("keydown", (event) => {
      if (event.isComposing || event.keyCode === 229) return; // what an input method composes is not done yet
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
    typing.addEventListener("input", (event) => {
      // A comma after a name ends it; after a version, another condition on it may follow.
      if (!event.isComposing && /^[^<>=!~[(]*,$|\n/u.test(typing.value)) take();
      else foresee();
    });
    // Not while a button is pressed: what is drawn anew under the pointer gets no click.
    let pressed = false;
    document.addEventListener("pointerdown", () => (pressed = true), true);
    for (const end of ["pointerup", "pointercancel"]) {
      const takeLater = () => document.activeElement !== typing && take();
      document.addEventListener(end, () => ((pressed = false), setTimeout(takeLater)), true);
    }
    typing.addEventListener("blur", () => pressed || take());
    showChips();
  };

  // -- what pressing Start will do ----------------------------------------------------------------------------------

  const image = document.getElementById("prebuilt-image");
  const chosen = (name) => new FormData(form).get(name) ?? "";

  const wishes = (list) => [...new Set(list.map(canonical))].sort().join("\n");
  const withWishes = (entered) => ({ ...entered, wishes: wishes(reader.entries(entered.packages)) });
  const now = withWishes(data.now);
  const known = data.known.map(withWishes);

  const foresee = () => {
    const profile = chosen("profile") || data.default;
    const takesPackages = Boolean(text) && (!data.default || data.extras.includes(profile));
    if (text) text.disabled = typing.disabled = !takesPackages;
    const typed = takesPackages ? `${text.value}\n${typing.value}` : "";
    const wanted = reader.entries(typed);
    const packages = wishes(wanted);
    const matches = (entered) =>
      (entered.profile || data.default) === profile &&
      (!image || (entered.image || data.image) === image.value) &&
      entered.wishes === packages;
    const refresh = Boolean(chosen("refresh"));
    let words = "A list that is new here is built first; the next page says how long that takes.";
    if (matches(now) && now.refresh === refresh) words = now.outlook;
    else if (takesPackages && (reader.refusal(typed) || wanted.some((entry) => entry.mistake)))
      words = "Cannot work as it is; the reason is above.";
    else if (refresh) words = "Newer versions are looked for, and built first if there are any.";
    else words = known.find(matches)?.outlook ?? words;
    if (outlook.textContent !== words) outlook.textContent = words;
  };

  if (text) makeChips();
  foresee();
  form.addEventListener("change", foresee);
  // JupyterHub has hidden the Start button when it was pressed, and the browser's Back would show the page so.
  window.addEventListener("pageshow", (event) => event.persisted && location.reload());
  // Before the form is checked and sent: what was typed last is in the list, too.
  form.addEventListener("click", (event) => event.target.closest("[type=submit]") && text?.hidden && take(), true);

  // -- a list of lately, in one click -------------------------------------------------------------------------------

  for (const link of document.querySelectorAll(".prebuilt-spawner a[data-known]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const picked = data.known[Number(link.dataset.known)];
      for (const radio of form.querySelectorAll('input[name="profile"]')) {
        if (radio.type === "radio") radio.checked = radio.value === (picked.profile || data.default);
      }
      if (image) image.value = picked.image || data.image;
      if (text) {
        typing.value = "";
        text.value = picked.packages;
        entries = reader.entries(text.value);
        draw();
      }
      foresee();
      outlook.scrollIntoView({ block: "nearest" });
    });
  }
})();
