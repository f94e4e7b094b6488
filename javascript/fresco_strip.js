/* Three curves that judge the propagation, under the timeline, and every layer of a frame. */
"use strict";

(() => {
    const {
        add, call, clamp, fill, find, find_layer, frames, go, hear, line, load_pair, make, work, x_of,
    } = fresco.core;
    const CURVES = [
        ["error", "propagation error", "grey levels", (value) => value.toFixed(1)],
        ["occlusion", "occlusion", "of the frame", (value) => `${(100 * value).toFixed(1)} %`],
        ["jump", "border jump", "levels of Lab", (value) => value.toFixed(1)],
    ];
    const WORST = 0.85; /* of the largest value: drawn in the colour of what asks for a look */
    const LAYERS = [
        ["result", "result"], ["source", "source"], ["keyframe", "keyframe"],
        ["flow", "motion (by DIS)"], ["occlusion", "occlusion (by DIS)"],
        ["forward", "from the keyframe before (draft)"], ["backward", "from the keyframe after (draft)"],
        ["side", "chosen side"],
    ];
    const OF_KEYFRAMES = /^(keyframe|hint)/; /* other frames have none */
    /* Those of the selected job: with its mask, and the hint of each of its ControlNet units. */
    const list_layers = () => {
        const { hints, mask } = work.detail, several = hints.length > 1;
        return [...LAYERS, ...(mask ? [["mask", "mask"]] : []), ...hints.map((model, place) => [
            `hint&unit=${place + 1}`, `hint${several ? ` of unit ${place + 1}` : ""} (${model})`,
        ])];
    };
    const judged = { job: null, output: 0, found: null };

    /* What the run of the selected job noted; asked for once a result. */
    const look = async () => {
        const { chosen: job, detail } = work, output = detail ? detail.output : 0;
        if (judged.job === job && judged.output === output) return;
        Object.assign(judged, { job, output, found: null });
        draw();
        if (!job || !output) return;
        try {
            const answer = await call(`jobs/${job}/judged`);
            const found = answer && await answer.json();
            if (job !== judged.job || !found) return;
            judged.found = new Map(found.frames.map((frame, i) => [
                frame, Object.fromEntries(CURVES.map(([name]) => [name, found[name][i]])),
            ]));
        } catch (error) {
            judged.found = null; /* the timeline goes on without */
        }
        draw();
    };
    const is_of_clip = () => Boolean(judged.found && judged.found.size && line.clip
        && work.detail && work.detail.open);

    /* One row a curve, as wide as the timeline, scrolled with it. */
    const draw = () => {
        const track = find("track");
        if (!track) return;
        let strip = track.parentElement.querySelector(".fresco_judged");
        if (!is_of_clip()) {
            if (strip) strip.remove();
            return;
        }
        if (!strip) {
            strip = make("div", {
                class: "fresco_judged", role: "img",
                "aria-label": "Propagation error, occlusion and border jump of every frame",
                onpointermove: hover, onpointerleave: leave, onclick: pressed,
            });
            track.after(strip);
        }
        strip.style.width = track.style.width;
        strip.replaceChildren(...CURVES.map(([name, label]) => {
            const bars = list_bars(name, track.clientWidth).map(({ x, width, share }) =>
                make("rect", {
                    x, width, y: 100 - 100 * share, height: 100 * share,
                    class: share > WORST ? "fresco_bad_frame" : "",
                }));
            const space = make("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none" },
                bars);
            return make("div", { class: "fresco_judged_row", "data-curve": name },
                make("span", {}, label), space);
        }), make("div", { class: "fresco_judged_said", hidden: true }));
    };
    /* The bars of a curve: one a frame, or, of a long video, the largest value a pixel. */
    const list_bars = (name, pixels) => {
        const count = Math.max(1, Math.min(frames(), pixels)), bars = new Map();
        let most = 1e-9;
        for (const [frame, each] of judged.found) {
            const place = Math.floor((frame - line.clip.first) / frames() * count);
            most = Math.max(most, each[name]);
            bars.set(place, Math.max(bars.get(place) || 0, each[name]));
        }
        return [...bars].map(([place, value]) =>
            ({ x: 100 * place / count, width: 100 / count, share: value / most }));
    };
    const frame_at = (event) => {
        const box = event.currentTarget.getBoundingClientRect();
        return clamp(line.clip.first
            + Math.floor((event.clientX - box.left) / box.width * frames()));
    };
    const hover = (event) => {
        const frame = frame_at(event), found = judged.found.get(frame);
        const said = event.currentTarget.querySelector(".fresco_judged_said");
        said.hidden = false;
        said.textContent = found ? `Frame ${frame}: ` + CURVES.map(
            ([name, label, unit, text]) => `${label} ${text(found[name])} ${unit}`).join(", ")
            : `Frame ${frame}: a keyframe, or not judged`;
        const most = event.currentTarget.clientWidth - said.offsetWidth;
        said.style.left = `${Math.max(0, Math.min(most, x_of(frame) / 100 * most))}px`;
    };
    const leave = (event) => {
        event.currentTarget.querySelector(".fresco_judged_said").hidden = true;
    };
    const pressed = (event) => {
        const frame = frame_at(event);
        go(frame);
        if (!line.keys.includes(frame)) add(frame);
    };

    hear("timeline_drawn", draw);
    hear("detail", look);

    /* Layers: what is shown on the right side of the before and after. */
    hear("compare_made", (box) => {
        const choice = make("select", {
            class: "fresco_layer", "aria-label": "What is shown of the frame",
            onchange: (event) => {
                work.layer = event.target.value;
                load_pair();
            },
        });
        box.querySelector(".fresco_compare_row").append(make("label", {}, "after shows ", choice));
    });
    hear("compare_drawn", (box) => {
        const choice = box.querySelector(".fresco_layer");
        const layers = list_layers(), names = JSON.stringify(layers);
        if (choice.dataset.names !== names) {
            choice.dataset.names = names;
            fill(choice, layers.map(([value, text]) => make("option", { value }, text)));
        }
        /* One of another job, which had a further unit. */
        if (!layers.some(([value]) => value === find_layer())) {
            work.layer = "";
            load_pair();
        }
        const wanted = find_layer();
        if (choice.value !== wanted) choice.value = wanted;
        const { pair } = work;
        if (!pair || pair.frame !== work.frame) return;
        if (wanted !== "result" && wanted !== "keyframe") {
            box.querySelector(".fresco_tag_after").textContent =
                layers.find(([value]) => value === wanted)[1];
        }
        if (!pair.after && work.key === null && OF_KEYFRAMES.test(wanted)) {
            box.querySelector(".fresco_frame_number").textContent =
                `Frame ${work.frame} is not a keyframe`;
        }
    });
})();
