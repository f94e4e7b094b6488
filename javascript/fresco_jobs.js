/* The list of jobs: names, images, order, several at once, and their disk space. */
"use strict";

(() => {
    const {
        ask, button, choose, complain, fill, find, goes_on, hear, look_at_uploads, make, note, poll,
        redrawn, size, work, GOALS,
    } = fresco.core;
    const FEW = 4; /* jobs for which nobody needs a filter */
    const AT_ONCE = 24; /* images in one question */
    const list = {
        filter: "", state: "all", several: false, ticked: new Set(), sure: false,
        editing: "", text: "", images: {}, wanted: {}, space: null, days: 30, jobs: true,
        videos: true, found: null, told: "", emptying: false, open: true,
    };
    const STATES = {
        all: () => true, waiting: (job) => job.state === "queued",
        running: (job) => ["running", "cancelling"].includes(job.state),
        done: (job) => job.state === "done",
        "not done": (job) => ["failed", "cancelled"].includes(job.state),
    };

    const matches = (job) => {
        const text = `${job.title} ${job.prompt} ${GOALS[job.goal] || job.goal}`.toLowerCase();
        return STATES[list.state](job)
            && list.filter.toLowerCase().split(/\s+/).every((word) => text.includes(word));
    };
    const act = async (what, values, then) => {
        try {
            const answer = await ask(what, values);
            if (then) then(answer);
            poll();
        } catch (error) {
            complain(error.message);
        }
    };

    const row = (job, waiting) => {
        const select = make("input", {
            type: list.several ? "checkbox" : "radio", name: "fresco_job", value: job.id,
            "aria-label": `Select job ${job.title}`, "data-focus": `job${job.id}`,
            onchange: () => {
                if (!list.several) choose(job.id);
                else {
                    if (!list.ticked.delete(job.id)) list.ticked.add(job.id);
                    draw();
                }
            },
        });
        select.checked = list.several ? list.ticked.has(job.id) : job.id === work.chosen;
        const share = job.total && goes_on(job) ? ` ${Math.floor(100 * job.done / job.total)} %` : "";
        const here = job.id === work.chosen ? " fresco_here" : "";
        const place = job.place > 1 || (job.place && waiting > 1) ? ` ${job.place} of ${waiting}` : "";
        return make("li", { class: `fresco_job${here}`, "data-job": job.id },
            make("label", {}, select,
                list.images[job.id] ? make("img", {
                    class: "fresco_job_image", alt: "", src: list.images[job.id],
                }) : null,
                list.editing === job.id ? naming(job) : make("span", {
                    class: "fresco_job_title", title: job.title,
                }, job.title),
                make("span", { class: "fresco_hint" }, GOALS[job.goal] || job.goal),
                make("span", { class: `fresco_badge fresco_badge_${job.state}` },
                    job.state + share + place),
                make("span", { class: "fresco_hint" },
                    new Date(1000 * job.created).toLocaleString([], {
                        dateStyle: "short", timeStyle: "short",
                    })),
                list.space && list.space.jobs[job.id] ? make("span", { class: "fresco_hint" },
                    size(list.space.jobs[job.id])) : null,
                job.prompt ? make("span", { class: "fresco_job_prompt", title: job.prompt },
                    job.prompt) : null),
            work.deleting === job.id ? asked(job) : buttons(job, waiting));
    };
    const naming = (job) => {
        const input = make("input", {
            type: "text", class: "fresco_job_name", maxlength: 200, "data-focus": `name${job.id}`,
            "aria-label": "Name of the job", onclick: (event) => event.preventDefault(),
            oninput: (event) => { list.text = event.target.value; },
            onkeydown: (event) => {
                if (event.key === "Enter") rename(job);
                else if (event.key === "Escape") { list.editing = ""; draw(); }
            },
        });
        input.value = list.text;
        return input;
    };
    const rename = (job) => act("rename", { job: job.id, title: list.text }, () => {
        list.editing = "";
        draw();
    });
    const asked = (job) => make("span", { class: "fresco_group fresco_asked" },
        button("Delete for good", () => drop(job.id, false), {
            class: "fresco_button fresco_danger",
        }),
        job.upload ? button("Delete with its video", () => drop(job.id, true), {
            class: "fresco_button fresco_danger", title: "No other job needs the uploaded video",
        }) : null,
        button("Cancel", () => { work.deleting = ""; draw(); }));
    const buttons = (job, waiting) => make("span", { class: "fresco_group" },
        job.place && waiting > 1 ? [
            button("\u2191", () => move(job, -1), {
                "aria-label": `Run ${job.title} earlier`, "data-focus": `up${job.id}`,
                disabled: job.place === 1,
            }),
            button("\u2193", () => move(job, 1), {
                "aria-label": `Run ${job.title} later`, "data-focus": `down${job.id}`,
                disabled: job.place === waiting,
            })] : null,
        list.editing === job.id
            ? button("Save", () => rename(job), { "data-focus": `save${job.id}` })
            : button("\u270e", () => {
                Object.assign(list, { editing: job.id, text: job.title });
                draw();
                const input = find("jobs").querySelector(".fresco_job_name");
                input.focus();
                input.select();
            }, {
                "aria-label": `Rename job ${job.title}`, "data-focus": `edit${job.id}`,
                title: "Rename",
            }),
        button("\u00d7", () => { work.deleting = job.id; draw(); }, {
            "aria-label": `Delete job ${job.title}`, "data-focus": `delete${job.id}`,
            title: "Delete this job and its files",
            disabled: ["running", "cancelling"].includes(job.state),
        }));

    const move = (job, by) => {
        const queue = work.jobs.filter((each) => each.place).sort((a, b) => a.place - b.place)
            .map((each) => each.id).filter((id) => id !== job.id);
        const before = queue[job.place - 1 + by];
        act("move", { job: job.id, before: before || "" });
    };
    const drop = (id, video) => act("delete", { job: id, video }, () => {
        work.deleting = "";
        if (work.chosen === id) choose(null);
        look_at_uploads();
        look_at_space();
    });

    /* The field of the filter is made once: a field that is replaced at each letter loses what an
       input method is composing. */
    const filter = make("input", {
        type: "search", placeholder: "Filter", class: "fresco_filter", "data-focus": "filter",
        "aria-label": "Filter jobs by name or prompt",
        oninput: (event) => { list.filter = event.target.value; draw(); },
    });
    const choices = () => make("span", { class: "fresco_group" },
        make("select", {
            "aria-label": "Filter jobs by state", class: "fresco_filter", "data-focus": "states",
            onchange: (event) => { list.state = event.target.value; draw(); },
        }, Object.keys(STATES).map((name) => make("option", {
            value: name, selected: name === list.state,
        }, name))),
        button(list.several ? "One" : "Several", () => {
            Object.assign(list, { several: !list.several, sure: false });
            list.ticked.clear();
            draw();
        }, { "data-focus": "several", title: "Tick several jobs and delete them" }),
        list.several ? several() : null);
    const several = () => {
        const ids = work.jobs.filter(matches).map((job) => job.id)
            .filter((id) => list.ticked.has(id));
        const go = (video) => act("delete_several", { jobs: ids, video }, (answer) => {
            Object.assign(list, { several: false, sure: false });
            list.ticked.clear();
            if (ids.includes(work.chosen)) choose(null);
            complain(answer.refused.join(" ") || `${answer.jobs} jobs deleted.`,
                answer.refused.length ? "bad" : "note");
            look_at_uploads();
            look_at_space();
        });
        return make("span", { class: "fresco_group" },
            button("All", () => {
                work.jobs.filter(matches).forEach((job) => list.ticked.add(job.id));
                draw();
            }, { "data-focus": "all" }),
            !list.sure ? button(`Delete ${ids.length}`, () => { list.sure = true; draw(); }, {
                disabled: !ids.length, "data-focus": "delete_several",
            }) : [
                button(`Delete ${ids.length} for good`, () => go(false), {
                    class: "fresco_button fresco_danger", "data-focus": "sure",
                }),
                button("With their videos", () => go(true), {
                    class: "fresco_button fresco_danger",
                    title: "Also deletes uploads that no other job needs",
                }),
                button("Cancel", () => { list.sure = false; draw(); })]);
    };

    /* Disk space of jobs and uploads; asked for when the list is open and has changed. */
    const look_at_space = async () => {
        try {
            list.space = await ask("space", {});
            draw();
        } catch (error) {
            complain(error.message);
        }
    };
    const room = () => {
        const { space } = list;
        if (!space) return null;
        const free = space.free === null ? "" : `, ${size(space.free)} free`;
        return make("div", { class: "fresco_room" },
            make("span", { class: "fresco_hint" }, `Jobs take ${size(space.jobs_bytes)}, uploads `
                + `${size(space.videos_bytes)}${free}.`),
            button(list.emptying ? "Close" : "Empty ...", () => {
                Object.assign(list, { emptying: !list.emptying, found: null, told: "" });
                draw();
            }, { "data-focus": "empty", title: "Delete old jobs and uploads; you are asked first" }),
            list.emptying ? emptier() : null);
    };
    const days = make("input", {
        type: "number", min: 0, max: 36500, class: "fresco_seed", "data-focus": "days",
        "aria-label": "Days", value: list.days, oninput: (event) => {
            list.days = Number(event.target.value);
            if (list.found) { list.found = null; draw(); }
        },
    });
    const emptier = () => {
        const tick = (name, text) => {
            const box = make("input", {
                type: "checkbox", "data-focus": name,
                onchange: (event) => { list[name] = event.target.checked; list.found = null; draw(); },
            });
            box.checked = list[name];
            return make("label", { class: "fresco_switch" }, box, ` ${text}`);
        };
        const look = (sure) => act("empty", {
            days: list.days, jobs: list.jobs, videos: list.videos, sure,
        }, (answer) => {
            list.found = sure ? null : answer;
            list.told = sure ? `Deleted: ${counted(answer)}. ${answer.refused.join(" ")}` : "";
            if (sure) {
                look_at_uploads();
                look_at_space();
            }
            draw();
        });
        const nothing = list.found && !list.found.jobs && !list.found.videos;
        return make("div", { class: "fresco_emptier" },
            make("label", {}, "Older than ", days, " days:"),
            tick("jobs", "jobs that have ended"), tick("videos", "uploads that no job needs"),
            nothing ? note("There is nothing that old.") : list.found
                ? button(`Delete ${counted(list.found)} for good`, () => look(true), {
                    class: "fresco_button fresco_danger", "data-focus": "empty_now",
                }) : button("List them", () => look(false), {
                    "data-focus": "empty_look", disabled: !list.jobs && !list.videos,
                }),
            list.told ? note(list.told, "good") : null);
    };
    const counted = (found) => `${found.jobs} ${found.jobs === 1 ? "job" : "jobs"} and `
        + `${found.videos} ${found.videos === 1 ? "upload" : "uploads"}, ${size(found.size)}`;

    /* Images of jobs, asked for once a state. */
    const want_images = async () => {
        const missing = work.jobs.filter((job) => list.wanted[job.id] !== job.state)
            .slice(0, AT_ONCE);
        if (!missing.length) return;
        missing.forEach((job) => { list.wanted[job.id] = job.state; });
        try {
            Object.assign(list.images, await ask("job_thumbnails", {
                jobs: missing.map((job) => job.id),
            }));
            draw();
        } catch (error) { /* a job may be gone by now; the list says so */ }
    };

    /* What stays while the list is drawn again; the rest is filled in. */
    const board = {
        summary: make("summary"), choices: make("span"), rows: make("ul"), room: make("div"),
    };
    board.tools = make("div", { class: "fresco_tools" }, filter, board.choices);
    board.all = make("details", {
        ontoggle: (event) => {
            const opened = event.target.open && !list.open;
            list.open = event.target.open;
            if (opened) look_at_space();
        },
    }, board.summary, board.tools, board.rows, board.room);
    board.all.open = list.open;

    const draw = () => {
        const place = find("jobs");
        if (!place) return;
        if (!work.jobs.length) {
            fill(place);
            return;
        }
        if (!place.contains(board.all)) fill(place, board.all);
        const waiting = work.jobs.filter((job) => job.place).length;
        const shown = work.jobs.filter(matches);
        const writing = list.editing && document.activeElement?.matches(".fresco_job_name");
        board.summary.textContent = `Jobs (${shown.length === work.jobs.length ? ""
            : `${shown.length} of `}${work.jobs.length})`;
        board.tools.hidden = work.jobs.length < FEW && !list.several && !list.filter
            && list.state === "all";
        redrawn(place, "ul", () => {
            fill(board.choices, choices());
            fill(board.room, room());
            /* A name that is being written stays under the hand. */
            if (!writing) fill(board.rows, shown.map((job) => row(job, waiting)));
        });
    };

    let seen = "";
    hear("jobs_changed", () => {
        draw();
        want_images();
        const now = work.jobs.map((job) => job.id + (goes_on(job) ? "" : job.state)).join();
        if (now !== seen && list.open) look_at_space();
        seen = now;
    });
})();
