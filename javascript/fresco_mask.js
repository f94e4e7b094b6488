/* Masks drawn on frames of the source. White is translated. The program tracks a drawing to the
   other frames along the motion; a drawing on another frame corrects it. */
"use strict";

(() => {
    const {
        app, ask, button, call, fill, find, hear, line, make, note, see, work, write,
    } = fresco.core;
    const WIDEST = 1024; /* px of a drawing: finer than the motion that it is tracked by */
    const MOST_UNDONE = 30;
    const TINT = "rgba(78, 205, 120, 0.55)";
    const board = {
        frame: null, picture: null, size: [0, 0], drawings: new Map(), undo: [], brush: 40,
        erase: false, last: null, said: "", known: "",
    };

    const place = () => find("mask_board");
    const part = (name) => place().querySelector(`[data-part="${name}"]`);
    const blank = () => {
        const canvas = make("canvas", { width: board.size[0], height: board.size[1] });
        return canvas;
    };
    const drawing = () => board.drawings.get(board.frame);

    /* Another video has been opened: what was drawn belongs to the one before. */
    const forget = () => {
        Object.assign(board, {
            frame: null, picture: null, drawings: new Map(), undo: [], said: "",
        });
        publish();
        draw();
    };
    const open = async (frame) => {
        const video = line.loading;
        try {
            const { before } = await ask("frame", { frame });
            const picture = new Image();
            picture.src = before;
            await picture.decode();
            if (video !== line.loading) return;
            const scale = Math.min(1, WIDEST / picture.naturalWidth);
            const size = [picture.naturalWidth, picture.naturalHeight]
                .map((side) => Math.max(1, Math.round(side * scale)));
            Object.assign(board, { frame, picture, size, undo: [], last: null, said: "" });
        } catch (error) {
            board.said = error.message;
        }
        draw();
    };

    /* Strokes: white where the frame is translated, transparent elsewhere. */
    const at = (event) => {
        const box = part("paint").getBoundingClientRect();
        return [(event.clientX - box.left) / box.width * board.size[0],
                (event.clientY - box.top) / box.height * board.size[1]];
    };
    const stroke = (from, to) => {
        const pen = drawing().getContext("2d");
        pen.globalCompositeOperation = board.erase ? "destination-out" : "source-over";
        Object.assign(pen, { lineWidth: board.brush, lineCap: "round", strokeStyle: "#fff" });
        pen.beginPath();
        pen.moveTo(...from);
        pen.lineTo(to[0] + 0.01, to[1]); /* a line without length is not drawn */
        pen.stroke();
        show();
    };
    const remember = () => {
        const before = drawing();
        const copy = before && blank();
        if (copy) copy.getContext("2d").drawImage(before, 0, 0);
        board.undo = [...board.undo, copy].slice(-MOST_UNDONE);
    };
    const pressed = (event) => {
        if (event.button) return;
        event.preventDefault();
        remember();
        if (!drawing()) board.drawings.set(board.frame, blank());
        board.last = at(event);
        event.target.setPointerCapture(event.pointerId);
        stroke(board.last, board.last);
    };
    const moved = (event) => {
        if (!board.last) return;
        const here = at(event);
        stroke(board.last, here);
        board.last = here;
    };
    const lifted = () => {
        if (!board.last) return;
        board.last = null;
        publish();
        draw();
    };
    const undo = () => {
        if (!board.undo.length) return;
        const before = board.undo.pop();
        if (before) board.drawings.set(board.frame, before);
        else board.drawings.delete(board.frame);
        publish();
        draw();
    };
    const change = (paint) => {
        remember();
        const canvas = drawing() || blank();
        paint(canvas.getContext("2d"), canvas);
        board.drawings.set(board.frame, canvas);
        publish();
        draw();
    };
    const clear = () => {
        remember();
        board.drawings.delete(board.frame);
        publish();
        draw();
    };
    const turn_round = () => change((pen, canvas) => {
        pen.globalCompositeOperation = "source-out";
        pen.fillStyle = "#fff";
        pen.fillRect(0, 0, canvas.width, canvas.height);
    });

    /* What the selected job has of the video in the tab: its tracked masks, and its drawings. */
    const job_mask = () => (work.detail && work.detail.open && work.detail.mask) || null;
    const read_image = async (address) => {
        const image = new Image();
        image.src = address;
        await image.decode();
        return image;
    };
    /* Grey levels as strokes, on a canvas of that size. */
    const to_strokes = (image, [width, height], invert) => {
        const canvas = make("canvas", { width, height }), pen = canvas.getContext("2d");
        pen.drawImage(image, 0, 0, width, height);
        const pixels = pen.getImageData(0, 0, width, height);
        for (let i = 0; i < pixels.data.length; i += 4) {
            const white = (pixels.data[i] > 127) !== invert;
            pixels.data.fill(255, i, i + 3);
            pixels.data[i + 3] = white ? 255 : 0;
        }
        pen.putImageData(pixels, 0, 0);
        return canvas;
    };
    const trying = (act) => async () => {
        const video = line.loading;
        board.said = "";
        try {
            const done = await act();
            if (video !== line.loading) return;
            done();
            publish();
        } catch (error) {
            board.said = error.message;
        }
        draw();
    };
    /* Begin with the mask that the job has on this frame, so that only what is wrong is painted. */
    const take_tracked = trying(async () => {
        const { frame, size } = board, { invert } = job_mask();
        const seen = await see(await call(`jobs/${work.chosen}/frames/${frame}?layer=mask`));
        if (!seen) throw new Error(`The selected job has no mask of frame ${frame} yet.`);
        const strokes = to_strokes(await read_image(seen.src), size, invert);
        URL.revokeObjectURL(seen.src);
        return () => {
            if (frame === board.frame) remember();
            board.drawings.set(frame, strokes);
        };
    });
    const take_drawings = trying(async () => {
        const found = await ask("drawings", { job: work.chosen });
        const taken = await Promise.all(Object.entries(found).map(async ([frame, address]) => {
            const image = await read_image(address);
            const size = board.picture ? board.size : [image.naturalWidth, image.naturalHeight];
            return [Number(frame), to_strokes(image, size, false)];
        }));
        return () => {
            board.undo = [];
            for (const [frame, strokes] of taken) board.drawings.set(frame, strokes);
        };
    });

    /* To the program: white on black, by frame number. */
    const publish = () => {
        const sent = {};
        for (const [frame, canvas] of board.drawings) {
            const flat = make("canvas", { width: canvas.width, height: canvas.height });
            const pen = flat.getContext("2d");
            pen.fillRect(0, 0, flat.width, flat.height);
            pen.drawImage(canvas, 0, 0);
            sent[frame] = flat.toDataURL("image/png");
        }
        write("mask_drawings", board.drawings.size ? JSON.stringify(sent) : "");
    };

    const show = () => {
        const canvas = part("paint");
        const pen = canvas.getContext("2d");
        pen.globalCompositeOperation = "copy";
        pen.drawImage(board.picture, 0, 0, canvas.width, canvas.height);
        if (!drawing()) return;
        const tint = blank();
        const tinted = tint.getContext("2d");
        tinted.drawImage(drawing(), 0, 0);
        tinted.globalCompositeOperation = "source-in";
        tinted.fillStyle = TINT;
        tinted.fillRect(0, 0, tint.width, tint.height);
        pen.globalCompositeOperation = "source-over";
        pen.drawImage(tint, 0, 0);
    };
    const tools = () => [
        make("label", {}, "Brush ", make("input", {
            type: "range", min: 4, max: 200, value: board.brush, "aria-label": "Size of the brush",
            oninput: (event) => { board.brush = Number(event.target.value); },
        })),
        make("label", {}, make("input", {
            type: "checkbox", checked: board.erase, "aria-label": "Erase",
            onchange: (event) => { board.erase = event.target.checked; },
        }), " Erase"),
        button("Undo", undo, { disabled: !board.undo.length }),
        button("Clear", clear, { disabled: !drawing() }),
        button("Invert", turn_round),
        job_mask() ? button("Start from the job's mask", take_tracked, {
            id: "fresco_mask_tracked",
            title: "The mask that the selected job has on this frame, to be corrected",
        }) : null,
    ];
    const list = () => {
        const frames = [...board.drawings.keys()].sort((a, b) => a - b);
        if (!frames.length) return null;
        return make("p", { class: "fresco_hint" }, "Drawn on: ", frames.map((frame) =>
            button(`frame ${frame}`, () => open(frame), { disabled: frame === board.frame })));
    };
    const draw = () => {
        const root = place();
        if (!root) return;
        fill(root,
            make("p", { class: "fresco_hint" },
                "Select a frame on the timeline and paint the part that is translated. It is tracked "
                + "to all other frames. If it is wrong on one of them, draw that frame too. Choose "
                + "drawing as the mask above."),
            button("Draw on the shown frame", () => {
                if (line.clip) open(line.cursor);
                else {
                    board.said = "Open a video first.";
                    draw();
                }
            }, { id: "fresco_mask_open" }),
            job_mask() && job_mask().drawn && !board.drawings.size
                ? button("Take the drawings of the selected job", take_drawings, {
                    id: "fresco_mask_again",
                }) : null,
            list(),
            board.said ? note(board.said, "bad") : null,
            board.picture ? [
                make("div", { class: "fresco_mask_tools" }, tools()),
                make("canvas", {
                    "data-part": "paint", id: "fresco_mask_paint", class: "fresco_mask_paint",
                    width: board.size[0], height: board.size[1], role: "img",
                    style: `width: min(100%, calc(70vh * ${board.size[0] / board.size[1]}))`,
                    "aria-label": `Mask of frame ${board.frame}`, onpointerdown: pressed,
                    onpointermove: moved, onpointerup: lifted, onpointercancel: lifted,
                }),
                make("p", { class: "fresco_hint" }, `Frame ${board.frame}`),
            ] : null);
        if (board.picture) show();
    };

    hear("loaded", forget);
    hear("detail", () => {
        const known = JSON.stringify([work.chosen, job_mask()]);
        if (known === board.known || board.last) return;
        board.known = known;
        draw();
    });
    const watch = new MutationObserver(() => {
        if (!place()) return;
        watch.disconnect();
        draw();
    });
    watch.observe(app() === document ? document.documentElement : app(), {
        childList: true, subtree: true,
    });
})();
