// The transcript as words to hear, and as files.

export class TranscriptView {
  constructor(container, partial, told, onHear) {
    Object.assign(this, { container, partial, told, onHear });
    this.words = [];
    container.addEventListener("click", (event) => this.hear(event.target));
    container.addEventListener("focusin", (event) => this.tell(event.target));
    container.addEventListener("pointerover", (event) => this.tell(event.target));
    container.addEventListener("keydown", (event) => this.move(event));
  }

  clear() {
    this.words = [];
    this.container.replaceChildren();
    this.partial.textContent = this.told.textContent = "";
  }

  // More words at the end. One of all words is reached by Tab, the others from there by arrows.
  add(words) {
    for (const word of words) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = word.word;
      button.dataset.index = this.words.length;
      button.tabIndex = this.words.length ? -1 : 0;
      button.style.setProperty("--doubt", (1 - word.confidence).toFixed(3));
      this.container.append(button, " ");
      this.words.push(word);
    }
  }

  set(words) {
    this.clear();
    this.add(words);
    if (words.length) return;
    const note = document.createElement("span");
    note.className = "empty";
    note.textContent = "No words were heard.";
    this.container.append(note);
  }

  buttonOf(index) { return this.container.querySelector(`[data-index="${index}"]`); }

  // Underline the word that is being said at a time.
  follow(seconds) {
    const index = seconds === null ? -1 : this.words.findLastIndex((word) => word.start <= seconds + 0.01);
    if (index === this.current) return;
    this.current = index;
    this.container.querySelector(".now")?.classList.remove("now");
    this.buttonOf(index)?.classList.add("now");
  }

  hear(target) {
    const word = this.words[target.dataset.index];
    if (word) this.onHear(word);
  }

  tell(target) {
    const word = this.words[target.dataset.index];
    if (!word) return;
    const sureness = `${Math.round(100 * word.confidence)} % sure`;
    this.told.textContent = `${word.word}: ${word.start.toFixed(2)} to ${word.end.toFixed(2)} s, ${sureness}`;
  }

  move(event) {
    const index = Number(event.target.dataset.index);
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -index, End: this.words.length - 1 - index };
    if (Number.isNaN(index) || !(event.key in steps)) return;
    const next = this.buttonOf(Math.max(0, Math.min(this.words.length - 1, index + steps[event.key])));
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}

// What is downloaded; the subtitles as the server's own writers made them.
export const WRITERS = {
  txt: ({ text }) => `${text}\n`,
  json: ({ subtitles, ...content }) => `${JSON.stringify(content, null, 1)}\n`,
  srt: ({ subtitles }) => subtitles.srt,
  vtt: ({ subtitles }) => subtitles.vtt,
};
