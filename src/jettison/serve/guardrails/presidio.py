"""Personal data by Microsoft's Presidio: many countries' numbers; names where a spaCy model is given."""

import logging
import threading
from pathlib import Path
from typing import Any

from jettison import registry
from jettison.errors import InvalidInput
from jettison.serve.guardrails.spans import verdict_of_finds
from jettison.serve.guardrails.verdict import GuardSettings, Verdict, Where
from jettison.task.pii import Found

NOT_PERSONAL = frozenset({"DATE_TIME", "URL"})
"""What Presidio finds in nearly every text, and is looked for only when named."""


class PresidioSettings(GuardSettings, frozen=True, kw_only=True):
    """Settings of `presidio`."""

    entities: tuple[str, ...] = ()
    """Presidio's names, as `EMAIL_ADDRESS`; none is all that it knows for the language, but `DATE_TIME` and
    `URL`."""
    language: str = "en"
    """ISO 639-1."""
    nlp_model: str | None = None
    """Name of an installed spaCy pipeline, or its folder: finds names of people and places too. Never
    downloaded. None takes spaCy's blank pipeline: numbers and addresses alone."""
    least_score: float = 0.5
    """Presidio's own score from which a find counts."""
    allow: tuple[str, ...] = ()
    """What may stand in a text, written as there."""


class Presidio:
    """Finds what Presidio's recognisers find. Needs the extra `presidio`; takes milliseconds a text.

    Streams are held back whole: what it finds may depend on words further on.
    """

    Settings = PresidioSettings

    def __init__(self, settings: PresidioSettings) -> None:
        if not 0 < settings.least_score <= 1:
            raise InvalidInput(f"least_score must be in 0-1, got {settings.least_score}.")
        self._settings = settings
        self._analyzer = _analyzer(settings)
        known = set(self._analyzer.get_supported_entities(settings.language))
        unknown = sorted(set(settings.entities) - known)
        if unknown:
            raise InvalidInput(
                f"entities must be some of {sorted(known)}, got {unknown}. "
                "Names of people and places need nlp_model."
            )
        self._entities = list(settings.entities) or sorted(known - NOT_PERSONAL)
        # spaCy promises nothing of one pipeline in two threads.
        self._one_at_a_time = threading.Lock()

    def check(self, text: str, *, where: Where) -> Verdict:
        """Judge one text."""
        del where
        settings = self._settings
        # spaCy's strings are UTF-8; one lone surrogate for one mark keeps every place where it is.
        plain = text.encode("utf-8", "replace").decode("utf-8")
        with self._one_at_a_time:
            results = self._analyzer.analyze(
                text=plain,
                language=settings.language,
                entities=self._entities,
                score_threshold=settings.least_score,
                allow_list=list(settings.allow) or None,
            )
        return verdict_of_finds("presidio", settings, text, _apart(results))


def _apart(results: Any) -> list[Found]:
    """Finds in order that do not overlap; of two that do, the surer, then the longer."""
    kept: list[Found] = []
    for one in sorted(results, key=lambda r: (-r.score, r.start - r.end, r.start)):
        if all(one.end <= other.start or one.start >= other.end for other in kept):
            kept.append(Found(one.entity_type.lower(), one.start, one.end))
    return sorted(kept, key=lambda found: found.start)


def _analyzer(settings: PresidioSettings) -> Any:
    """Presidio's engine on a pipeline that is here already.

    Raises:
        MissingExtra: Presidio is not installed.
        InvalidInput: Neither is the pipeline, or the language is none of spaCy's.
    """
    presidio: Any = registry.need("presidio_analyzer", "presidio")
    engines: Any = registry.need("presidio_analyzer.nlp_engine", "presidio")
    spacy: Any = registry.need("spacy", "presidio")
    language = settings.language
    engine = engines.SpacyNlpEngine(
        models=[{"lang_code": language, "model_name": settings.nlp_model or ""}]
    )
    engine.nlp = {language: _pipeline(spacy, settings)}
    provider: Any = registry.need("presidio_analyzer.recognizer_registry", "presidio")
    # It warns of each recogniser that is made for another language.
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    found = provider.RecognizerRegistryProvider(
        registry_configuration={"supported_languages": [language]}
    ).create_recognizer_registry()
    if settings.nlp_model is not None:
        found.add_nlp_recognizer(nlp_engine=engine)
    else:
        found.remove_recognizer("SpacyRecognizer")
    found.remove_recognizer("EmailRecognizer")
    found.add_recognizer(_email_recognizer(language))
    return presidio.AnalyzerEngine(registry=found, nlp_engine=engine, supported_languages=[language])


def _pipeline(spacy: Any, settings: PresidioSettings) -> Any:
    model = settings.nlp_model
    if model is None:
        try:
            return spacy.blank(settings.language)
        except ImportError as error:
            raise InvalidInput(
                f"language must be one that spaCy knows, as `en`, got {settings.language!r}."
            ) from error
    if not spacy.util.is_package(model) and not Path(model).is_dir():
        raise InvalidInput(
            f"nlp_model must be an installed spaCy pipeline or a folder, got {model!r}. "
            "It is not downloaded: install its package."
        )
    return spacy.load(model)


def _email_recognizer(language: str) -> Any:
    """Presidio's own, with the list of suffixes that comes along instead of one from the network."""
    recognizers: Any = registry.need("presidio_analyzer.predefined_recognizers", "presidio")
    tldextract: Any = registry.need("tldextract", "presidio")
    extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    class OfflineEmail(recognizers.EmailRecognizer):  # type: ignore[misc]
        def validate_result(self, pattern_text: str) -> bool:
            return bool(extract(pattern_text).fqdn)

    return OfflineEmail(supported_language=language)
