/* Ranges of frames with a prompt, a strength and a seed of their own, as a table above their text. */
"use strict";

(() => {
    const { active, button, field, fill, find, hear, line, make, redrawn, write } = fresco.core;
    const TEXT = "sampling_ranges", NAMES = ["strength", "seed", "prompt", "negative"];
    let shown = null; /* the text that the table is of */

    const read = (text) => {
        const frames = /^\s*(\d+)(?:\s*(-)\s*(\d*))?\s*[:,;]?(?=\s|$)/.exec(text);
        if (!frames) return null;
        const range = { first: frames[1], last: frames[2] ? frames[3] : frames[1] };
        const rest = text.slice(frames[0].length);
        const parts = rest.split(/(?:^|\s)(prompt|negative|strength|seed)\s*=/);
        if (parts[0].trim()) return null;
        for (let i = 1; i < parts.length; i += 2) range[parts[i]] = parts[i + 1].trim();
        return range;
    };
    const write_one = (range) => [
        range.last === range.first ? range.first : `${range.first}-${range.last}`,
        ...NAMES.filter((name) => range[name]).map((name) => `${name}=${range[name]}`),
    ].join(" ");
    const rows = () => {
        const lines = (field(TEXT) ? field(TEXT).value : "").split("\n").filter((one) => one.trim());
        const found = lines.map(read);
        return found.includes(null) ? null : found;
    };
    const keep = (ranges) => {
        write(TEXT, ranges.map(write_one).join("\n"));
        draw();
    };
    const cell = (ranges, number, name, label) => {
        const input = make("input", {
            type: "text", "aria-label": `${name} of range ${number + 1}`, placeholder: label,
            "data-focus": `${name}${number}`,
            onchange: (event) => {
                ranges[number][name] = event.target.value.trim();
                keep(ranges);
            },
        });
        input.value = ranges[number][name] || "";
        return input;
    };
    const row = (ranges, number) => make("div", { class: "fresco_range", "data-range": number },
        make("span", { class: "fresco_range_numbers" },
            make("label", {}, "Frames", cell(ranges, number, "first", "first")),
            make("label", {}, "to", cell(ranges, number, "last", "end")),
            make("label", {}, "strength", cell(ranges, number, "strength", "as all")),
            make("label", {}, "seed", cell(ranges, number, "seed", "as all")),
            button("\u00d7", () => keep(ranges.filter((_, other) => other !== number)), {
                "aria-label": `Remove range ${number + 1}`, "data-focus": `drop${number}`,
            })),
        cell(ranges, number, "prompt", "Prompt instead of the one above"),
        cell(ranges, number, "negative", "Negative prompt instead of the one above"));
    /* A new range is the shot that is looked at, or each shot; what has a range is left alone. */
    const free = (ranges, [first, last]) => !ranges.some((range) =>
        Number(range.first) <= last && first <= (range.last === "" ? Infinity : Number(range.last)));
    const seed_of = () => (field("sampling_seed") || {}).value;
    const fresh = ([first, last]) => ({
        first: String(first), last: String(last), seed: seed_of() === "-1" ? "0" : seed_of(),
    });
    const add = (ranges, shots) => keep([
        ...ranges, ...shots.filter((shot) => free(ranges, shot)).map(fresh),
    ].sort((a, b) => a.first - b.first));

    const draw = () => {
        const place = find("ranges");
        if (!place || !field(TEXT)) return;
        const ranges = rows(), shots = line.clip ? line.clip.shots : [];
        const mark = JSON.stringify([ranges, shots]);
        if (mark === shown) return;
        shown = mark;
        if (!ranges) {
            fill(place, make("p", { class: "fresco_hint" },
                "The text below is not understood as ranges; a run says what is wrong."));
            return;
        }
        const here = shots.find(([first, last]) => first <= line.cursor && line.cursor <= last);
        redrawn(place, ".fresco_range", () => fill(place,
            ranges.map((_, number) => row(ranges, number)),
            make("div", { class: "fresco_group" },
                button("Add a range", () => add(ranges, [here]), {
                    disabled: !here || !free(ranges, here), title: "The shot that is looked at",
                    "data-focus": "add",
                }),
                button("One for each shot", () => add(ranges, shots), {
                    disabled: shots.length < 2, "data-focus": "each",
                }))));
    };
    hear("start", (root) => {
        root.addEventListener("input", (event) => {
            if (event.target === field(TEXT)) draw();
        });
        draw();
    });
    hear("timeline_drawn", () => { if (!find("ranges").contains(active())) draw(); });
})();
