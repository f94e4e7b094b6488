/* The client side of the FRESCO tab while a job runs: what the model makes, the title of the page,
   and a word of the browser at the end. */
"use strict";

(() => {
    const LOOK = 3000; /* ms between two looks at the batch at work */
    const KEPT = "fresco_notify"; /* whether the browser shall tell, kept by the browser */
    const { find, make, fill, ask, hear, seen, goes_on, chosen, note } = fresco.core;
    const wait = { timer: 0, shown: "", title: "", own: "", asked: 0 };

    /* What the model makes, as long as somebody looks. */
    const look = async () => {
        clearTimeout(wait.timer);
        const job = chosen(), place = find("preview");
        const samples = job && job.state === "running"
            && ["keyframes", "keyframe", "frame by frame"].includes(job.stage);
        if (place && samples && seen() && Date.now() - wait.asked >= LOOK - 50) {
            wait.asked = Date.now();
            try {
                show(place, job, await ask("preview", { job: job.id }));
            } catch (error) { /* the next look tells */ }
        } else if (place && !samples) show(place, job, null);
        wait.timer = samples ? setTimeout(look, LOOK) : 0;
    };
    const show = (place, job, address) => {
        if (address === null) {
            if (!job || job.state !== "running" || wait.shown !== job.id) {
                fill(place);
                wait.shown = "";
            }
            return;
        }
        wait.shown = job.id;
        let image = place.querySelector("img");
        if (!image) {
            image = make("img", { alt: "Preview of the current batch" });
            fill(place, make("figure", { class: "fresco_batch" }, image,
                make("figcaption", { class: "fresco_hint" }, "Preview of the current batch")));
        }
        image.src = address;
    };

    /* The title of the page tells how far the job at work is. */
    const entitle = (jobs) => {
        const job = jobs.find((each) => each.state === "running" || each.state === "cancelling");
        if (!job && !wait.own) return;
        /* The title may have been changed by others meanwhile. */
        if (document.title !== wait.own) wait.title = document.title;
        if (!job) {
            document.title = wait.title;
            wait.own = "";
            return;
        }
        const share = job.share !== null ? job.share : job.total ? job.done / job.total : 0;
        const stage = job.share === null && job.stage ? ` ${job.stage}` : "";
        document.title = `${Math.floor(100 * share)} %${stage} \u00b7 FRESCO`;
        wait.own = document.title; /* as the browser keeps it */
    };

    /* A word of the browser when a job ends. */
    const ended = (jobs, before) => jobs.filter((job) => !goes_on(job)
        && before.some((old) => old.id === job.id && goes_on(old)));
    const can_tell = () => typeof Notification !== "undefined" && window.isSecureContext;
    const wants = () => {
        try { return localStorage.getItem(KEPT) === "yes"; } catch (error) { return false; }
    };
    const keep = (wanted) => {
        try { localStorage.setItem(KEPT, wanted ? "yes" : "no"); } catch (error) { /* unasked */ }
    };
    const notify = (job) => {
        if (!wants() || !can_tell() || Notification.permission !== "granted") return;
        const told = new Notification(`FRESCO: ${job.title}`, {
            body: job.state === "done" ? `Done${job.took ? ` in ${job.took}` : ""}.`
                : job.message || job.state,
            tag: `fresco-${job.id}`,
        });
        told.onclick = () => window.focus();
    };
    const draw_switch = (said) => {
        const place = find("wait");
        if (!place) return;
        const box = make("input", {
            type: "checkbox", id: "fresco_notify", disabled: !can_tell(),
            onchange: async (event) => {
                const wanted = event.target.checked;
                const answer = wanted ? await Notification.requestPermission() : "granted";
                keep(wanted && answer === "granted");
                draw_switch(answer === "granted" ? ""
                    : "The browser blocks notifications; allow them for this page in its settings.");
            },
        });
        box.checked = wants() && can_tell() && Notification.permission === "granted";
        const hint = can_tell() ? "" : " (browsers allow this only with https or on this machine)";
        fill(place, make("label", { class: "fresco_switch" }, box,
            ` Notify me when a job ends${hint}`), said ? note(said, "bad") : null);
    };

    hear("start", () => draw_switch(""));
    hear("jobs", (jobs, before) => {
        entitle(jobs);
        ended(jobs, before).forEach(notify);
        if (!wait.timer) wait.timer = setTimeout(look, 0);
    });
})();
