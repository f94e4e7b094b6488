"""The tab's tools for prompts and seed, like those of the WebUI."""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
from typing import Any

import gradio as gr

from fresco.server.ports import Environment, Offer
from fresco.webui.tab.text import describe_error, render_note
from fresco.webui.tab.values import TAKEN_NUMBERS, read_img2img
from fresco.webui.widgets.events import HIDDEN, keep_unsaved, on


def make_prompt_tools(
    environment: Environment, prompt: Any, negative: Any
) -> tuple[Any, list[Any]]:
    """Make the lists of styles and LoRA files; return the message below them, and the lists."""
    offer = environment.offer()
    with gr.Row(elem_id="fresco_prompt_tools", visible=bool(offer.styles or offer.loras)):
        style, lora = (
            keep_unsaved(gr.Dropdown(
                label=label, choices=list(names), value=None, visible=bool(names),
                elem_id=f"fresco_add_{name}", info=info,
            ))
            for name, label, names, info in (
                ("style", "Add a style", offer.styles, "Its text is added to both prompts."),
                ("lora", "Add a LoRA", offer.loras, "It is added at the end of the prompt."),
            )
        )
    told = gr.HTML(elem_id="fresco_prompt_told")

    def add_style(name: str | None, words: str, against: str) -> tuple[Any, ...]:
        if not name:
            return (gr.update(),) * 4
        try:
            words, against = environment.add_styles([name], words or "", against or "")
            return words, against, gr.update(value=None), ""
        except Exception as error:
            told = render_note(describe_error(error), "bad")
            return gr.update(), gr.update(), gr.update(value=None), told

    def add_lora(name: str | None, words: str) -> tuple[Any, ...]:
        if not name:
            return gr.update(), gr.update()
        tag = f"<lora:{name}:1>"
        return f"{words.rstrip()} {tag}" if (words or "").strip() else tag, gr.update(value=None)

    on(style.input, add_style, [style, prompt, negative], [prompt, negative, style, told])
    on(lora.input, add_lora, [lora, prompt], [prompt, lora])
    return told, [style, lora]


def update_tools(offer: Offer) -> list[Any]:
    """Make new choices for the lists."""
    return [gr.update(choices=list(names), visible=bool(names), value=None)
            for names in (offer.styles, offer.loras)]


def bind_img2img(environment: Environment, controls: Any, told: Any) -> None:
    """Bind the button that copies the settings of img2img; it is shown if there is an img2img."""
    sent = keep_unsaved(gr.Textbox(visible=HIDDEN, elem_id="fresco_from_img2img_values"))
    button = gr.Button(
        "Take over from img2img", elem_id="fresco_from_img2img", size="sm", visible=HIDDEN
    )
    names = ("prompt", "negative_prompt", *TAKEN_NUMBERS)
    targets = controls.named(*(("sampling", name) for name in names))
    hosts = [controls.host[name] for name in ("model", "sampler", "scheduler")]

    def take(text: str) -> tuple[Any, ...]:
        try:
            found = json.loads(text)
            values, host, missing = read_img2img(found, environment.offer())
        except Exception as error:
            told = render_note(describe_error(error), "bad")
            return *(gr.update(),) * (len(targets) + len(hosts)), told
        updates = [gr.update(value=values[n]) if n in values else gr.update() for n in names]
        updates += [gr.update(value=host[n]) if n in host else gr.update()
                    for n in ("model", "sampler", "scheduler")]
        said = f" Not offered here: {', '.join(missing)}." if missing else ""
        return *updates, render_note(f"Taken over from img2img.{said}", "good")

    on(button.click, take, [sent], [*targets, *hosts, told], script="fresco.img2img")
