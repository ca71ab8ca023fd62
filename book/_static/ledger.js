// The filters above the ledger. They are made here, so without JavaScript there are none and every row shows.
"use strict";

class LedgerFilter {
  constructor(rows) {
    this.rows = rows;
    this.texts = rows.map((row) => row.textContent.toLowerCase());
    this.form = document.createElement("form");
    this.form.className = "bn-filter";
    this.form.autocomplete = "off"; // else the browser's Back button restores a choice without its rows
    this.form.setAttribute("aria-label", "Filter the ledger");
    this.selects = ["paper", "verdict", "fidelity"].map((name) => this.addSelect(name));
    this.words = this.add("words", "input");
    this.words.type = "search";
    this.button = document.createElement("button");
    this.button.type = "button";
    this.button.textContent = "Show all";
    this.count = document.createElement("p");
    this.count.setAttribute("role", "status");
    this.form.append(this.button, this.count);
    this.button.addEventListener("click", () => this.reset());
    this.form.addEventListener("input", () => this.show());
    this.form.addEventListener("submit", (event) => event.preventDefault());
    rows[0].closest("section").before(this.form);
    window.addEventListener("hashchange", () => this.follow());
    window.addEventListener("pageshow", () => this.show());
    this.show();
    this.follow();
  }

  add(name, tag) {
    const part = document.createElement("div"), label = document.createElement("label"), control = document.createElement(tag);
    control.name = name;
    control.id = label.htmlFor = `bn-filter-${name}`;
    label.textContent = name;
    part.append(label, control);
    this.form.append(part);
    return control;
  }

  addSelect(name) {
    const select = this.add(name, "select");
    select.add(new Option("all", ""));
    for (const value of new Set(this.rows.map((row) => row.dataset[name]))) select.add(new Option(value));
    return select;
  }

  show() {
    const words = this.words.value.toLowerCase().split(/\s+/);
    const chosen = this.selects.filter((select) => select.value).map((select) => [select.name, select.value]);
    this.rows.forEach((row, i) => {
      const fits = chosen.every(([name, value]) => row.dataset[name] === value);
      row.hidden = !fits || !words.every((word) => this.texts[i].includes(word));
    });
    for (const section of new Set(this.rows.map((row) => row.closest("section"))))
      section.hidden = !section.querySelector(".bn-row:not([hidden])");
    const shown = this.rows.filter((row) => !row.hidden).length;
    this.count.textContent = `${shown} of ${this.rows.length} claims shown`;
    // the next link to this place must be a change of the address, else `follow` is not called
    if (this.target()?.closest("[hidden]")) history.replaceState(null, "", location.href.split("#")[0]);
  }

  target() {
    return document.getElementById(location.hash.slice(1));
  }

  follow() {
    const target = this.target();
    if (!target) return;
    if (target.closest("[hidden]")) this.reset(); // a link to a row shows it, whatever was chosen
    target.scrollIntoView();
  }

  reset() {
    this.form.reset();
    this.show();
  }
}

{
  const rows = [...document.querySelectorAll(".bn-row")];
  if (rows.length) new LedgerFilter(rows);
}
