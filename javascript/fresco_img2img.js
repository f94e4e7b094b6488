/* Between img2img and the tab: guided keyframes of img2img go to the tab, which makes the video;
   a keyframe of the tab is changed in img2img or inpaint and comes back. Only on pages with
   img2img. */
"use strict";

(() => {
    const {
        address_of, app, button, call, chosen, complain, find, hear, later, make, send, work,
    } = fresco.core;
    const MOST_WAIT = 10000; /* ms until an image must lie in img2img */
    const sent = { job: null, key: null }; /* keyframe that was sent to img2img last */
    const carried = { text: "" }; /* what the program is told of a carried call */

    const outside = (id) => app().querySelector("#" + id);
    const until = async (find_it) => {
        const end = Date.now() + MOST_WAIT;
        for (let found = find_it(); ; found = find_it()) {
            if (found) return found;
            if (Date.now() > end) return null;
            await new Promise((resolve) => setTimeout(resolve, 50));
        }
    };
    /* What the WebUI wrote into an image, in whatever format it was saved. */
    const read_texts = async (blob) => {
        const letters = new TextDecoder("latin1").decode(await blob.arrayBuffer())
            .replaceAll("\0", "");
        const frame = letters.match(/FRESCO frame: (\d{1,9})\b/);
        const source = letters.match(/FRESCO source: ("(?:[^"\\]|\\.)*"|[^,\n]*)/);
        return { frame: frame ? Number(frame[1]) : null, source: source ? source[1] : "" };
    };
    const fetch_image = async (address) => (await fetch(address)).blob();
    const name_source = (text) => {
        if (!text.startsWith('"')) return text.trim();
        try { return JSON.parse(text); } catch (error) { return text.slice(1, -1); }
    };

    /* From the tab to img2img: the selected keyframe, as if somebody had chosen the file. */
    const send_key = async (key, inpaint) => {
        const job = work.chosen;
        try {
            const answer = await call(`jobs/${job}/keyframes/${key}?text=true`);
            const name = `frame${String(key).padStart(6, "0")}.png`;
            const file = new File([await answer.blob()], name, { type: "image/png" });
            const box = outside(inpaint ? "img2maskimg" : "img2img_image");
            (inpaint ? window.switch_to_inpaint : window.switch_to_img2img)();
            const clear = box.querySelector("button[aria-label='Clear'], button[title='Clear']");
            if (clear) clear.click();
            const input = await until(() => box.querySelector("input[type=file]"));
            if (!input) throw new Error("img2img takes no image; remove the one that is there.");
            const files = new DataTransfer();
            files.items.add(file);
            input.files = files.files;
            input.dispatchEvent(new Event("change", { bubbles: true }));
            Object.assign(sent, { job, key });
            watch();
            draw_results();
        } catch (error) {
            complain(error.message);
        }
    };

    /* From img2img to the tab. */
    const to_tab = () => {
        const tabs = [...app().querySelectorAll("#tabs > .tab-nav button, #tabs button[role=tab]")];
        const tab = tabs.find((element) => element.textContent.trim() === "FRESCO");
        if (tab) tab.click();
    };
    const list_images = () => [...new Set(
        [...app().querySelectorAll("#img2img_gallery img")].map((image) => image.src))];
    /* The image that is selected, or the last one. */
    const bring_back = async () => {
        const large = app().querySelector("#img2img_gallery .preview > button img, "
            + "#img2img_gallery .preview > img");
        try {
            const blob = await fetch_image(large ? large.src : list_images().pop());
            const { frame } = await read_texts(blob);
            const key = frame === null ? sent.key : frame;
            if (sent.job && sent.job !== work.chosen) fresco.core.choose(sent.job);
            to_tab();
            await until(() => work.detail && work.detail.keys[key]);
            if (!work.detail || !work.detail.keys[key]) {
                throw new Error(`The selected job has no keyframe ${key}; select its job.`);
            }
            await fresco.retouch.replace_key(key, new File([blob], "img2img", { type: blob.type }));
        } catch (error) {
            complain(error.message);
        }
    };
    /* All keyframes of the gallery, their clip and their words. */
    const carry = async () => {
        try {
            const found = new Map();
            let source = "";
            for (const address of list_images()) {
                const blob = await fetch_image(address), texts = await read_texts(blob);
                if (texts.frame === null) continue;
                source = name_source(texts.source);
                found.set(texts.frame, new File(
                    [blob], `${String(texts.frame).padStart(6, "0")}.${blob.type.split("/")[1]}`,
                    { type: blob.type }));
            }
            if (!found.size) {
                throw new Error("The images do not say which frames they are. Switch infotexts in "
                    + "images on (settings of the WebUI), or give them as external keyframes.");
            }
            to_tab();
            const section = find("section_own");
            const head = section && section.querySelector(".label-wrap:not(.open)");
            if (head) head.click();
            carried.text = JSON.stringify({ source, numbers: [...found.keys()] });
            find("carry").click();
            send(find("own_files"), [...found.values()]);
            complain(`${found.size} keyframes of ${source || "img2img"} are in the section `
                + "External keyframes. Press Run propagation to make the video.", "note");
        } catch (error) {
            complain(error.message);
        }
    };
    /* The values of the hidden button that opens the call: what was carried. */
    fresco.carried = () => fresco.loading([carried.text]);

    /* Buttons below the results of img2img, by what the text of its image says. */
    const draw_results = () => {
        const place = outside("image_buttons_img2img"), told = outside("html_info_img2img");
        if (!place || !told) return;
        let row = place.parentElement.querySelector(".fresco_results");
        if (!row) {
            row = make("div", { class: "fresco_results" });
            place.after(row);
        }
        const text = told.textContent, frame = text.match(/FRESCO frame: (\d+)/);
        /* The text of a grid says no frame. */
        const guided = /FRESCO: \d/.test(text), key = frame ? Number(frame[1]) : sent.key;
        const back = !guided && key !== null && (frame || sent.job);
        const wanted = guided ? "carry" : back && text.trim() ? `back ${key}` : "";
        if (row.dataset.shown === wanted) return;
        row.dataset.shown = wanted;
        row.replaceChildren(...(guided
            ? [button("Use these keyframes in the FRESCO tab", carry, {
                title: "Takes keyframes, video and prompt texts; Run propagation there makes the video",
            })]
            : wanted ? [button(`Back to the FRESCO tab as keyframe ${key}`, bring_back, {
                title: "The selected image replaces it; the frames beside it are made again",
            })] : []));
    };
    const watch = () => {
        const told = outside("html_info_img2img");
        if (!told || told.dataset.fresco) return;
        told.dataset.fresco = "watched";
        new MutationObserver(later(50, draw_results))
            .observe(told, { childList: true, subtree: true, characterData: true });
    };
    hear("start", watch);

    hear("compare_drawn", (box) => {
        if (!outside("img2img_image")) return;
        const row = box.querySelector(".fresco_retouch");
        const there = row.querySelector("[data-send]");
        const key = work.key === null ? "" : String(work.key);
        if (there && there.dataset.send === key) return;
        row.querySelectorAll("[data-send]").forEach((element) => element.remove());
        if (!key || !chosen()) return;
        row.append(
            button("Send to img2img", () => send_key(work.key, false), { "data-send": key }),
            button("Send to inpaint", () => send_key(work.key, true), { "data-send": key }));
    });
})();
