// <bn-explore>: range inputs that choose a frame, or drive a module of bnlib/page/live that computes the figure.
// Loaded with `defer`, so the element's children exist when it is defined. Without JavaScript the first picture stays.
"use strict";

class BnExplore extends HTMLElement {
  connectedCallback() {
    if (this.data) return;
    this.data = JSON.parse(this.querySelector("script").textContent);
    this.view = this.querySelector(".bn-view");
    this.words = this.querySelector(".bn-words");
    this.sliders = Object.entries(this.data.labels).map(([name, labels], k) => this.addSlider(name, labels, k));
    this.addPlay();
    const live = this.data.live && window.bnLive[this.data.live];
    window.addEventListener("pageshow", () => this.show());
    this.figure = live ? live.mount(this.view, this.data.values, { set: (name, i) => this.set(name, i), refresh: () => this.show() }) : null;
    this.show();
  }

  addSlider(name, labels, k) {
    const id = `bn-${++BnExplore.count}`, row = document.createElement("div");
    row.className = "bn-slider";
    row.innerHTML = `<label for="${id}"></label><input type="range" id="${id}" min="0" step="1"><output for="${id}"></output>`;
    const [label, input] = row.children;
    label.textContent = name.replaceAll("_", " ");
    input.name = name;
    input.autocomplete = "off"; // else the browser's Back button restores the slider without the picture
    input.max = labels.length - 1;
    input.value = this.data.start[k];
    input.addEventListener("input", () => this.show());
    this.append(row);
    return input;
  }

  addPlay() {
    const button = document.createElement("button"), slider = this.sliders[0];
    button.type = "button";
    button.className = "bn-play";
    const stop = () => { clearInterval(this.timer); this.timer = null; button.textContent = "Play"; };
    button.addEventListener("click", () => {
      if (this.timer) return stop();
      button.textContent = "Pause";
      if (slider.value === slider.max) slider.value = 0;
      this.timer = setInterval(() => {
        slider.value = +slider.value + 1;
        this.show();
        if (slider.value === slider.max) stop();
      }, 400);
    });
    stop();
    this.append(button);
  }

  set(name, index) {
    this.sliders.find((s) => s.name === name).value = index;
    this.show();
  }

  show() {
    const { labels, frames, alts } = this.data, place = this.sliders.map((s) => +s.value);
    this.sliders.forEach((s, k) => {
      const text = labels[s.name][place[k]];
      s.setAttribute("aria-valuetext", text);
      s.nextElementSibling.textContent = text;
    });
    let words;
    if (this.figure) {
      words = this.figure.show(Object.fromEntries(this.sliders.map((s, k) => [s.name, this.data.values[s.name][place[k]]])));
    } else {
      const frame = place.reduce((at, i, k) => at * (+this.sliders[k].max + 1) + i, 0), img = this.view.firstElementChild;
      img.src = `data:image/webp;base64,${frames[frame]}`;
      img.alt = words = alts[frame];
    }
    this.words.textContent = words;
  }
}
BnExplore.count = 0;
customElements.define("bn-explore", BnExplore);
