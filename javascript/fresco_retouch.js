/* Retouch: a keyframe is replaced by an image. The frame that is looked at shows it at once; the
   frames between follow as drafts and then in full. */
"use strict";

(() => {
    const {
        after_of, button, call, complain, fill, find_layer, hear, make, meter, poll, see,
        show_pair, size, work,
    } = fresco.core;
    const LARGEST_IMAGE = 16e6; /* bytes of an image for a keyframe */
    const KINDS = ["image/png", "image/jpeg"];

    const choose_image = (keyframe) => {
        const chooser = make("input", { type: "file", accept: KINDS.join() });
        chooser.addEventListener("change", () => replace_key(keyframe, chooser.files[0]));
        chooser.click();
    };
    /* Replace a keyframe of the selected job by a file. */
    const replace_key = async (keyframe, file) => {
        if (!file || work.acting.has("retouch")) return;
        if (!KINDS.includes(file.type)) {
            complain(`${file.name} is not a PNG or JPEG; save it as one of these.`);
            return;
        }
        if (file.size > LARGEST_IMAGE) {
            complain(`${file.name} is larger than ${size(LARGEST_IMAGE)}; save it as JPEG.`);
            return;
        }
        const { chosen: job, frame } = work;
        work.acting.add("retouch");
        try {
            const seen = await see(await call(
                `jobs/${job}/keyframes/${keyframe}?look=${frame}`
                + `&layer=${find_layer()}`,
                { method: "POST", body: file, headers: { "Content-Type": file.type } },
            ));
            const { pair } = work;
            const shown = job === work.chosen && frame === work.frame && pair && pair.frame === frame;
            if (seen && shown) {
                show_pair({ ...pair, ...after_of(seen) });
            }
            complain("");
        } catch (error) {
            complain(error.message);
        }
        work.acting.delete("retouch");
        poll();
    };
    /* The keyframes that a frame is made from. */
    const keys_around = (frame) => {
        const keys = Object.keys(work.detail.keys).map(Number).sort((a, b) => a - b);
        if (keys.includes(frame)) return [frame];
        return [keys.filter((key) => key < frame).pop(), keys.find((key) => key > frame)]
            .filter((key) => key !== undefined);
    };
    const dropped = (event) => {
        const file = event.dataTransfer && event.dataTransfer.files[0];
        if (!file) return;
        event.preventDefault();
        if (work.key !== null) replace_key(work.key, file);
        else complain("Select a keyframe first; the image replaces it.");
    };

    hear("compare_made", (box) => {
        box.addEventListener("drop", dropped);
        box.addEventListener("dragover", (event) => event.preventDefault());
        box.querySelector(".fresco_again").before(
            make("div", { class: "fresco_retouched", role: "status" }),
            make("div", { class: "fresco_compare_row fresco_retouch" }));
    });
    hear("compare_drawn", (box) => {
        const row = box.querySelector(".fresco_retouch"), around = keys_around(work.frame);
        if (row.dataset.keys !== around.join()) {
            row.dataset.keys = around.join();
            fill(row, around.map((key) => button(
                key === work.frame ? "Replace this keyframe" : `Replace keyframe ${key}`,
                () => choose_image(key), {
                    "data-key": key,
                    title: "By an image file: painted over, inpainted, or made elsewhere",
                })));
        }
        fill(box.querySelector(".fresco_retouched"), work.detail.retouched.map((part) => {
            const count = part.last - part.first - 1;
            const text = `Frames ${part.first + 1} to ${part.last - 1}: ` + (part.full
                ? `${part.full} of ${count} in full` : `${part.drafts} of ${count} as drafts`);
            return make("div", { class: "fresco_part" }, make("span", {}, text),
                meter(100 * (part.full || part.drafts) / count, text));
        }));
    });

    fresco.retouch = { replace_key, keys_around };
})();
