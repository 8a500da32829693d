// The episode browser. Reads the JSON of #episode-data (its form stands in cotbench/report/browser.py) and fills every element of
// class "browser" on the page. What it shows was written by models and environments: it becomes text, never markup. It fetches
// nothing and computes no number. A step has an address: #run=LABEL&task=ID&mode=cot&step=3.
"use strict";
(function () {
  const ROW = 52; // Height of a row of the list, in pixels; browser.css has the same.
  const SPARE = 6; // Rows beyond the visible ones.
  const WORDS = 600; // Actions with more words are not compared word by word.
  const MODES = { prompt: "prompt", cot: "CoT" };
  const EFFECTS = {
    same: ["=", "same action"],
    helped: ["+", "revision that helped"],
    hurt: ["−", "revision that hurt"],
    revised: ["~", "revision"],
  };

  // A text in which control characters, and those of direction, zero width or no meaning, are written out, as Python's
  // cotbench.printable has it.
  function printable(text) {
    return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) => {
      if (character === "\n" || character === "\t") return character;
      const code = character.codePointAt(0).toString(16);
      if (code.length <= 2) return "\\x" + code.padStart(2, "0");
      return code.length <= 4 ? "\\u" + code.padStart(4, "0") : "\\U" + code.padStart(8, "0");
    });
  }

  // An element with attributes, listeners (a key that begins with "on") and children; a string becomes text.
  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children.flat()) {
      if (child === null || child === undefined) continue;
      element.append(typeof child === "string" ? document.createTextNode(printable(child)) : child);
    }
    return element;
  }

  function number(value) {
    return String(Math.round(value * 1000) / 1000);
  }

  function revised(step) {
    return step.effect !== undefined && step.effect !== "same";
  }

  // The words of two texts, each with whether the other lacks it (longest common subsequence).
  function compared(one, two) {
    const a = one.match(/\s+|[^\s]+/g) || [];
    const b = two.match(/\s+|[^\s]+/g) || [];
    if (one === two || a.length > WORDS || b.length > WORDS) {
      return [[[one, false]], [[two, false]]];
    }
    const longest = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        longest[i][j] = a[i] === b[j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
      }
    }
    const left = [];
    const right = [];
    let i = 0;
    let j = 0;
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) {
        left.push([a[i++], false]);
        right.push([b[j++], false]);
      } else if (j >= b.length || (i < a.length && longest[i + 1][j] >= longest[i][j + 1])) {
        left.push([a[i++], true]);
      } else {
        right.push([b[j++], true]);
      }
    }
    return [left, right];
  }

  function worded(words) {
    return words.map(([word, differs]) => (differs && word.trim() ? make("mark", {}, word) : word));
  }

  function Browser(root, data) {
    const form = root.querySelector(".browser-filters");
    const list = root.querySelector(".browser-list");
    const pane = root.querySelector(".browser-episode");
    const count = root.querySelector(".browser-count");
    const rows = make("div", { class: "browser-rows", role: "presentation" });
    const state = { run: data.runs[0], found: [], episode: null, step: 0 };
    let addressed = 0;
    let typed = 0;
    list.append(rows);

    // Filters.

    function fill(select, values) {
      const kept = select.value;
      while (select.options.length > 1) select.remove(1);
      for (const value of values) select.append(make("option", { value }, value));
      select.value = values.includes(kept) ? kept : "";
    }

    function chooseRun(run) {
      state.run = run;
      form.elements.run.value = String(data.runs.indexOf(run));
      fill(form.elements.type, [...new Set(run.episodes.map((episode) => episode.type))].sort());
    }

    function haystack(episode) {
      if (episode.haystack === undefined) {
        const steps = episode.steps.map((step) => [step.action, step.prompt, step.trace, step.observation, step.invalid].join("\n"));
        const text = [episode.task, episode.goal, episode.first, episode.error, ...steps].join("\n").toLowerCase();
        Object.defineProperty(episode, "haystack", { value: text });
      }
      return episode.haystack;
    }

    function passes(episode) {
      const asked = form.elements;
      const outcome = episode.error !== undefined ? "error" : episode.success ? "won" : "lost";
      if (asked.mode.value && episode.mode !== asked.mode.value) return false;
      if (asked.outcome.value && outcome !== asked.outcome.value) return false;
      if (asked.type.value && episode.type !== asked.type.value) return false;
      const effect = asked.revisions.value;
      if (effect === "any" && !episode.steps.some(revised)) return false;
      if (effect && effect !== "any" && !episode.steps.some((step) => step.effect === effect)) return false;
      const text = asked.text.value.trim().toLowerCase();
      return !text || haystack(episode).includes(text);
    }

    function filter() {
      state.found = state.run.episodes.filter(passes);
      const all = state.run.episodes.length;
      const more = state.run.of > all ? `, of ${state.run.of} in the run` : "";
      count.textContent = `${state.found.length} of ${all} episodes here${more}`;
      rows.style.height = `${state.found.length * ROW}px`;
      if (!state.found.includes(state.episode)) choose(state.found[0] || null, 0);
      else drawList(true);
    }

    // The list: only the rows that can be seen are there.

    function drawList(reveal) {
      const at = state.found.indexOf(state.episode);
      if (reveal && at >= 0) {
        if (at * ROW < list.scrollTop) list.scrollTop = at * ROW;
        else if ((at + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (at + 1) * ROW - list.clientHeight;
      }
      const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
      const last = Math.min(state.found.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
      const places = new Set();
      for (let place = first; place < last; place++) places.add(place);
      if (at >= 0) places.add(at); // What aria-activedescendant names must be there.
      rows.replaceChildren(...[...places].sort((a, b) => a - b).map(row));
      if (at >= 0) list.setAttribute("aria-activedescendant", rowId(at));
      else list.removeAttribute("aria-activedescendant");
    }

    function rowId(place) {
      return `${list.id}-${place}`;
    }

    function row(place) {
      const episode = state.found[place];
      const tally = ["helped", "hurt", "revised"]
        .map((effect) => [effect, episode.steps.filter((step) => step.effect === effect).length])
        .filter(([, times]) => times)
        .map(([effect, times]) => `${EFFECTS[effect][0]}${times}`)
        .join(" ");
      const element = make(
        "div",
        {
          class: "browser-row",
          role: "option",
          id: rowId(place),
          "aria-selected": String(episode === state.episode),
          "aria-setsize": String(state.found.length),
          "aria-posinset": String(place + 1),
          onclick: () => {
            choose(episode, 0);
            list.focus();
          },
        },
        make("span", { class: "browser-task" }, episode.task),
        make(
          "span",
          { class: "browser-sub" },
          make("span", { class: `mode-${episode.mode}` }, MODES[episode.mode]),
          `${tally ? ` · ${tally}` : ""} · ${episode.ending} · ${episode.steps.length} steps`,
        ),
      );
      element.style.top = `${place * ROW}px`;
      return element;
    }

    // An episode and its step.

    function choose(episode, step) {
      state.episode = episode;
      state.step = episode ? Math.max(0, Math.min(step, episode.steps.length - 1)) : 0;
      drawList(true);
      drawEpisode();
    }

    function go(step) {
      const steps = state.episode ? state.episode.steps.length : 0;
      if (step < 0 || step >= steps || step === state.step) return;
      state.step = step;
      drawEpisode();
    }

    function nextRevision(direction) {
      const steps = state.episode ? state.episode.steps : [];
      for (let place = state.step + direction; place >= 0 && place < steps.length; place += direction) {
        if (revised(steps[place])) return go(place);
      }
    }

    // The first revision of the run: one that hurt or helped, if there is one.
    function toRevision() {
      for (const effect of ["hurt", "helped", "revised"]) {
        const episode = state.found.find((each) => each.steps.some((step) => step.effect === effect));
        if (!episode) continue;
        addressed = 0; // Nobody's choice.
        return choose(episode, episode.steps.findIndex((step) => step.effect === effect));
      }
    }

    function address(episode, step) {
      const parts = new URLSearchParams({ run: state.run.label, task: episode.task, mode: episode.mode, step: String(step) });
      return `#${parts}`;
    }

    function drawEpisode() {
      const { episode, step: place } = state;
      const inside = pane.contains(document.activeElement) && document.activeElement !== pane;
      const key = inside ? document.activeElement.dataset.key : undefined;
      if (!episode) {
        pane.replaceChildren(make("p", { class: "note" }, "No episode passes these filters."));
        return;
      }
      const other = state.run.episodes.find((each) => each.task === episode.task && each.mode !== episode.mode);
      const parts = [
        make("h3", {}, episode.task),
        episode.goal ? make("p", { class: "browser-goal" }, episode.goal) : null,
        make(
          "p",
          { class: "browser-facts" },
          make("b", { class: `mode-${episode.mode}` }, `${MODES[episode.mode]} mode`),
          `, ${episode.ending}, ${episode.steps.length} steps, score ${number(episode.score)}`,
          other ? " " : null,
          other
            ? make(
                "button",
                { type: "button", "data-key": "other", onclick: () => choose(other, state.step) },
                `See it in ${MODES[other.mode]} mode`,
              )
            : null,
        ),
        episode.error !== undefined
          ? make("p", { class: "browser-invalid" }, `${episode.kind || "error"}: ${episode.error}`)
          : null,
        episode.traceback !== undefined
          ? make("details", {}, make("summary", {}, "Traceback"), make("pre", {}, episode.traceback))
          : null,
        ...(episode.steps.length ? [strip(episode, place), stepHead(episode, place), ...stepBody(episode, place)] : []),
      ];
      pane.replaceChildren(...parts.filter((part) => part !== null));
      if (inside) {
        const again = [...pane.querySelectorAll("[data-key]")].find((element) => element.dataset.key === key && !element.disabled);
        (again || pane).focus();
      }
      later();
    }

    function strip(episode, place) {
      const buttons = episode.steps.map((step, at) => {
        const [sign, words] = step.effect ? EFFECTS[step.effect] : ["·", ""];
        const said = [`step ${at + 1}`, words, step.invalid !== undefined ? "invalid action" : ""].filter(Boolean).join(", ");
        const kind = `strip-${step.effect || "none"}${step.invalid !== undefined ? " strip-invalid" : ""}`;
        return make(
          "li",
          {},
          make(
            "button",
            {
              type: "button",
              class: kind,
              title: said,
              "aria-label": said,
              "aria-current": at === place ? "step" : null,
              tabindex: at === place ? "0" : "-1",
              "data-key": at === place ? "strip" : null,
              onclick: () => {
                go(at);
                pane.querySelector("[data-key=strip]").focus();
              },
            },
            sign,
          ),
        );
      });
      return make("ol", { class: "browser-strip", "aria-label": "Steps" }, buttons);
    }

    function stepHead(episode, place) {
      const last = episode.steps.length - 1;
      const button = (key, words, disabled, act) => make("button", { type: "button", "data-key": key, disabled, onclick: act }, words);
      const revisions = episode.steps.map((step, at) => [step, at]).filter(([step]) => revised(step));
      return make(
        "div",
        { class: "browser-head" },
        make("h4", { "aria-live": "polite" }, `Step ${place + 1} of ${last + 1}`),
        button("previous", "‹ previous", place === 0, () => go(place - 1)),
        button("next", "next ›", place === last, () => go(place + 1)),
        revisions.length
          ? button("revision", "next revision »", !revisions.some(([, at]) => at > place), () => nextRevision(1))
          : null,
        make("a", { href: address(episode, place), "data-key": "link" }, "link to this step"),
      );
    }

    function box(title, text, kind) {
      return [make("h5", {}, title), make("pre", { class: kind || "" }, text)];
    }

    function action(title, mode, children) {
      return make("div", { class: `browser-action ${mode ? `action-${mode}` : ""}` }, make("h5", {}, title), make("pre", {}, children));
    }

    function stepBody(episode, place) {
      const step = episode.steps[place];
      const before = place ? episode.steps[place - 1].observation : episode.first;
      const parts = box("Observation", before);
      if (step.trace !== undefined) {
        parts.push(...box("Trace", step.trace || "(empty)", "browser-trace"));
        if (step.closed === false) parts.push(make("p", { class: "note" }, "The trace did not close; the harness closed it."));
      }
      const actions = [];
      if (step.prompt !== undefined) {
        const [left, right] = compared(step.prompt, step.action);
        actions.push(action("Prompt action", "prompt", worded(left)), action("CoT action, executed", "cot", worded(right)));
      } else {
        actions.push(action(`${episode.mode === "cot" ? "CoT" : "Prompt"} action, executed`, episode.mode, [step.action]));
      }
      if (step.expert !== undefined) actions.push(action("Expert action", "", [step.expert]));
      parts.push(make("div", { class: "browser-actions" }, actions));
      if (step.effect) {
        const said = {
          same: "The trace left the action as it was.",
          helped: "The trace changed the action to the expert's: it helped.",
          hurt: "The trace changed the action away from the expert's: it hurt.",
          revised: step.expert === undefined
            ? "The trace changed the action; the expert's is not known here."
            : "The trace changed the action; neither is the expert's.",
        }[step.effect];
        parts.push(make("p", { class: `browser-effect effect-${step.effect}` }, make("b", {}, EFFECTS[step.effect][0]), ` ${said}`));
      }
      if (step.invalid !== undefined) parts.push(make("p", { class: "browser-invalid" }, `The action did nothing: ${step.invalid}`));
      parts.push(...box("What followed", step.observation));
      parts.push(make("p", { class: "browser-facts" }, `score ${number(step.score)} after this step`));
      return parts;
    }

    // The address of a step.

    function later() {
      if (!addressed++) return; // The first drawing is nobody's choice.
      clearTimeout(later.timer);
      later.timer = setTimeout(() => {
        if (state.episode) location.replace(address(state.episode, state.step));
      }, 150);
    }

    function follow() {
      const asked = new URLSearchParams(location.hash.slice(1));
      if (!asked.has("task")) return false;
      const step = Number(asked.get("step")) || 0;
      const same = (episode) => episode.task === asked.get("task") && episode.mode === asked.get("mode");
      const run = data.runs.find((each) => each.label === asked.get("run"));
      const episode = run && run.episodes.find(same);
      if (!episode) {
        count.textContent = `The episode of this address is not in this page: ${asked.get("task")}`;
        return false;
      }
      if (episode === state.episode && step === state.step) return false;
      clearTimeout(later.timer);
      chooseRun(run);
      if (!passes(episode)) {
        for (const control of form.elements) if (control !== form.elements.run) control.value = "";
      }
      state.episode = episode;
      filter();
      choose(episode, step);
      return true;
    }

    // Keys and clicks.

    function onListKey(event) {
      const at = state.found.indexOf(state.episode);
      const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
      const to = {
        j: at + 1, ArrowDown: at + 1, k: at - 1, ArrowUp: at - 1, Home: 0, End: state.found.length - 1,
        PageDown: at + page, PageUp: at - page,
      }[event.key];
      if (event.key === "Enter" || event.key === "ArrowRight") pane.focus();
      else if (to === undefined || !state.found.length) return;
      else choose(state.found[Math.max(0, Math.min(to, state.found.length - 1))], 0);
      event.preventDefault();
    }

    function onPaneKey(event) {
      const last = state.episode ? state.episode.steps.length - 1 : 0;
      const strip = document.activeElement && document.activeElement.dataset.key === "strip";
      const acts = {
        j: () => go(state.step + 1), ArrowRight: () => go(state.step + 1),
        k: () => go(state.step - 1), ArrowLeft: () => go(state.step - 1),
        n: () => nextRevision(1), p: () => nextRevision(-1), Escape: () => list.focus(),
      };
      if (strip) Object.assign(acts, { Home: () => go(0), End: () => go(last) });
      if (!acts[event.key]) return;
      acts[event.key]();
      event.preventDefault();
    }

    function unlessModified(handler) {
      return (event) => {
        if (!event.ctrlKey && !event.metaKey && !event.altKey) handler(event);
      };
    }

    data.runs.forEach((run, place) => {
      form.elements.run.append(make("option", { value: String(place) }, `${run.label} (${run.episodes.length})`));
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.elements.run.addEventListener("change", () => {
      chooseRun(data.runs[Number(form.elements.run.value)]);
      filter();
    });
    for (const name of ["mode", "outcome", "type", "revisions"]) form.elements[name].addEventListener("change", filter);
    form.elements.text.addEventListener("input", () => {
      clearTimeout(typed);
      typed = setTimeout(filter, 120);
    });
    list.addEventListener("scroll", () => drawList(false), { passive: true });
    list.addEventListener("keydown", unlessModified(onListKey));
    pane.addEventListener("keydown", unlessModified(onPaneKey));
    window.addEventListener("resize", () => drawList(false));
    window.addEventListener("hashchange", () => {
      if (follow()) root.scrollIntoView();
    });
    root.hidden = false;
    chooseRun(state.run);
    filter();
    if (follow()) root.scrollIntoView();
    else if (root.closest("[data-start=revision]")) toRevision();
  }

  const source = document.getElementById("episode-data");
  const data = source ? JSON.parse(source.textContent) : { runs: [] };
  if (!data.runs.length) return;
  document.querySelectorAll(".browser").forEach((root, place) => {
    root.querySelector(".browser-list").id = `browser-list-${place}`;
    Browser(root, data);
  });
})();
