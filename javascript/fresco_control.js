/* ControlNet units: as many as the program has, each shown when it is asked for. They go to the
   program as JSON in one text. */
"use strict";

fresco.control = (() => {
    const { app, ask, button, fill, find, hear, line, make, note, write } = fresco.core;
    const FRESH = {
        enabled: true, model: "", module: "auto", weight: 0.7, start: 0, end: 1,
        threshold_a: -1, threshold_b: -1, resolution: 0, control_mode: "balanced",
        resize_mode: "crop", hints: "",
    };
    const LABELS = {
        balanced: "Balanced", prompt: "My prompt is more important",
        control: "ControlNet is more important", crop: "Crop and resize", stretch: "Just resize",
        fill: "Resize and fill",
    };
    const PAUSE = 500; /* ms between looks at a hint that is made */
    const board = { units: [], offer: null, said: "", text: null, seen: new Map() };
    /* By unit: { frame, src, said, busy } of its hint. */

    const place = () => find("control_board");
    const publish = () => {
        /* An empty list says that there are none, an empty text nothing. */
        board.text = JSON.stringify(board.units);
        write("control_units", board.text);
    };
    const change = (unit, values) => {
        Object.assign(unit, values);
        publish();
    };
    const redraw = (unit, values) => {
        change(unit, values);
        draw();
    };
    /* The program has put other units there: those of a job or a result. */
    const show = (text) => {
        if (text === board.text || (!text && !board.units.length)) return;
        try {
            board.units = (text ? JSON.parse(text) : []).map((unit) => ({ ...FRESH, ...unit }));
        } catch (error) { return; }
        board.text = text;
        board.seen = new Map();
        if (board.units.length && !board.offer) learn();
        else draw();
    };
    const learn = async () => {
        try {
            board.offer = await ask("control", {});
            board.said = "";
        } catch (error) {
            board.said = error.message;
        }
        draw();
    };
    const add = async () => {
        await learn();
        if (!board.offer) return;
        if (board.units.length < board.offer.units) {
            board.units.push({ ...FRESH });
            publish();
        }
        draw();
        const last = place().querySelector(".fresco_control_unit:last-of-type select");
        if (last) last.focus();
    };
    const remove = (unit) => {
        board.units = board.units.filter((other) => other !== unit);
        board.seen.delete(unit);
        publish();
        draw();
    };

    const chosen = (unit) => board.offer.chosen[unit.model] || "";
    const module_of = (unit) => (unit.module === "auto"
        ? chosen(unit) || board.offer.none : unit.module);
    const is_plain = (unit) => module_of(unit).toLowerCase() === "none";

    const hint = async (unit) => {
        if (!line.clip) {
            board.seen.set(unit, { said: "Open a video first." });
            draw();
            return;
        }
        const frame = line.cursor;
        board.seen.set(unit, { frame, busy: true, said: "" });
        draw();
        const seen = { frame, said: "", src: "" };
        try {
            const { first, last } = line.clip;
            const resolution = Number(app().querySelector(
                "#fresco_sampling_resolution input[type=number]").value) || 512;
            const id = await ask("hint", { unit, frame, first, last, resolution });
            while (!seen.src) {
                await new Promise((go_on) => setTimeout(go_on, PAUSE));
                seen.src = await ask("hint_made", { id });
            }
        } catch (error) {
            seen.said = error.message;
        }
        if (board.units.includes(unit)) board.seen.set(unit, seen);
        draw();
    };

    /* Fields of a unit, named for people who do not see where they are. */
    const named = (number, label, field) => {
        field.setAttribute("aria-label", `ControlNet ${number} ${label}`);
        return make("label", {}, make("span", {}, label), field);
    };
    const select = (number, label, choices, value, act, id) => named(number, label, make(
        "select", { id, onchange: (event) => act(event.target.value) },
        choices.map(([key, text]) => make("option", {
            value: key, selected: key === value,
        }, text))));
    const number_of = (number, label, value, [low, high, step], act, more) =>
        named(number, label, make("input", {
            type: "number", min: low, max: high, step, value, ...more,
            onchange: (event) => act(event.target.value === "" ? null : Number(event.target.value)),
        }));
    const share = (number, unit, name, label, title) =>
        number_of(number, label, unit[name], [0, name === "weight" ? 2 : 1, 0.05], (value) =>
            change(unit, { [name]: value === null ? FRESH[name] : value }), { title });
    const threshold = (number, unit, name) => {
        const slider = (board.offer.sliders[module_of(unit)] || {})[name];
        if (!slider) return null;
        return number_of(number, slider.label, unit[name] < 0 ? "" : unit[name],
            [slider.low, slider.high, "any"], (value) =>
                change(unit, { [name]: value === null ? -1 : value }),
            { placeholder: slider.usual, title: `${slider.low} to ${slider.high}` });
    };
    const words = (names) => names.map((name) => [name, LABELS[name] || name]);

    const draw_hint = (number, unit) => {
        const seen = board.seen.get(unit);
        if (!seen) return null;
        if (seen.busy) return note(`The hint of frame ${seen.frame} is made.`);
        if (seen.said) return note(seen.said, "bad");
        return make("figure", {},
            make("img", {
                src: seen.src, id: `fresco_control_${number}_hint`,
                alt: `Hint of frame ${seen.frame} for ControlNet ${number}`,
            }),
            make("figcaption", {}, `Hint of frame ${seen.frame}`));
    };
    const draw_unit = (unit, place_in_list) => {
        const number = place_in_list + 1, offer = board.offer;
        const auto = unit.model ? `auto: ${chosen(unit) || offer.none}` : "auto: by the model";
        const modules = [["auto", auto], ...offer.modules.map((name) => [name, name])];
        const known = offer.models.includes(unit.model) || !unit.model;
        const models = [["", "Choose a model"], ...(known ? [] : [[unit.model, unit.model]]),
                        ...offer.models.map((name) => [name, name])];
        const told = unit.model && is_plain(unit) && !unit.hints && offer.told[unit.model];
        return make("fieldset", { class: "fresco_control_unit" },
            make("legend", {},
                make("label", {}, make("input", {
                    type: "checkbox", checked: unit.enabled, "aria-label": `ControlNet ${number} on`,
                    onchange: (event) => change(unit, { enabled: event.target.checked }),
                }), ` ControlNet ${number}`),
                button("Remove", () => remove(unit), {
                    "aria-label": `Remove ControlNet ${number}`,
                })),
            make("div", { class: "fresco_control_fields" },
                select(number, "Model", models, unit.model, (model) =>
                    redraw(unit, { model, threshold_a: -1, threshold_b: -1 }),
                `fresco_control_${number}_model`),
                unit.hints ? null : select(number, "Preprocessor", modules, unit.module, (module) =>
                    redraw(unit, { module, threshold_a: -1, threshold_b: -1 }),
                `fresco_control_${number}_module`),
                share(number, unit, "weight", "Weight", "Strength"),
                share(number, unit, "start", "Start", "Share of the steps before it"),
                share(number, unit, "end", "End", "Share of the steps after which it is off"),
                unit.hints ? null : [threshold(number, unit, "threshold_a"),
                                     threshold(number, unit, "threshold_b")]
                    .filter((field) => field)),
            told ? note(told, "bad") : null,
            make("details", { open: unit.open, ontoggle: (event) => {
                /* Not part of what is sent. */
                Object.defineProperty(unit, "open", {
                    value: event.target.open, enumerable: false, configurable: true,
                });
            } }, make("summary", {}, "Modes, resolution, hints made elsewhere"),
            make("div", { class: "fresco_control_fields" },
                select(number, "Control mode", words(offer.control_modes), unit.control_mode,
                    (control_mode) => change(unit, { control_mode })),
                select(number, "Resize mode", words(offer.resize_modes), unit.resize_mode,
                    (resize_mode) => change(unit, { resize_mode })),
                number_of(number, "Preprocessor resolution", unit.resolution || "", [64, 4096, 1],
                    (value) => change(unit, { resolution: value || 0 }),
                    { placeholder: "as the frames" }),
                named(number, "Folder or video of hints", make("input", {
                    type: "text", value: unit.hints, placeholder: "instead of a preprocessor",
                    onchange: (event) => redraw(unit, {
                        hints: event.target.value.trim(), module: "auto",
                    }),
                })))),
            make("div", {}, button("Show hint", () => hint(unit), {
                id: `fresco_control_${number}_show`, disabled: !unit.model
                    || Boolean((board.seen.get(unit) || {}).busy),
                title: "What the ControlNet sees of the frame that the timeline stands at",
            })),
            draw_hint(number, unit));
    };
    const draw = () => {
        const root = place();
        if (!root) return;
        const full = board.offer && board.units.length >= board.offer.units;
        fill(root,
            board.units.length ? null : make("p", { class: "fresco_hint" },
                "None is used. Every keyframe gives its own hint."),
            board.offer ? board.units.map(draw_unit) : null,
            board.said ? note(board.said, "bad") : null,
            board.offer && !board.offer.units ? null
                : button(board.units.length ? "Add another" : "Add a ControlNet", add, {
                    id: "fresco_control_add", disabled: Boolean(full),
                    title: full ? "The settings of ControlNet say how many units there are." : "",
                }));
    };

    hear("start", (root) => {
        draw();
        root.addEventListener("click", (event) => {
            const refresh = event.target.closest && event.target.closest("#fresco_refresh");
            if (refresh && board.offer) learn();
        });
    });
    return { show };
})();
