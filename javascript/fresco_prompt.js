/* Tools of the prompts and the seed: tokens, dice, reuse, and what img2img holds. */
"use strict";

fresco.img2img = (() => {
    const { app, ask, button, complain, field, hear, later, make, work, write } = fresco.core;

    /* Tokens of both prompts, below them. */
    const PROMPTS = ["sampling_prompt", "sampling_negative_prompt"];
    const read = () => PROMPTS.map((id) => (field(id) ? field(id).value : ""));
    let counted_texts = null; /* those that the numbers are of */
    const count = later(800, async () => {
        const texts = read();
        try {
            const found = await ask("tokens", { texts });
            counted_texts = texts.join("\n");
            PROMPTS.forEach((id, number) => show(id, found[number]));
        } catch (error) { /* the next letter asks again */ }
    });
    const show = (id, counted) => {
        const place = app().querySelector(`#fresco_${id}`);
        if (!place) return;
        let shown = place.querySelector(".fresco_tokens");
        if (!shown) {
            shown = make("span", { class: "fresco_tokens", title: "Tokens, and how many fit" });
            place.append(shown);
        }
        shown.textContent = counted ? `${counted[0]}/${counted[1]}` : "";
    };

    /* The seed: -1 draws one, the arrow takes that of the selected job. */
    const seed_buttons = () => {
        const place = app().querySelector("#fresco_sampling_seed");
        if (!place || place.querySelector(".fresco_seed_tools")) return;
        place.append(make("span", { class: "fresco_seed_tools" },
            button("Random", () => write("sampling_seed", "-1"), {
                title: "A random seed (-1)", "aria-label": "Random seed",
            }),
            button("Reuse", () => {
                if (work.detail) write("sampling_seed", String(work.detail.seed));
                else complain("No job is selected, so there is no seed to use again.", "note");
            }, { title: "The seed of the selected job", "aria-label": "Use the seed again" })));
    };

    /* What stands in img2img, by the elements of the WebUI's page. */
    const value_of = (id) => {
        const element = app().querySelector(`#${id} textarea, #${id} input[type=number], #${id} input`);
        return element ? element.value : "";
    };
    const img2img = (values) => {
        values[0] = JSON.stringify({
            prompt: value_of("img2img_prompt"), negative_prompt: value_of("img2img_neg_prompt"),
            steps: value_of("img2img_steps"), strength: value_of("img2img_denoising_strength"),
            guidance_scale: value_of("img2img_cfg_scale"), seed: value_of("img2img_seed"),
            sampler: value_of("img2img_sampling"), scheduler: value_of("img2img_scheduler"),
            model: value_of("setting_sd_model_checkpoint"),
        });
        return values;
    };

    hear("start", (root) => {
        seed_buttons();
        count();
        root.addEventListener("input", (event) => {
            const near = event.target.closest
                && event.target.closest(PROMPTS.map((id) => `#fresco_${id}`).join());
            if (near) count();
        });
        const taker = app().querySelector("#fresco_from_img2img");
        if (taker && app().querySelector("#img2img_prompt")) {
            taker.classList.add("fresco_taker");
        }
    });
    hear("jobs", (jobs, before) => {
        const over = (list) => list.filter((job) => job.state === "done").length;
        /* A model may be loaded by now, or a button may have changed the prompts. */
        const changed = counted_texts !== null && read().join("\n") !== counted_texts;
        if (changed || over(jobs) !== over(before)) count();
    });
    return img2img;
})();
