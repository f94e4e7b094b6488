/* A player: source and result in step, frame by frame; handles that trim the range; zoom. */
"use strict";

(() => {
    const {
        button, clamp, compare, file_address, find, frames, hear, line, make, stale,
        work, write, x_of,
    } = fresco.core;
    const DRIFT = 0.75; /* frames that the source may be off before it is set right */

    /* ------------------------------------------------ source and result in step */
    const play = { box: null, result: null, source: null, said: null };

    const frame_now = () => {
        const { first, last, rate } = work.detail;
        return Math.min(last, first + Math.max(0, Math.floor(play.result.currentTime * rate + 1e-3)));
    };
    /* The source begins where its first frame that is used lies. */
    const follow = () => {
        const { result, source } = play, { rate, begins } = work.detail || {};
        if (!result || !rate) return;
        play.said.textContent = `Frame ${frame_now()}`;
        if (!source || source.readyState < 1) return;
        const wanted = begins + result.currentTime;
        const off = Math.abs(source.currentTime - wanted);
        if (off > (result.paused ? 0.2 : DRIFT) / rate) source.currentTime = wanted;
        source.playbackRate = result.playbackRate;
        if (source.paused !== result.paused) {
            if (result.paused) source.pause();
            else source.play().catch(() => {});
        }
    };
    const tick = () => {
        follow();
        const { result } = play;
        if (result && result.isConnected && !result.paused) requestAnimationFrame(tick);
    };
    const go_to = (frame) => {
        const { first, last, rate } = work.detail;
        const number = Math.min(last, Math.max(first, frame));
        play.result.pause();
        /* Into the middle of the frame, so that rounding hits it. */
        play.result.currentTime = (number - first + 0.5) / rate;
        compare(number, false);
    };
    const step = (by) => go_to(frame_now() + by);
    const toggle = () => {
        if (play.result.paused) play.result.play().catch(() => {});
        else play.result.pause();
    };
    const KEYS = {
        " ": toggle, ArrowLeft: () => step(-1), ArrowRight: () => step(1),
        Home: () => go_to(work.detail.first), End: () => go_to(work.detail.last),
    };
    const pressed = (event) => {
        if (event.target !== play.box || event.ctrlKey || event.metaKey || event.altKey) return;
        const act = event.shiftKey && event.key.startsWith("Arrow")
            ? () => step(event.key === "ArrowLeft" ? -10 : 10) : KEYS[event.key];
        if (!act) return;
        act();
        event.preventDefault();
    };
    hear("result_drawn", (place, result) => {
        Object.assign(play, { box: null, result: null, source: null });
        if (!(result instanceof HTMLVideoElement) || !work.detail.rate) return;
        const source = work.detail.film ? make("video", {
            playsinline: true, preload: "auto", muted: true, src: file_address("source", "0"),
            "aria-label": "Source", onloadeddata: follow, onclick: toggle,
            onerror: () => { source.remove(); play.source = null; },
        }) : null;
        if (source) source.muted = true; /* the sound is that of the result */
        const said = make("span", { class: "fresco_frame_number", "aria-live": "polite" });
        const box = make("div", {
            class: "fresco_player", tabindex: 0, onkeydown: pressed,
            "aria-label": "Player. Space: play or pause. Arrows: a frame, with Shift ten",
        }, make("div", { class: "fresco_screens" }, result, source),
            make("div", { class: "fresco_compare_row" },
                button("|\u25c0", () => go_to(work.detail.first), { "aria-label": "First frame" }),
                button("\u25c0", () => step(-1), { "aria-label": "Frame before" }),
                button("Play or pause", toggle),
                button("\u25b6", () => step(1), { "aria-label": "Next frame" }),
                said));
        for (const event of ["seeking", "pause", "loadeddata"]) result.addEventListener(event, follow);
        result.addEventListener("play", tick);
        Object.assign(play, { box, result, source, said });
        place.replaceChildren(box);
    });

    /* ------------------------------------------------ trim handles */
    const trim = (name, frame) => {
        write(`output_${name}_frame`, String(frame));
        stale();
    };
    const handle = (name) => {
        const track = find("track");
        const is_first = name === "first";
        const end = () => (is_first ? line.clip.first : line.clip.last);
        const fit = (frame) => (is_first ? Math.min(line.clip.last, Math.max(0, frame))
            : Math.max(line.clip.first, Math.min(line.last, frame)));
        let to = null;
        const place_at = (frame, element) => {
            element.style.left = `${x_of(frame) + (is_first ? -50 : 50) / frames()}%`;
        };
        const element = make("div", {
            class: `fresco_trim fresco_trim_${name}`, role: "slider", tabindex: 0,
            "aria-label": `${is_first ? "First" : "Last"} frame of the range`,
            "aria-valuenow": end(), "aria-valuemin": line.clip.first,
            "aria-valuemax": line.clip.last,
            title: "Drag to trim the range; double click for the whole video",
            onpointerdown: (event) => {
                event.stopPropagation();
                element.setPointerCapture(event.pointerId);
                to = end();
            },
            onpointermove: (event) => {
                event.stopPropagation();
                if (to === null) return;
                const box = track.getBoundingClientRect();
                to = clamp(line.clip.first
                    + Math.floor((event.clientX - box.left) / box.width * frames()));
                place_at(to, element);
            },
            onpointerup: (event) => {
                event.stopPropagation();
                if (to !== null && to !== end()) trim(name, to);
                to = null;
            },
            ondblclick: () => trim(name, is_first ? 0 : -1),
            onkeydown: (event) => {
                const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
                if (by) trim(name, fit(end() + by * (event.shiftKey ? 10 : 1)));
                else if (event.key === "Delete") trim(name, is_first ? 0 : -1);
                else return;
                event.preventDefault();
                event.stopPropagation();
            },
        });
        place_at(end(), element);
        return element;
    };
    hear("timeline_drawn", () => {
        const track = find("track");
        if (!track || !line.clip || track.querySelector(".fresco_trim:focus, .fresco_trim:active")) {
            return;
        }
        track.querySelectorAll(".fresco_trim").forEach((element) => element.remove());
        track.append(handle("first"), handle("last"));
    });

    /* ------------------------------------------------ zoom in the before and after */
    const MOST = 16;
    const zoom = { factor: 1, x: 0, y: 0, from: null };

    const apply = (box) => {
        const shown = box.querySelector(".fresco_curtain");
        const least = 1 - zoom.factor;
        zoom.x = Math.min(0, Math.max(least, zoom.x));
        zoom.y = Math.min(0, Math.max(least, zoom.y));
        shown.style.setProperty("--fresco_zoom", zoom.factor === 1 ? "none"
            : `translate(${100 * zoom.x}%, ${100 * zoom.y}%) scale(${zoom.factor})`);
        /* The border stays where it is on the screen. */
        shown.style.setProperty("--fresco_clip",
            `${(work.split - 100 * zoom.x) / zoom.factor}%`);
        box.querySelector(".fresco_zoomed").textContent = `${zoom.factor.toFixed(1)}\u00d7`;
    };
    const scale = (box, factor, x, y) => {
        const next = Math.min(MOST, Math.max(1, factor));
        zoom.x = x - (x - zoom.x) * next / zoom.factor;
        zoom.y = y - (y - zoom.y) * next / zoom.factor;
        zoom.factor = next;
        apply(box);
    };
    hear("compare_made", (box) => {
        const shown = box.querySelector(".fresco_curtain");
        const at = (event) => {
            const sides = shown.getBoundingClientRect();
            return [(event.clientX - sides.left) / sides.width,
                (event.clientY - sides.top) / sides.height];
        };
        shown.addEventListener("wheel", (event) => {
            if (!event.ctrlKey && !event.altKey && zoom.factor === 1) return; /* the page scrolls */
            event.preventDefault();
            scale(box, zoom.factor * (event.deltaY < 0 ? 1.25 : 0.8), ...at(event));
        }, { passive: false });
        shown.addEventListener("dblclick", (event) =>
            scale(box, zoom.factor > 1 ? 1 : 3, ...at(event)));
        shown.addEventListener("pointerdown", (event) => {
            const [x, y] = at(event);
            const near = Math.abs(x - work.split / 100) * shown.clientWidth < 24;
            if (zoom.factor === 1 || near) return;
            event.stopImmediatePropagation();
            shown.setPointerCapture(event.pointerId);
            zoom.from = [x - zoom.x, y - zoom.y];
        }, true);
        shown.addEventListener("pointermove", (event) => {
            if (!zoom.from) return;
            event.stopImmediatePropagation();
            const [x, y] = at(event);
            Object.assign(zoom, { x: x - zoom.from[0], y: y - zoom.from[1] });
            apply(box);
        }, true);
        for (const name of ["pointerup", "pointercancel"]) {
            shown.addEventListener(name, () => { zoom.from = null; });
        }
        box.querySelector(".fresco_compare_row").append(make("span", { class: "fresco_group" },
            button("\u2212", () => scale(box, zoom.factor / 1.5, 0.5, 0.5), {
                "aria-label": "Zoom out of the frame",
            }),
            make("span", { class: "fresco_zoomed" }, "1.0\u00d7"),
            button("+", () => scale(box, zoom.factor * 1.5, 0.5, 0.5), {
                "aria-label": "Zoom into the frame",
                title: "Also by double click, or Ctrl and wheel; drag to move the view",
            })));
    });
    hear("curtain_moved", (box) => { if (box.querySelector(".fresco_zoomed")) apply(box); });
})();
