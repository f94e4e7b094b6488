/* The client side of the FRESCO tab: timeline, progress, jobs and comparison.

   One global object, `fresco`. The page asks the program through hidden gradio components
   (a button and two texts), so the login of the page guards the questions too. Frames of jobs come
   from the API, which knows the page by a key: sooner, and several at once.
   Other files, such as fresco_retouch.js, add to the page by `fresco.core`.
   Texts of files and users only ever become text nodes; the one piece of HTML that is taken
   over, the chart of the measures, is made and escaped by the program. */
"use strict";

var fresco = (() => {
    const POLL = 1000; /* ms between looks at a job that goes on */
    const IDLE = 5000; /* ms between looks while nothing goes on, or the tab is not seen */
    const LOST = 90000; /* ms after which a question counts as unanswered */
    const REPEAT = 15000; /* ms after which it is asked again, and done once all the same ... */
    const EARLY = 700; /* ... and while gradio may not listen yet */
    const MOST_THUMBNAILS = 48; /* small images in one answer, as the program gives them */
    const NEAR = 5; /* px on both sides of a keyframe that count as the keyframe */
    const GOALS = {
        preview: "preview", keyframes: "keyframes", all: "whole video",
        keyframe: "one keyframe", propagation: "external keyframes",
    };
    const ACTIVE = ["queued", "running", "cancelling"];

    const app = () => {
        const whole = document.getElementsByTagName("gradio-app")[0];
        return (whole && whole.shadowRoot) || document;
    };
    const find = (id) => app().querySelector("#fresco_" + id);

    /* An element with attributes, listeners and children; strings become text. */
    const make = (name, attributes, ...children) => {
        const space = ["svg", "polyline", "polygon", "rect", "line", "path", "text"];
        const made = space.includes(name)
            ? document.createElementNS("http://www.w3.org/2000/svg", name)
            : document.createElement(name);
        for (const [key, value] of Object.entries(attributes || {})) {
            if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
            else if (value === true) made.setAttribute(key, "");
            else if (value !== false && value !== null && value !== undefined) {
                made.setAttribute(key, value);
            }
        }
        made.append(...children.flat().filter((child) => child !== null && child !== undefined));
        return made;
    };
    const fill = (element, ...children) => element.replaceChildren(
        ...children.flat().filter((child) => child !== null && child !== undefined));
    const button = (text, pressed, more) =>
        make("button", { type: "button", class: "fresco_button", onclick: pressed, ...more }, text);
    const note = (text, kind) => make("div", {
        class: `fresco_note fresco_${kind || "note"}`, role: kind === "bad" ? "alert" : "status",
    }, text);
    const size = (bytes) => (bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB`
        : bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`);
    const later = (milliseconds, act) => {
        let waiting = 0;
        return (...values) => {
            clearTimeout(waiting);
            waiting = setTimeout(() => act(...values), milliseconds);
        };
    };

    /* Questions to the program, one at a time. */
    const asking = {
        queue: [], now: null, number: 0, timer: 0, heard: false,
        page: `${Date.now()}-${Math.random()}`, /* so that the program knows what it was asked */
    };

    const ask = (what, values) => new Promise((resolve, reject) => {
        asking.number += 1;
        asking.queue.push({ number: asking.number, what, values, resolve, reject });
        next();
    });
    const next = () => {
        if (asking.now || !asking.queue.length) return;
        const trigger = find("ask");
        if (!trigger) return;
        asking.now = asking.queue.shift();
        repeat(trigger, asking.now.number);
        asking.timer = setTimeout(() => settle((question) => question.reject(
            new Error("The program does not answer. Is it still running?"))), LOST);
        trigger.click();
    };
    /* A press before the page was whole, or while the program was away, has no answer. */
    const repeat = (trigger, number) => setTimeout(() => {
        if (!asking.now || asking.now.number !== number) return;
        trigger.click();
        repeat(trigger, number);
    }, asking.heard ? REPEAT : EARLY);
    const settle = (end) => {
        clearTimeout(asking.timer);
        const question = asking.now;
        asking.now = null;
        if (question) end(question);
        next();
    };
    const question = (values) => {
        const now = asking.now;
        values[0] = now ? JSON.stringify({
            ...now.values, ask: now.what, number: now.number, page: asking.page,
        }) : "";
        return values;
    };
    const answered = (text) => {
        let answer = null;
        try { answer = JSON.parse(text); } catch (error) { return; }
        if (!asking.now || answer.number !== asking.now.number) return;
        asking.heard = true;
        settle((asked) => {
            if (answer.error === undefined) asked.resolve(answer.value);
            else asked.reject(new Error(answer.error));
        });
    };

    /* A route of the API; what it answers, or null where there is no such thing. */
    const call = async (path, options) => {
        const { headers, ...rest } = options || {};
        const answer = await fetch(address_of(`/fresco/${path}`), {
            ...rest, headers: { "X-Fresco-Page": find("page_key").dataset.key, ...headers },
        });
        if (answer.ok) return answer;
        if (answer.status === 404 && !rest.method) return null;
        let why = `The program answered ${answer.status}.`;
        try { why = (await answer.json()).detail; } catch (error) { /* it told no more */ }
        throw new Error(why);
    };
    /* The image of an answer: its address, and whether it is a draft; null if it is no image. */
    const see = async (answer) => {
        const kind = (answer && answer.headers.get("Content-Type")) || "";
        return kind.startsWith("image/") ? {
            src: URL.createObjectURL(await answer.blob()),
            draft: answer.headers.get("X-Fresco-Draft") === "true",
        } : null;
    };

    /* What other files do when something is drawn. */
    const listeners = {};
    const hear = (what, act) => {
        (listeners[what] = listeners[what] || []).push(act);
        const root = find("root");
        if (what === "start" && root && root.dataset.fresco) act(root);
    };
    const tell_all = (what, ...values) =>
        (listeners[what] || []).forEach((act) => act(...values));

    /* A text field of gradio, set as if somebody had typed. */
    const field = (id) => app().querySelector(`#fresco_${id} textarea, #fresco_${id} input`);
    const write = (id, text) => {
        const element = field(id);
        if (!element || element.value === text) return;
        const kind = element instanceof HTMLTextAreaElement ? HTMLTextAreaElement
            : HTMLInputElement;
        Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(element, text);
        element.dispatchEvent(new Event("input", { bubbles: true }));
    };

    /* ------------------------------------------------ timeline */
    const line = {
        clip: null, keys: [], wish: [], words: {}, hand: false, cursor: 0, zoom: 1, undo: [], redo: [],
        thumbnails: {}, asked: new Set(), drag: null, said: "", state: "empty", done: 0, total: 0,
        message: "", stale: false, id: "", source: 0, size: null, aspect: 1, loading: "",
        reading: false, wrong: "", last: 0, /* last frame of the whole video */
    };
    const clamp = (number) =>
        Math.min(line.clip.last, Math.max(line.clip.first, Math.round(number)));
    const frames = () => line.clip.last - line.clip.first + 1;
    const time = (number) => {
        const hundredths = Math.round(100 * number / line.clip.rate);
        const minutes = Math.floor(hundredths / 6000);
        return `${minutes}:${(hundredths % 6000 / 100).toFixed(2).padStart(5, "0")}`;
    };
    const fixed = (number) => line.clip.ends.includes(number);
    const words_text = (words) => Object.keys(words).map(Number).sort((a, b) => a - b)
        .filter((number) => words[number]).map((number) => `${number}: ${words[number]}`)
        .join("\n");

    /* A video is being read; the one before stays until there is another. */
    const loading = (values) => {
        line.reading = true;
        draw_timeline();
        return values;
    };
    const loaded = (mark) => {
        line.clip = null;
        Object.assign(line, {
            keys: [], wish: [], words: {}, hand: false, undo: [], redo: [], thumbnails: {}, zoom: 1,
            wrong: "", asked: new Set(), source: line.source + 1, loading: mark,
        });
        const view = find("view");
        if (view) fill(view);
        tell("");
        look_at_uploads();
        tell_all("loaded");
    };

    const detecting = (text) => {
        let begun = null;
        try { begun = JSON.parse(text); } catch (error) { return; }
        line.reading = false;
        if (begun.loading !== undefined && begun.loading !== line.loading) loaded(begun.loading);
        if (begun.error !== undefined) {
            line.state = line.clip ? "ready" : begun.error ? "failed" : "empty";
            Object.assign(line, { message: begun.error, stale: false });
            draw_timeline();
            return;
        }
        Object.assign(line, {
            id: begun.id, last: begun.last, state: "detecting", done: 0, total: 0, message: "",
        });
        draw_timeline();
        look(begun.id);
    };
    const look = async (id) => {
        let found;
        try {
            found = await ask("detection", { id });
        } catch (error) {
            found = { state: "failed", message: error.message };
        }
        if (id !== line.id) return;
        if (found.state === "running") {
            Object.assign(line, { done: found.done, total: found.total });
            draw_timeline();
            setTimeout(() => look(id), 300);
            return;
        }
        if (found.state === "failed") {
            Object.assign(line, {
                state: line.clip ? "ready" : "failed", message: found.message, stale: false,
            });
            draw_timeline();
            return;
        }
        line.aspect = found.size[0] / found.size[1];
        line.size = found.whole;
        show_clip(found.timeline);
    };
    const show_clip = (clip) => {
        const before = line.clip;
        Object.assign(line, { clip, state: "ready", message: "", stale: false });
        if (!before) line.cursor = clip.first;
        line.cursor = clamp(line.cursor);
        if (line.hand) {
            line.keys = fitted(line.wish);
            publish();
        } else {
            line.keys = [...clip.keys];
            const written = field("keyframes_keys"), words = field("sampling_key_prompts");
            if (written && (written.value.trim() || words.value.trim())) {
                take(written.value, words.value);
            }
        }
        const shots = find("shots");
        if (shots) shots.textContent = String(clip.shots.length);
        draw_timeline();
        look_at(line.cursor);
        say(`${line.keys.length} keyframes in ${clip.shots.length} `
            + `${clip.shots.length === 1 ? "shot" : "shots"}.`);
    };

    /* Edits: each goes through here, so that each can be undone. */
    const present = () => ({ wish: line.wish, words: line.words, hand: line.hand });
    const remember = () => {
        line.undo.push(present());
        line.redo = [];
    };
    /* What is wished for by hand outlives another range, and the ends of shots that go with it;
       the keyframes are what of that lies inside, with the ends that shots have now. */
    const inside = (key) => key >= line.clip.first && key <= line.clip.last;
    const fitted = (wish) =>
        [...new Set([...wish.filter(inside), ...line.clip.ends])].sort((a, b) => a - b);
    const edit = (keys, words, text) => {
        remember();
        const chosen = keys.filter((key) => !fixed(key) || line.wish.includes(key));
        line.wish = [...chosen, ...line.wish.filter((key) => !inside(key))];
        line.keys = fitted(line.wish);
        line.words = words;
        line.hand = true;
        publish();
        say(text);
        draw_timeline();
    };
    /* A field that somebody writes in is left alone until they leave it. */
    const active = () => app().activeElement || document.activeElement;
    const publish = () => {
        line.wrong = "";
        for (const [id, text] of [
            ["keyframes_keys", line.hand ? line.keys.join(",") : ""],
            ["sampling_key_prompts", words_text(line.words)],
        ]) if (field(id) !== active()) write(id, text);
    };
    const travel = (from, to, text) => {
        if (!from.length) return;
        to.push(present());
        Object.assign(line, from.pop());
        /* The range or the automatic keyframes may be others by now. */
        line.keys = line.hand ? fitted(line.wish) : [...line.clip.keys];
        publish();
        say(text);
        draw_timeline();
    };
    const undo = () => travel(line.undo, line.redo, "Undone.");
    const redo = () => travel(line.redo, line.undo, "Done again.");
    const add = (key) => edit([...line.keys, key], line.words, `Keyframe ${key} added.`);
    const remove = (key) => {
        if (!line.keys.includes(key)) return;
        if (fixed(key)) {
            say(`Frame ${key} is the first or last of a shot, which are always keyframes.`);
            return;
        }
        const words = { ...line.words };
        delete words[key];
        edit(line.keys.filter((other) => other !== key), words, `Keyframe ${key} removed.`);
    };
    const toggle = (key) => (line.keys.includes(key) ? remove(key) : add(key));
    const move = (key, to) => {
        if (key === to || fixed(key)) return;
        const words = { ...line.words };
        if (words[key] !== undefined && words[to] === undefined) words[to] = words[key];
        delete words[key];
        edit([...line.keys.filter((other) => other !== key), to], words,
             `Keyframe ${key} moved to ${to}.`);
    };
    const word = (key, text) => {
        const words = { ...line.words };
        if (text.trim()) words[key] = text.trim();
        else delete words[key];
        /* Not before the focus has come to where it goes. */
        setTimeout(() => edit(line.keys, words, `Words of keyframe ${key} changed.`), 0);
    };
    const automatic = () => {
        remember();
        Object.assign(line, { keys: [...line.clip.keys], wish: [], hand: false });
        publish();
        say("Automatic keyframes again.");
        draw_timeline();
    };
    const say = (text) => {
        line.said = text;
        const place = find("said");
        if (place) place.textContent = text;
    };

    /* What is typed or imported is understood by the program: one reader for all ways in. */
    const take = async (text, words) => {
        if (!line.clip) return;
        try {
            const taken = await ask("keys", {
                text, words, first: line.clip.first, last: line.clip.last,
            });
            if (!taken.keys.length) {
                if (line.hand && !text.trim()) automatic();
                if (JSON.stringify(taken.words) !== JSON.stringify(line.words)) {
                    line.words = taken.words;
                    draw_timeline();
                }
                publish();
                return;
            }
            const keys = fitted(taken.keys);
            const same = line.hand && keys.join() === line.keys.join()
                && JSON.stringify(taken.words) === JSON.stringify(line.words);
            if (same) publish();
            else edit(keys, taken.words, `${keys.length} keyframes set.`);
        } catch (error) {
            line.wrong = error.message;
        } finally {
            draw_timeline();
        }
    };
    const take_texts = () =>
        take(field("keyframes_keys").value, field("sampling_key_prompts").value);
    const typed = later(700, take_texts);
    const import_file = () => {
        const chooser = make("input", {
            type: "file", accept: ".txt,.json,.csv,text/plain,application/json",
        });
        chooser.addEventListener("change", async () => {
            const file = chooser.files[0];
            if (file) take(await file.text(), "");
        });
        chooser.click();
    };
    const export_file = async () => {
        try {
            const text = (await ask("keys", {
                text: line.keys.join(","), words: words_text(line.words),
                first: line.clip.first, last: line.clip.last,
            })).export;
            const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
            make("a", { href: address, download: "fresco-keyframes.json" }).click();
            setTimeout(() => URL.revokeObjectURL(address), 1000);
        } catch (error) {
            say(error.message);
        }
    };
    const copy = async () => {
        try {
            await navigator.clipboard.writeText(line.keys.join(","));
            say("Copied.");
        } catch (error) {
            say(`The browser does not allow copying. The keyframes: ${line.keys.join(",")}`);
        }
    };

    /* Small images of the source, several in one question. */
    const want = (numbers) => {
        const missing = numbers.filter((number) => !line.asked.has(number));
        missing.forEach((number) => line.asked.add(number));
        for (let i = 0; i < missing.length; i += MOST_THUMBNAILS) {
            const source = line.source;
            ask("thumbnails", { numbers: missing.slice(i, i + MOST_THUMBNAILS) }).then((found) => {
                if (source !== line.source) return;
                Object.assign(line.thumbnails, found);
                show_thumbnails();
            }).catch((error) => say(error.message));
        }
    };
    const show_thumbnails = () => {
        app().querySelectorAll("#fresco_timeline img[data-frame]").forEach((image) => {
            const address = line.thumbnails[image.dataset.frame];
            if (address && image.getAttribute("src") !== address) image.src = address;
        });
    };
    const view = { frame: null };
    const show_frame = later(120, async (number) => {
        try {
            const found = await ask("frame", { frame: number });
            const place = find("view");
            if (!place || view.frame !== number) return;
            fill(place, make("figure", {},
                make("img", { src: found.before, alt: `Frame ${number} of the source` }),
                make("figcaption", {}, `Frame ${number} at ${time(number)}`)));
        } catch (error) {
            say(error.message);
        }
    });
    const look_at = (number) => {
        if (view.frame === number && find("view").firstChild) return;
        view.frame = number;
        show_frame(number);
    };
    const go = (number) => {
        line.cursor = clamp(number);
        place_cursor();
        look_at(line.cursor);
    };

    /* Drawing. The outer box stays in the page; what depends on the clip is made again. */
    const draw_timeline = () => {
        const root = find("timeline");
        if (!root) return;
        estimate();
        if (!line.clip) {
            const share = line.total ? 100 * line.done / line.total : 0;
            const text = {
                empty: "Upload a video, or load one by its path. Its keyframes appear here.",
                detecting: `Looking for shots and keyframes${line.total
                    ? `, frame ${line.done} of ${line.total}` : " ..."}`,
                failed: line.message,
            }[line.state];
            if (line.reading) {
                fill(root, make("div", { class: "fresco_empty" },
                    make("p", {}, "Reading the video ...")));
                return;
            }
            fill(root, make("div", { class: "fresco_empty" },
                line.state === "failed" ? note(text, "bad") : make("p", {}, text),
                line.state === "detecting" ? meter(share, text) : null));
            return;
        }
        let frame = root.querySelector(".fresco_frame");
        if (!frame) {
            frame = make("div", { class: "fresco_frame" });
            fill(root, frame);
        }
        const scroll = frame.querySelector(".fresco_scroll");
        const left = scroll ? scroll.scrollLeft : 0;
        redrawn(frame, ".fresco_cards", () => {
            fill(frame, tools(), lane(), status(), cards());
            frame.querySelector(".fresco_scroll").scrollLeft = left;
            layout();
        });
    };
    const meter = (share, text) => make("div", {
        class: "fresco_meter", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100,
        "aria-valuenow": Math.round(share), "aria-label": text,
    }, make("div", { style: `width:${share.toFixed(1)}%` }));

    const tools = () => {
        const kind = line.hand ? "by hand" : "automatic";
        const shots = line.clip.shots.length;
        return make("div", { class: "fresco_tools" },
            make("span", { class: "fresco_count" }, make("b", {}, String(line.keys.length)),
                ` keyframes, ${kind}, in ${shots} ${shots === 1 ? "shot" : "shots"}`),
            make("span", { class: "fresco_group" },
                button("Undo", undo, {
                    disabled: !line.undo.length, "data-focus": "undo", title: "Ctrl+Z",
                }),
                button("Redo", redo, {
                    disabled: !line.redo.length, "data-focus": "redo", title: "Ctrl+Shift+Z",
                }),
                button("Automatic", automatic, {
                    disabled: !line.hand, "data-focus": "automatic",
                    title: "Use the automatic keyframes again",
                })),
            make("span", { class: "fresco_group" },
                button("\u2212", () => scale(0.5), {
                    "aria-label": "Zoom out", disabled: line.zoom <= 1, "data-focus": "out",
                }),
                button("+", () => scale(2), {
                    "aria-label": "Zoom in", disabled: line.zoom >= most_zoom(),
                    "data-focus": "in",
                })),
            make("span", { class: "fresco_group" },
                button("Import", import_file, {
                    "data-focus": "import", title: "Frame numbers in a text or JSON file",
                }),
                button("Export", export_file, { "data-focus": "export" }),
                button("Copy", copy, { "data-focus": "copy", title: "Frame numbers as text" })));
    };
    const unused_words = () =>
        Object.keys(line.words).map(Number).filter((number) => !line.keys.includes(number));
    const status = () => make("div", { class: "fresco_status" },
        /* The same node always: a reader of screens hears only what changes in one it knows. */
        find("said") || make("span", { id: "fresco_said", "aria-live": "polite" }, line.said),
        line.stale ? make("span", { class: "fresco_stale" },
            "Settings changed; finding the keyframes again ...") : null,
        line.reading ? make("span", {}, "Reading the video ...") : null,
        line.state === "detecting" ? make("span", {}, "Detecting ...") : null,
        line.message ? note(line.message, "bad") : null,
        line.wrong ? note(line.wrong, "bad") : null,
        unused_words().length ? note(`Prompt texts without effect, as these frames are no keyframes: `
            + `${unused_words().join(", ")}.`, "bad") : null,
        line.clip.notes.length ? make("details", {},
            make("summary", { "data-focus": "notes" }, `Notes (${line.clip.notes.length})`),
            make("ul", {}, line.clip.notes.map((text) => make("li", {}, text)))) : null);

    const lane = () => {
        const track = make("div", {
            id: "fresco_track", class: "fresco_track", role: "slider", tabindex: 0,
            "data-focus": "track", "aria-label": "Keyframe timeline",
            "aria-valuemin": line.clip.first, "aria-valuemax": line.clip.last,
            "aria-describedby": "fresco_keys_help",
            onkeydown: key_pressed, onpointerdown: pressed, onpointermove: moved,
            onpointerup: released, onpointercancel: released, onpointerleave: left_track,
        },
            make("div", { class: "fresco_strip" }),
            make("canvas", { class: "fresco_curve", "aria-hidden": "true" }),
            make("div", { class: "fresco_shades" }),
            make("div", { class: "fresco_keys" }),
            make("div", { class: "fresco_hover", hidden: true }),
            make("div", { class: "fresco_cursor" }));
        return make("div", { class: "fresco_lane" },
            make("div", { class: "fresco_scroll", onscroll: later(30, layout) }, track),
            make("p", { id: "fresco_keys_help", class: "fresco_hint" },
                "Click: add or remove a keyframe. Drag: move it. Keys: arrows (with Shift: 10 "
                + "frames), Space add or remove, Delete, Alt+arrows move, [ and ] to the next "
                + "keyframe, Ctrl+Z."));
    };
    const inner_width = () => {
        const scroll = app().querySelector("#fresco_timeline .fresco_scroll");
        return scroll ? scroll.clientWidth : 0;
    };
    const most_zoom = () => Math.max(1, Math.min(64, frames() * 14 / Math.max(1, inner_width())));
    const scale = (factor) => {
        const scroll = app().querySelector("#fresco_timeline .fresco_scroll");
        line.zoom = Math.min(most_zoom(), Math.max(1, line.zoom * factor));
        draw_timeline();
        const track = find("track");
        scroll_to(track.clientWidth * (line.cursor - line.clip.first) / frames()
            - (scroll ? inner_width() : 0) / 2);
    };
    const scroll_to = (left) => {
        app().querySelector("#fresco_timeline .fresco_scroll").scrollLeft = left;
        layout();
    };
    const x_of = (number) => (number - line.clip.first + 0.5) / frames() * 100;

    /* Everything whose place depends on the width at hand. */
    const layout = () => {
        const track = find("track");
        if (!track || !line.clip) return;
        const scroll = track.parentElement, seen = scroll.clientWidth;
        if (!seen) return;
        track.style.width = `${Math.round(seen * line.zoom)}px`;
        const wide = track.clientWidth;
        fill(track.querySelector(".fresco_shades"), line.clip.shots.map(([first, last], index) =>
            make("div", {
                class: index % 2 ? "fresco_shot fresco_odd" : "fresco_shot",
                style: `left:${(first - line.clip.first) / frames() * 100}%;`
                    + `width:${(last - first + 1) / frames() * 100}%`,
                title: `Shot ${index + 1}: frames ${first} to ${last}`,
            })));
        fill(track.querySelector(".fresco_keys"), line.keys.map((key) => make("div", {
            class: `fresco_key${fixed(key) ? " fresco_fixed" : ""}`
                + `${line.words[key] ? " fresco_worded" : ""}`,
            "data-key": key, style: `left:${x_of(key)}%`,
        })));
        strip(track, scroll.scrollLeft, seen, wide);
        curve(track, scroll.scrollLeft, seen, wide);
        place_cursor();
        tell_all("timeline_drawn");
    };
    const strip = (track, left, seen, wide) => {
        const place = track.querySelector(".fresco_strip");
        const each = Math.max(24, place.clientHeight * (line.aspect || 1));
        const count = Math.max(1, Math.floor(wide / each));
        const from = Math.floor(left / wide * count);
        const to = Math.min(count - 1, Math.ceil((left + seen) / wide * count));
        const images = [], numbers = [];
        for (let i = from; i <= to; i += 1) {
            const number = clamp(line.clip.first + Math.floor((i + 0.5) / count * frames()));
            numbers.push(number);
            images.push(make("img", {
                "data-frame": number, alt: "", draggable: "false",
                style: `left:${i / count * 100}%;width:${100 / count}%`,
            }));
        }
        fill(place, images);
        want(numbers);
        show_thumbnails();
    };
    const curve = (track, left, seen, wide) => {
        const canvas = track.querySelector("canvas"), ratio = window.devicePixelRatio || 1;
        const high = canvas.clientHeight;
        canvas.style.width = `${seen}px`;
        canvas.style.left = `${left}px`;
        canvas.width = Math.round(seen * ratio);
        canvas.height = Math.round(high * ratio);
        const pen = canvas.getContext("2d");
        pen.scale(ratio, ratio);
        const colour = getComputedStyle(track).getPropertyValue("--fresco_curve").trim();
        const points = line.clip.changes, stride = line.clip.stride;
        /* The square root keeps small motion visible beside a cut. */
        const most = Math.sqrt(Math.max(...points.length < 50000 ? points : [1], 1e-9));
        pen.beginPath();
        pen.moveTo(0, high);
        for (let x = 0; x <= seen; x += 1) {
            const from = Math.floor((left + x) / wide * frames() / stride);
            const to = Math.max(from + 1, Math.floor((left + x + 1) / wide * frames() / stride));
            let value = 0;
            for (let i = from; i < to && i < points.length; i += 1) {
                value = Math.max(value, points[i]);
            }
            pen.lineTo(x, high - 2 - (high - 6) * Math.sqrt(value) / most);
        }
        pen.lineTo(seen, high);
        pen.closePath();
        pen.globalAlpha = 0.25;
        pen.fillStyle = colour;
        pen.fill();
        pen.globalAlpha = 1;
        pen.lineWidth = 1.25;
        pen.strokeStyle = colour;
        pen.stroke();
    };
    const place_cursor = () => {
        const track = find("track");
        if (!track || !line.clip) return;
        const key = line.keys.includes(line.cursor);
        track.querySelector(".fresco_cursor").style.left = `${x_of(line.cursor)}%`;
        track.setAttribute("aria-valuenow", line.cursor);
        track.setAttribute("aria-valuetext", `frame ${line.cursor} of ${line.clip.last}, `
            + `${time(line.cursor)}, ${key ? "keyframe" : "no keyframe"}`
            + `${line.words[line.cursor] ? `, ${line.words[line.cursor]}` : ""}`);
        app().querySelectorAll("#fresco_timeline .fresco_card").forEach((card) =>
            card.classList.toggle("fresco_here", Number(card.dataset.card) === line.cursor));
    };

    /* Keyframes as cards: image, number, words. */
    const cards = () => make("div", { class: "fresco_cards" }, line.keys.map((key) => {
        want_soon(key);
        return make("div", { class: "fresco_card", "data-card": key },
            make("button", {
                type: "button", class: "fresco_picture", "data-focus": `image${key}`,
                "aria-label": `Show keyframe ${key}`, onclick: () => go(key),
            }, make("img", { "data-frame": key, alt: "" })),
            make("div", { class: "fresco_card_text" },
                make("span", { class: "fresco_card_head" }, make("b", {}, String(key)),
                    make("span", { class: "fresco_hint" }, time(key)),
                    fixed(key) ? make("span", {
                        class: "fresco_hint", title: "The ends of a shot are always keyframes.",
                    }, "end") : button("\u00d7", () => remove(key), {
                        "aria-label": `Remove keyframe ${key}`, "data-focus": `remove${key}`,
                    })),
                words_field(key)));
    }));
    const words_field = (key) => {
        const input = make("input", {
            type: "text", placeholder: "prompt text for this keyframe", "data-focus": `words${key}`,
            "aria-label": `Prompt text for keyframe ${key}`,
            onchange: (event) => word(key, event.target.value),
        });
        input.value = line.words[key] || "";
        return input;
    };
    const wanted = new Set();
    const want_now = later(30, () => { want([...wanted]); wanted.clear(); show_thumbnails(); });
    const want_soon = (number) => { wanted.add(number); want_now(); };

    /* Pointer: a click adds or removes, a drag moves. */
    const at = (event) => {
        const box = find("track").getBoundingClientRect();
        return clamp(line.clip.first
            + Math.floor((event.clientX - box.left) / box.width * frames()));
    };
    const key_at = (event) => {
        const box = find("track").getBoundingClientRect();
        let best = null, distance = event.pointerType === "touch" ? 3 * NEAR : NEAR + 1;
        for (const key of line.keys) {
            const x = box.left + x_of(key) / 100 * box.width;
            if (Math.abs(x - event.clientX) < distance) {
                distance = Math.abs(x - event.clientX);
                best = key;
            }
        }
        return best;
    };
    const pressed = (event) => {
        if (event.button) return;
        const key = key_at(event);
        line.drag = { key, from: event.clientX, to: null, moved: false };
        if (key !== null) find("track").setPointerCapture(event.pointerId);
        find("track").focus({ preventScroll: true });
    };
    const moved = (event) => {
        const drag = line.drag, over = find("track").querySelector(".fresco_hover");
        const number = at(event);
        over.hidden = event.pointerType === "touch" && !(drag && drag.key !== null);
        over.style.left = `${x_of(number)}%`;
        over.textContent = `${number} \u00b7 ${time(number)}`;
        if (!drag) return;
        if (Math.abs(event.clientX - drag.from) > 4) drag.moved = true;
        if (!drag.moved || drag.key === null || fixed(drag.key)) return;
        drag.to = number;
        const marker = find("track").querySelector(`[data-key="${drag.key}"]`);
        if (marker) {
            marker.style.left = `${x_of(number)}%`;
            marker.classList.add("fresco_dragged");
        }
    };
    const released = (event) => {
        const drag = line.drag;
        line.drag = null;
        if (!drag || event.type === "pointercancel") { layout(); return; }
        if (drag.moved) {
            if (drag.key !== null && fixed(drag.key)) remove(drag.key);
            else if (drag.key !== null && drag.to !== null) {
                go(drag.to);
                move(drag.key, drag.to);
            }
            return;
        }
        const number = drag.key === null ? at(event) : drag.key;
        go(number);
        toggle(number);
    };
    const left_track = () => {
        const over = find("track").querySelector(".fresco_hover");
        if (!line.drag) over.hidden = true;
    };
    const key_pressed = (event) => {
        const control = event.ctrlKey || event.metaKey, letter = event.key.toLowerCase();
        if (control && letter === "z") (event.shiftKey ? redo : undo)();
        else if (control && letter === "y") redo();
        else if (control) return;
        else if (event.altKey && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
            const to = clamp(line.cursor + (event.key === "ArrowLeft" ? -1 : 1));
            if (line.keys.includes(line.cursor) && !fixed(line.cursor)) {
                const from = line.cursor;
                go(to);
                move(from, to);
            }
        } else if (event.key === "ArrowLeft" || event.key === "ArrowDown") {
            go(line.cursor - (event.shiftKey ? 10 : 1));
        } else if (event.key === "ArrowRight" || event.key === "ArrowUp") {
            go(line.cursor + (event.shiftKey ? 10 : 1));
        } else if (event.key === "PageUp") go(line.cursor + 10);
        else if (event.key === "PageDown") go(line.cursor - 10);
        else if (event.key === "Home") go(line.clip.first);
        else if (event.key === "End") go(line.clip.last);
        else if (event.key === " " || event.key === "Enter") toggle(line.cursor);
        else if (event.key === "Delete" || event.key === "Backspace") remove(line.cursor);
        else if (event.key === "]") {
            go(line.keys.find((key) => key > line.cursor) ?? line.clip.last);
        } else if (event.key === "[") {
            go([...line.keys].reverse().find((key) => key < line.cursor) ?? line.clip.first);
        } else return;
        event.preventDefault();
        event.stopPropagation();
    };

    /* The estimate is the program's; it is asked for when something may have changed. */
    const plan = (values) => {
        values[0] = line.clip ? JSON.stringify({
            keys: line.keys.length, frames: frames(), last: line.clip.last, size: line.size,
        }) : "";
        return values;
    };
    const estimate = later(500, () => {
        const trigger = find("estimate_now");
        if (trigger && line.clip) trigger.click();
    });

    /* ------------------------------------------------ jobs */
    const work = {
        jobs: [], chosen: null, detail: null, timer: 0, busy: false, deleting: "",
        thumbnails: {}, times: {}, key: null, frame: null, as_key: false, shown: "", report: "",
        log: null, split: 50, pair: null, layer: "", /* what is shown, where it was chosen */
        message: "", kind: "bad", /* what an action came to, until the state changes */
        lost: "", /* why the program cannot be asked, until it answers */
        told: "", told_kind: "", /* what a button of this step came to, as long as it is true */
        pressed: 0, /* when a button of this step was pressed that is not answered yet */
        acting: new Set(), /* questions that change something and are not answered yet */
        uploads: null, dropping: "", /* the upload whose deletion is asked for once more */
    };
    const unknown = () => ({
        detail: null, thumbnails: {}, times: {}, key: null, frame: null, report: "", log: null,
        pair: null, as_key: false, message: "", layer: "",
    });
    const status_of = (id) => work.jobs.find((job) => job.id === id) || null;
    const chosen = () => status_of(work.chosen);
    const goes_on = (job) => Boolean(job) && ACTIVE.includes(job.state);
    const with_job = (values) => { values[0] = work.chosen || ""; return values; };

    const opening = (values) => with_job(loading(values));
    /* The settings of a result were put into the fields; the keyframes on the timeline follow. */
    const restored = () => {
        if (!line.clip) return;
        Object.assign(line, { hand: false, wish: [], words: {}, wrong: "" });
        stale();
    };

    const seen = () => {
        const root = find("root");
        return Boolean(root) && root.offsetParent !== null && !document.hidden;
    };
    /* What was told goes when it is no longer true: another video, job, or state of the job. */
    const tell = (text, kind) => {
        Object.assign(work, { told: text, told_kind: text ? kind : "" });
        const place = find("run_message");
        if (place) fill(place, text ? note(text, kind) : null);
    };
    const complain = (text, kind) => {
        Object.assign(work, { message: text, kind: kind || "bad" });
        draw_progress();
    };
    const forget_told = (before, after) => {
        if (!before || !after || before.state === after.state) return;
        work.message = "";
        if (work.told_kind === "bad" || !goes_on(after)) tell("");
    };

    const poll = async () => {
        clearTimeout(work.timer);
        if (work.busy) return;
        work.busy = true;
        try {
            const found = await ask("jobs", { job: work.chosen || "" });
            if (!work.chosen && found.jobs.length) {
                const active = found.jobs.find(goes_on) || found.jobs[0];
                work.chosen = active.id;
                tell_all("jobs", found.jobs, work.jobs);
                work.jobs = found.jobs;
                work.again = true;
            } else take_jobs(found);
            if (work.lost) {
                work.lost = "";
                draw_progress();
            }
        } catch (error) {
            work.lost = error.message;
            draw_progress();
        }
        work.busy = false;
        const again = work.again;
        work.again = false;
        work.timer = setTimeout(tick,
            again ? 0 : work.jobs.some(goes_on) && seen() ? POLL : IDLE);
    };
    /* The title and the notification tell of a job also while another page or tab is looked at. */
    const tick = () => {
        if (seen() || work.jobs.some(goes_on)) poll();
        else work.timer = setTimeout(tick, POLL);
    };
    const take_jobs = (found) => {
        const before = JSON.stringify([work.jobs, work.detail]);
        const over = (jobs) => jobs.filter((job) => !goes_on(job)).length;
        if (over(found.jobs) !== over(work.jobs)) estimate(); /* its pace is known now */
        if (found.jobs.length !== work.jobs.length) look_at_uploads();
        const then = chosen(), were = work.jobs;
        work.jobs = found.jobs;
        forget_told(then, chosen());
        tell_all("jobs", found.jobs, were);
        const output = work.detail && work.detail.output;
        if (!found.chosen) Object.assign(work, unknown(), { chosen: null });
        else if (found.chosen.job === work.chosen) work.detail = found.chosen;
        if (JSON.stringify([work.jobs, work.detail]) === before) return;
        draw_jobs();
        draw_progress();
        draw_gallery();
        if (output && work.detail && work.detail.output !== output && !work.as_key) load_pair();
        else if (is_retouched(work.frame)) load_pair();
        show_result();
        if (work.log !== null) show_log();
        tell_all("detail");
    };
    const choose = (id) => {
        if (work.chosen !== id) {
            Object.assign(work, unknown(), { chosen: id });
            tell("");
            draw_jobs();
            draw_progress();
            draw_gallery();
            show_result();
        }
        poll();
    };
    const submitted = (text) => {
        let made = null;
        released_buttons();
        try { made = JSON.parse(text); } catch (error) { return; }
        work.message = "";
        if (made.job) work.chosen === made.job ? poll() : choose(made.job);
        tell(made.text, made.kind);
        draw_progress();
    };
    /* A button that queues a job does so once, until it was answered. */
    const buttons = () => [...app().querySelectorAll("#fresco_buttons button")];
    const pressed_button = (event) => {
        if (!event.target.closest || !event.target.closest("#fresco_buttons button")) return;
        if (Date.now() - work.pressed < LOST) {
            event.preventDefault();
            event.stopImmediatePropagation();
            return;
        }
        work.pressed = Date.now();
        tell("");
        /* Not before this press has come to gradio. */
        setTimeout(() => buttons().forEach((element) => { element.disabled = true; }), 0);
        setTimeout(() => { if (Date.now() - work.pressed >= LOST) released_buttons(); }, LOST);
    };
    const released_buttons = () => {
        work.pressed = 0;
        setTimeout(() => buttons().forEach((element) => { element.disabled = false; }), 0);
    };
    const act = (what, values) => {
        if (work.acting.has(what)) return;
        work.acting.add(what);
        ask(what, { job: work.chosen || "", ...values })
            .then((answer) => {
                work.acting.delete(what);
                complain((answer && answer.said) || "", "note");
                poll();
            })
            .catch((error) => {
                work.acting.delete(what);
                complain(error.message);
            });
    };
    const cancel = () => (chosen() ? act("cancel") : complain("No job is selected."));
    const resume = () => (chosen() ? act("resume") : complain("No job is selected."));

    const draw_progress = () => {
        const place = find("progress");
        if (!place) return;
        const job = chosen();
        for (const [name, usable] of [
            ["cancel", job && goes_on(job) && job.state !== "cancelling"],
            ["resume", job && !goes_on(job)],
            ["open", Boolean(job)],
        ]) {
            const element = find(name);
            const pressed = element && (element.matches("button") ? element
                : element.querySelector("button"));
            if (pressed) pressed.disabled = !usable;
        }
        const wrong = [
            work.message ? note(work.message, work.kind) : null,
            work.lost && work.lost !== work.message ? note(work.lost, "bad") : null,
        ];
        if (!job) {
            fill(place, wrong);
            return;
        }
        const share = job.state === "done" ? 100 : job.total ? 100 * job.done / job.total : 0;
        const stage = job.stage ? job.stage[0].toUpperCase() + job.stage.slice(1) : "";
        const count = job.total ? `${job.done} of ${job.total}` : "";
        const left = !goes_on(job) ? "" : job.whole_left ? `about ${job.whole_left} left`
            : job.left ? `about ${job.left} left in this stage` : "";
        const waits = work.jobs.filter(goes_on).length;
        const text = {
            queued: waits > 1
                ? `Queued with ${waits - 1} other ${waits === 2 ? "job" : "jobs"}` : "Queued",
            running: [stage, count, left].filter(Boolean).join(" \u00b7 ") || "Starting",
            cancelling: "Cancelling",
            cancelled: "Cancelled",
            failed: "Failed",
            done: job.took ? `Done in ${job.took}` : "Done",
        }[job.state];
        fill(place,
            make("div", { class: `fresco_state fresco_state_${job.state}` },
                make("b", {}, job.title), ` \u00b7 ${GOALS[job.goal] || job.goal}`,
                work.detail && job.goal !== "propagation"
                    ? ` \u00b7 seed ${work.detail.seed}` : null),
            make("div", { class: job.state === "running" && !job.total ? "fresco_waits" : "" },
                meter(share, text)),
            make("div", { class: "fresco_stage", id: "fresco_stage" }, text),
            job.state === "failed" ? note(job.message, "bad")
                : job.message && job.state !== "done"
                    ? make("div", { class: "fresco_hint" }, job.message) : null,
            job.notes.length ? make("ul", { class: "fresco_notes" },
                job.notes.map((text) => make("li", {}, text))) : null,
            work.detail && work.detail.next ? note(work.detail.next) : null,
            wrong);
    };

    /* What the pointer presses is drawn again once it is released: a button that is replaced
       meanwhile hears no click. */
    const held = { target: null, waiting: new Map() };
    const release = () => {
        held.target = null;
        setTimeout(() => {
            const drawings = [...held.waiting.values()];
            held.waiting.clear();
            drawings.forEach((draw) => draw());
        }, 0);
    };
    document.addEventListener("pointerdown", (event) => {
        [held.target] = event.composedPath();
    }, true);
    for (const name of ["pointerup", "pointercancel"]) {
        document.addEventListener(name, release, true);
    }
    window.addEventListener("blur", release);

    /* Draw again what may be scrolled or have the focus, and restore both. */
    const redrawn = (place, list, draw) => {
        if (held.target && place.contains(held.target)) {
            held.waiting.set(place, () => redrawn(place, list, draw));
            return;
        }
        const old = place.querySelector(list);
        const [left, top] = old ? [old.scrollLeft, old.scrollTop] : [0, 0];
        const focused = active();
        const kept = focused && place.contains(focused) ? focused.dataset.focus : null;
        draw();
        const fresh = place.querySelector(list);
        if (fresh) Object.assign(fresh, { scrollLeft: left, scrollTop: top });
        const again = kept && place.querySelector(`[data-focus="${CSS.escape(kept)}"]`);
        if (again) again.focus({ preventScroll: true });
    };
    /* The list is drawn by fresco_jobs.js. */
    const draw_jobs = () => tell_all("jobs_changed");

    /* Uploaded videos: what there is, how much room it takes, and which jobs need it. */
    const look_at_uploads = later(200, async () => {
        try {
            work.uploads = await ask("videos", {});
            draw_uploads();
        } catch (error) {
            complain(error.message);
        }
    });
    const draw_uploads = () => {
        const place = find("uploads");
        if (!place) return;
        if (!work.uploads || !work.uploads.videos.length) {
            fill(place);
            return;
        }
        const { videos, bytes } = work.uploads;
        const shown = place.querySelector("details");
        const rows = videos.map((video) => make("li", {
            class: `fresco_job${video.open ? " fresco_here" : ""}`, "data-video": video.id,
        },
            make("span", { class: "fresco_upload" },
                make("span", { class: "fresco_job_title" }, video.name),
                make("span", { class: "fresco_hint" },
                    `${size(video.bytes)}, ${video.frames} frames`),
                make("span", { class: "fresco_hint" }, video.jobs
                    ? `needed by ${video.jobs} ${video.jobs === 1 ? "job" : "jobs"}` : "no job"),
                video.open ? make("span", { class: "fresco_hint" }, "open in this tab") : null),
            work.dropping === video.id
                ? make("span", { class: "fresco_group fresco_asked" },
                    button(video.jobs ? "Delete; its jobs cannot be resumed" : "Delete for good",
                        () => drop_video(video.id), { class: "fresco_button fresco_danger" }),
                    button("Cancel", () => { work.dropping = ""; draw_uploads(); }))
                : button("\u00d7", () => { work.dropping = video.id; draw_uploads(); }, {
                    "aria-label": `Delete upload ${video.name}`,
                    "data-focus": `drop${video.id}`, disabled: video.open,
                    title: video.open ? "It is open in this tab" : "Delete this upload",
                })));
        const details = make("details", {},
            make("summary", {}, `Uploads (${videos.length}, ${size(bytes)})`),
            make("ul", {}, rows));
        details.open = Boolean(shown && shown.open);
        redrawn(place, "ul", () => fill(place, details));
    };
    const drop_video = async (video) => {
        work.dropping = "";
        try {
            await ask("delete_video", { video });
            complain("");
        } catch (error) {
            complain(error.message);
        }
        look_at_uploads();
    };

    /* Keyframes of the selected job; a press compares that frame. */
    const draw_gallery = () => {
        const place = find("gallery");
        if (!place) return;
        const keys = work.detail ? Object.keys(work.detail.keys).map(Number)
            .sort((a, b) => a - b) : [];
        if (!keys.length) {
            fill(place);
            draw_compare();
            return;
        }
        const fresh = keys.filter((key) => work.times[key] !== work.detail.keys[key]);
        for (const key of fresh) work.times[key] = work.detail.keys[key];
        for (let i = 0; i < fresh.length; i += MOST_THUMBNAILS) {
            const job = work.chosen;
            ask("key_thumbnails", { job, numbers: fresh.slice(i, i + MOST_THUMBNAILS) }).then((found) => {
                if (job !== work.chosen) return;
                Object.assign(work.thumbnails, found);
                find("gallery").querySelectorAll("img").forEach((image) => {
                    const address = work.thumbnails[image.dataset.frame];
                    if (address) image.src = address;
                });
            }).catch((error) => complain(error.message));
        }
        const list = make("div", { class: "fresco_shelf" }, keys.map((key) => make("button", {
            type: "button", class: `fresco_shelved${key === work.key ? " fresco_here" : ""}`,
            "data-key": key, "aria-label": `Compare keyframe ${key}`, "data-focus": `shelf${key}`,
            "aria-pressed": key === work.key ? "true" : "false",
            onclick: () => compare(key, true),
        }, make("img", { "data-frame": key, alt: "", src: work.thumbnails[key] || null }),
            make("span", {}, String(key)))));
        redrawn(place, ".fresco_shelf", () => fill(
            place, make("div", { class: "fresco_label" }, `Keyframes (${keys.length})`), list));
        if (work.frame === null || (work.as_key && fresh.includes(work.frame))) {
            compare(work.frame === null ? keys[0] : work.frame, true);
        } else draw_compare();
    };

    /* The segment beside a replaced keyframe that a frame lies in, while the video is older. */
    const is_retouched = (frame) => !work.as_key && !work.layer && work.detail !== null
        && work.detail.retouched.some(({ first, last }) => first <= frame && frame <= last);

    /* The same frame before and after, with a curtain between them. */
    const compare = (frame, as_key) => {
        Object.assign(work, { frame, as_key, key: work.detail.keys[frame] ? frame : null });
        app().querySelectorAll("#fresco_gallery .fresco_shelved").forEach((element) => {
            const here = Number(element.dataset.key) === work.key;
            element.classList.toggle("fresco_here", here);
            element.setAttribute("aria-pressed", here ? "true" : "false");
        });
        draw_compare();
        load_pair();
    };
    /* Both images of the frame that is looked at. While one pair is on its way no other is asked
       for; then the one that is wanted by then. */
    const find_layer = () => work.layer || (work.as_key ? "keyframe" : "result");
    const pairs = { loading: false, again: false, shown: 0 };
    const load_pair = async () => {
        if (pairs.loading) {
            pairs.again = true;
            return;
        }
        Object.assign(pairs, { loading: true, again: false });
        const { chosen: job, frame, pair: old } = work, { shown } = pairs, layer = find_layer();
        const known = old && old.frame === frame && old.job === job ? old : null;
        const get = (layer) =>
            call(`jobs/${job}/frames/${frame}?layer=${layer}`).then(see);
        try {
            const [before, after] = await Promise.all([
                known ? { src: known.before } : get("source"), get(layer),
            ]);
            /* What was retouched meanwhile is newer. */
            if (shown !== pairs.shown || layer !== find_layer()) pairs.again = true;
            else if (job === work.chosen && frame === work.frame && work.detail) {
                show_pair({ job, frame, before: before.src, ...after_of(after) });
            }
        } catch (error) {
            if (job === work.chosen) complain(error.message);
        }
        pairs.loading = false;
        if (pairs.again && work.detail && work.frame !== null) load_pair();
    };
    const after_of = (seen) =>
        ({ after: seen && seen.src, kind: seen && seen.draft ? "draft" : "" });
    const show_pair = (pair) => {
        const old = work.pair;
        work.pair = pair;
        pairs.shown += 1;
        draw_compare();
        for (const name of ["before", "after"]) {
            if (old && old[name] && old[name] !== pair[name]) URL.revokeObjectURL(old[name]);
        }
    };
    /* Why the frame has no image: of some layers it never has one. */
    const lacks = () => {
        const layer = find_layer().split("&")[0], of_keys = ["keyframe", "hint"].includes(layer);
        if (of_keys && work.key === null) return "not a keyframe";
        return ["keyframe", "result"].includes(layer) ? "not there yet" : `no ${layer}`;
    };
    const draw_compare = () => {
        const place = find("compare");
        if (!place) return;
        if (!work.detail || work.frame === null) {
            fill(place);
            return;
        }
        let box = place.querySelector(".fresco_compare");
        if (!box) {
            box = compare_box();
            fill(place, box);
        }
        const { pair } = work;
        const [before, after] = box.querySelectorAll(".fresco_curtain img");
        if (pair) {
            if (before.getAttribute("src") !== pair.before) before.src = pair.before;
            after.hidden = !pair.after;
            if (pair.after && after.getAttribute("src") !== pair.after) after.src = pair.after;
        }
        const keys = Object.keys(work.detail.keys).map(Number);
        const whole = Boolean(work.detail.output);
        const slider = box.querySelector(".fresco_frame_slider");
        slider.min = whole ? work.detail.first : 0;
        slider.max = whole ? work.detail.last : keys.length - 1;
        slider.value = whole ? work.frame : keys.indexOf(work.frame);
        slider.setAttribute("aria-valuetext", `frame ${work.frame}`);
        box.querySelector(".fresco_frame_number").textContent =
            `Frame ${work.frame}${work.key === null ? "" : ", keyframe"}`
            + `${pair && pair.frame === work.frame && !pair.after ? `, ${lacks()}` : ""}`;
        box.querySelector(".fresco_tag_after").textContent =
            pair && pair.kind === "draft" ? "draft" : "after";
        tell_all("compare_drawn", box);
        box.querySelector(".fresco_again").hidden = work.key === null
            || (chosen() || {}).goal === "propagation"; /* the model has no part in those */
        box.querySelector(".fresco_again button").disabled = goes_on(chosen());
        curtain(box, work.split);
    };
    const curtain = (box, split) => {
        work.split = Math.min(100, Math.max(0, split));
        const shown = box.querySelector(".fresco_curtain");
        shown.style.setProperty("--fresco_split", `${work.split}%`);
        shown.setAttribute("aria-valuenow", Math.round(work.split));
        tell_all("curtain_moved", box);
    };
    const compare_box = () => {
        const box = make("div", { class: "fresco_compare" });
        const drag = (event) => {
            const sides = shown.getBoundingClientRect();
            curtain(box, 100 * (event.clientX - sides.left) / sides.width);
        };
        const shown = make("div", {
            class: "fresco_curtain", role: "slider", tabindex: 0, "aria-valuemin": 0,
            "aria-valuemax": 100, "aria-label": "Border between before and after",
            onpointerdown: (event) => {
                shown.setPointerCapture(event.pointerId);
                drag(event);
            },
            onpointermove: (event) => { if (event.buttons) drag(event); },
            onkeydown: (event) => {
                const step = { ArrowLeft: -2, ArrowRight: 2, Home: -100, End: 100 }[event.key];
                if (!step) return;
                curtain(box, work.split + step);
                event.preventDefault();
            },
        },
            make("img", {
                alt: "Before: the source", draggable: "false",
                /* So that a tall image does not push everything else off the screen. */
                onload: (event) => {
                    const { naturalWidth, naturalHeight } = event.target;
                    shown.style.maxWidth = `calc(70vh * ${naturalWidth / naturalHeight})`;
                },
            }),
            make("img", { alt: "After: the result", draggable: "false", class: "fresco_after" }),
            make("span", { class: "fresco_tag fresco_tag_before" }, "before"),
            make("span", { class: "fresco_tag fresco_tag_after" }, "after"),
            make("div", { class: "fresco_handle" }));
        const slider = make("input", {
            type: "range", class: "fresco_frame_slider", step: 1, "aria-label": "Frame compared",
            oninput: (event) => {
                const number = Number(event.target.value);
                if (work.detail.output) compare(number, false);
                else compare(Object.keys(work.detail.keys).map(Number)[number], true);
            },
        });
        const seed = make("input", {
            type: "number", min: -1, step: 1, value: work.detail.seed + 1, class: "fresco_seed",
            "aria-label": "Seed of this keyframe", title: "-1: a random one",
        });
        box.append(shown,
            make("div", { class: "fresco_compare_row" },
                make("span", { class: "fresco_frame_number" }), slider),
            make("div", { class: "fresco_compare_row fresco_again" },
                button("Translate this keyframe again", () => {
                    act("again", { frame: work.frame, seed: Math.round(Number(seed.value)) });
                }),
                make("label", {}, "seed ", seed)));
        tell_all("compare_made", box);
        return box;
    };

    /* Result video, measures, log. */
    const show_result = () => {
        const detail = work.detail;
        const mark = detail
            ? [work.chosen, detail.output, detail.report, detail.comparison].join() : "";
        draw_log();
        /* Of a job just chosen, the detail comes with the next answer. */
        if ((!detail && work.chosen) || mark === work.shown || !find("result")) return;
        work.shown = mark;
        draw_files();
        const place = find("measures");
        if (!detail || !detail.report) {
            fill(place);
            return;
        }
        const job = work.chosen;
        ask("report", { job }).then((drawing) => {
            if (job !== work.chosen || !drawing) return;
            const inside = make("div");
            inside.innerHTML = drawing; /* made and escaped by the program */
            const details = make("details", { open: true },
                make("summary", {}, "Measures"), inside);
            fill(place, details);
        }).catch((error) => complain(error.message));
    };
    /* The video and the files come from the routes of the API, which ask who it is; gradio would
       serve them to everybody. */
    const file_address = (what, changed) => {
        const address = address_of(`/fresco/jobs/${work.chosen}/${what}`);
        address.searchParams.set("changed", changed);
        return address.href;
    };
    const draw_files = () => {
        const place = find("result"), files = find("files"), { detail } = work;
        if (!place || !files) return;
        if (!detail || !detail.output) {
            fill(place);
            fill(files);
            return;
        }
        place.classList.toggle("fresco_clear", detail.clear);
        const ending = /\.\w+$/.exec(detail.name);
        const saved = detail.saved + (ending ? ending[0] : ".zip");
        if (!ending) {
            fill(place, note("The result is a folder of PNG images; the slider above shows them. "
                + "The link below saves them all."));
            draw_links(files, saved);
            return;
        }
        const is_image = /\.(gif|webp)$/.test(detail.name);
        const video = make(is_image ? "img" : "video", {
            ...(is_image ? { alt: "Result" }
                : { controls: true, playsinline: true, preload: "metadata", "aria-label": "Result" }),
            src: file_address("video", detail.output),
            onerror: () => fill(place, note(
                "The browser could not show the video. It may not play this codec: save the video by a "
                + "link below. If the program was started with --api-auth or --login, a link below "
                + "asks for user and password again.",
                "bad")),
        });
        fill(place, video);
        tell_all("result_drawn", place, video);
        draw_links(files, saved);
    };
    const draw_links = (files, saved) => {
        const { detail } = work;
        const links = [
            ["video", detail.output, saved],
            ["comparison", detail.comparison, `${detail.saved}-comparison.mp4`],
            ["report", detail.report, `${detail.saved}-report.json`],
        ].filter(([, changed]) => changed).map(([what, changed, name]) => make("a", {
            href: file_address(what, changed), download: name,
        }, name));
        fill(files, make("div", { class: "fresco_links" }, "Files: ", links));
    };
    const draw_log = () => {
        const place = find("log");
        if (!place) return;
        if (!work.detail) {
            fill(place);
            return;
        }
        if (place.firstChild) return;
        const details = make("details", {
            ontoggle: () => {
                if (details.open) show_log();
                else work.log = null;
            },
        }, make("summary", {}, "Log"), make("pre", { class: "fresco_log", tabindex: 0 }));
        fill(place, details);
    };
    const show_log = async () => {
        const place = app().querySelector("#fresco_log pre");
        if (!place || !work.chosen) return;
        try {
            work.log = await ask("log", { job: work.chosen });
            const end = place.scrollTop + place.clientHeight >= place.scrollHeight - 8;
            place.textContent = work.log || "The log is empty.";
            if (end) place.scrollTop = place.scrollHeight;
        } catch (error) {
            place.textContent = error.message;
        }
    };

    /* ------------------------------------------------ uploads */
    /* Gradio 3 forgets an upload when anything else is answered before its end; this one is ours. */
    const sending = {};

    const address_of = (path) => {
        const root = (window.gradio_config && window.gradio_config.root) || "";
        return new URL(root.replace(/\/$/, "") + path, location.href);
    };
    const send = (place, files) => {
        const id = place.id, names = files.map((file) => file.name).join(", ");
        if (sending[id]) sending[id].stop();
        const request = new XMLHttpRequest(), form = new FormData();
        const text = make("span", { class: "fresco_sending_text" }, `Uploading ${names}`);
        const bar = make("progress", { max: 1, value: 0 });
        const stop = () => {
            request.abort();
            box.remove();
            delete sending[id];
        };
        const box = make("div", { class: "fresco_sending", role: "status" }, text, bar,
            make("button", { type: "button", title: "Stop the upload", onclick: stop }, "×"));
        const failed = (why) => {
            text.textContent = `The upload of ${names} failed: ${why}. Choose it again.`;
            bar.remove();
            box.classList.add("fresco_bad");
        };
        place.append(box);
        sending[id] = { stop, paths: null };
        for (const file of files) form.append("files", file);
        request.upload.onprogress = (event) => { bar.value = event.loaded / event.total; };
        request.onerror = () => failed("the program does not answer");
        request.onload = () => {
            if (request.status !== 200) {
                failed(`the program answered ${request.status} ${request.statusText}`);
                return;
            }
            box.remove();
            sending[id].paths = request.responseText;
            app().querySelector(`#${id}_take`).click();
        };
        /* Gradio 5 has its routes below a prefix. */
        const prefix = (window.gradio_config && window.gradio_config.api_prefix) || "";
        request.open("POST", address_of(`${prefix}/upload`));
        request.send(form);
    };
    /* Where the uploaded files of a control lie, for its hidden button. */
    const sent = (id) => () => {
        const paths = sending[id] ? sending[id].paths : null;
        delete sending[id];
        return [paths || "[]"];
    };
    const take_files = (event) => {
        const target = event.composedPath()[0];
        const place = target.closest && target.closest(".fresco_file");
        const chosen = event.type === "drop" ? event.dataTransfer : target;
        if (!place || !chosen || !chosen.files || !chosen.files.length) return;
        const input = place.querySelector("input[type=file]"), files = [...chosen.files];
        if (!input) return;
        event.preventDefault();
        event.stopImmediatePropagation();
        if (event.type === "drop") target.dispatchEvent(new DragEvent("dragleave"));
        else target.value = "";
        send(place, input.multiple ? files : files.slice(0, 1));
    };
    for (const kind of ["change", "drop"]) document.addEventListener(kind, take_files, true);

    /* ------------------------------------------------ start */
    /* The scores of the frames are kept, so finding keyframes again takes a moment only. */
    const detects = () => Boolean(line.clip) || line.state === "detecting";
    const detect_again = later(800, () => { if (detects()) find("detect").click(); });
    const stale = () => {
        if (!detects()) return;
        line.stale = true;
        draw_timeline();
        detect_again();
    };
    const DETECTION = ["keyframes_min_interval", "keyframes_max_interval",
        "keyframes_detect_shots", "keyframes_shot_threshold", "keyframes_shot_min_length",
        "output_first_frame", "output_last_frame"];

    const start = () => {
        const root = find("root");
        if (!root || root.dataset.fresco || !find("timeline")) return false;
        root.dataset.fresco = "started";
        const inside = (event, id) => event.target.closest && event.target.closest("#fresco_" + id);
        root.addEventListener("input", (event) => {
            if (!event.isTrusted) return;
            if (inside(event, "keyframes_keys") || inside(event, "sampling_key_prompts")) typed();
            if (DETECTION.some((id) => inside(event, id))) stale();
            if (inside(event, "settings")) estimate();
        });
        root.addEventListener("change", (event) => {
            if (inside(event, "settings")) estimate();
        });
        root.addEventListener("focusout", (event) => {
            const texts = inside(event, "keyframes_keys") || inside(event, "sampling_key_prompts");
            /* Once the focus is elsewhere. */
            if (texts) setTimeout(take_texts, 0);
        });
        root.addEventListener("click", pressed_button, true);
        new ResizeObserver(later(60, layout)).observe(find("timeline"));
        draw_timeline();
        draw_progress();
        look_at_uploads();
        tell_all("start", root);
        tick();
        return true;
    };
    const begin = () => {
        if (typeof onUiLoaded === "function") onUiLoaded(start);
        else {
            const watch = new MutationObserver(() => { if (start()) watch.disconnect(); });
            watch.observe(document.documentElement, { childList: true, subtree: true });
            start();
        }
    };
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
    else begin();

    return {
        loading, opening, restored, detecting, plan, question, answered, with_job, submitted, cancel,
        resume, sent,
        state: () => ({ line, work }),
        core: {
            active, add, address_of, after_of, app, ask, button, call, choose, chosen, clamp, compare,
            complain, edit, field, file_address, fill, find, find_layer, frames, go, goes_on, hear,
            later, line, load_pair, look_at_uploads, make, meter, note, poll, redrawn, see, seen,
            send, show_pair, size, stale, time, work, write, x_of, GOALS,
        },
    };
})();
