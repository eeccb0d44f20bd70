"""The tasks of models that write: summaries, translations, and whatever else a text is turned into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from ...convert.errors import BadRequest
from ...convert.progress import Progress
from .seq2seq import Generation, Seq2Seq, Written
from .task import Parameter, Settings, Task
from .text_stream import Tell

TEXT2TEXT, SUMMARIZATION, TRANSLATION = "text2text-generation", "summarization", "translation"
GENERATION: Mapping[str, Parameter] = {
    "max_length": Parameter(int, help="most tokens of the answer, the one it starts from included"),
    "max_new_tokens": Parameter(int, help="the same without that one"),
    "min_length": Parameter(int, help="fewest tokens of the answer", least=0),
    "min_new_tokens": Parameter(int, help="the same without the first", least=0),
    "num_beams": Parameter(int, help="beams of the search; 1 is greedy"),
    "length_penalty": Parameter(float, help="above 0 favours long answers, below 0 short ones; for beams"),
    "early_stopping": Parameter(bool, help="end as soon as there are as many answers as beams"),
    "no_repeat_ngram_size": Parameter(int, help="no sequence of so many tokens comes twice", least=0),
    "repetition_penalty": Parameter(float, help="above 1 makes tokens that are there already less likely"),
    "num_return_sequences": Parameter(int, help="how many answers: of beams, up to their number; or so many draws"),
    "do_sample": Parameter(
        bool, help="draw each token instead of taking the most probable, which the next four ask for, too"
    ),
    "temperature": Parameter(float, help="above 1 more varied, below 1 less; 0 draws nothing"),
    "top_k": Parameter(int, help="draw from the so many likeliest tokens; 0 for all", least=0),
    "top_p": Parameter(float, help="draw from the likeliest tokens that reach this probability together"),
    "seed": Parameter(int, help="the same number draws the same answer again", least=0),
    "prefix": Parameter(str, help="what is put before each text, instead of what the checkpoint says"),
    "truncate": Parameter(bool, False, help="cut a text that is too long, and say how much, instead of refusing it"),
}
DRAWING = ("temperature", "top_k", "top_p", "seed")
LANGUAGES: Mapping[str, Parameter] = {
    "src_lang": Parameter(str, help="the language of the text, as the checkpoint spells it: en"),
    "tgt_lang": Parameter(str, help="the language to translate to"),
}


Section = Callable[[Seq2Seq, Settings], str]


def _written(name: str, about: str, key: str, section: Section, parameters: Mapping[str, Parameter]) -> Task:
    """A task with answers under ``key``, written as the checkpoint says in ``section``, with what the settings say
    otherwise."""

    def prepared(model: Seq2Seq, settings: Settings) -> tuple[str, Generation]:
        prefix, generation = model.settings(section(model, settings))
        given = settings.pop("prefix")
        return prefix if given is None else given, _changed(generation, settings)

    def run(model: Seq2Seq, inputs: Sequence[Any], settings: Settings, progress: Progress) -> list[Any]:
        truncate = settings.pop("truncate")
        before, generation = prepared(model, settings)
        texts = [before + one["text"] for one in inputs]
        found = model.write(texts, generation, truncate=truncate, progress=progress)
        return [_shown(key, answers) for answers in found]

    def stream(model: Seq2Seq, given: Any, settings: Settings, progress: Progress, tell: Tell) -> Any:
        truncate = settings.pop("truncate")
        before, generation = prepared(model, settings)
        text = before + given["text"]
        return _shown(key, [model.stream(text, tell, generation, truncate=truncate, progress=progress)])

    return Task(name, about, ("text",), run, parameters, writes=True, stream=stream)


def _changed(generation: Generation, settings: Settings) -> Generation:
    """With what is given; a length given in one way counts, whatever the checkpoint says in the other."""
    known = {field.name for field in fields(Generation)}
    given = _drawn({name: value for name, value in settings.items() if name in known and value is not None})
    for name, other in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
        if name in given and other not in given:
            given[other] = None
    return replace(generation, **given)


def _drawn(given: Settings) -> Settings:
    """With ``do_sample`` said. Whoever gives a temperature wants a draw, unless it is 0; and a draw needs no beams,
    whatever the checkpoint says."""
    asked = [name for name in DRAWING if name in given]
    if given.get("temperature") == 0:
        del given["temperature"]
        return {**given, "do_sample": False}
    if asked and given.get("do_sample") is False:
        raise BadRequest(f"{asked[0]} without do_sample: nothing is drawn", param=asked[0])
    drawn = given.get("do_sample", True) if asked else given.get("do_sample")
    return {"num_beams": 1, **given, "do_sample": True} if drawn else given


def _shown(key: str, answers: Sequence[Written]) -> dict[str, Any]:
    best = answers[0]
    result: dict[str, Any] = {key: best.text, "finish_reason": best.finish, "tokens": len(best.tokens)}
    if best.score is not None:
        result["score"] = best.score
    if len(answers) > 1:
        result["others"] = [{key: one.text, "score": one.score, "finish_reason": one.finish} for one in answers[1:]]
    return {**result, "truncated": best.cut} if best.cut else result


def _languages(model: Seq2Seq, settings: Settings) -> str:
    """The checkpoint's name for the translation that is asked for."""
    source, target = settings.pop("src_lang"), settings.pop("tgt_lang")
    known = [name for name in model.named_tasks if name.startswith(f"{TRANSLATION}_")]
    if settings["prefix"] is not None or not (known or source or target):
        return TRANSLATION
    wanted = f"{TRANSLATION}_{source}_to_{target}"
    if wanted not in known:
        raise BadRequest(
            f"{model.name} does not say how it translates from {source or '(nothing said)'} to "
            f"{target or '(nothing said)'}",
            hint=f"it names {', '.join(known) or 'no translations'}; or say what is put before a text: prefix",
            param="tgt_lang",
        )
    return wanted


WRITING = (
    _written(TEXT2TEXT, "a text turned into another", "generated_text", lambda model, settings: "", GENERATION),
    _written(SUMMARIZATION, "a text in short", "summary_text", lambda model, settings: SUMMARIZATION, GENERATION),
    _written(TRANSLATION, "a text in another language", "translation_text", _languages, {**LANGUAGES, **GENERATION}),
)
