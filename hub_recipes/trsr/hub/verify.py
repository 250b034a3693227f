"""Hold a folder, a repo or a server against the `expected.json` of a release, and say what is right or likely wrong."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trsr.core.modeling import DECISION_FILES, optional_file
from trsr.errors import HubError, LoadError, UsageError
from trsr.hub import endpoints, expected
from trsr.hub.diagnosis import Diagnosis, Probabilities, diagnose, tolerance_of
from trsr.hub.rehearsal import answers
from trsr.recommender.serving import pipeline_of
from trsr.records.files import read_json
from trsr.report.redaction import address


def read(source: str, revision: str | None = None) -> dict[str, Any]:
    """The `expected.json` of a pipeline folder, a release folder or a pipeline repo; or the file itself.

    Raises:
        HubError: If there is none, or it is damaged.
    """
    path: str | None = source
    if not Path(source).is_file():
        try:
            path = optional_file(pipeline_of(source), expected.EXPECTED_FILE, {"revision": revision})
        except LoadError as error:
            raise HubError(f"{source} cannot be read: {error}") from error
    if path is None:
        raise HubError(
            f"{source} holds no {expected.EXPECTED_FILE}: it is no release. Publish it again, or say which release it should be: --expected "
            "RELEASE"
        )
    values = read_json(Path(path))
    if wrong := expected.problem(values):
        raise HubError(
            f"{path} is no whole {expected.EXPECTED_FILE}: {wrong}. Take the release's own again, or say which release it should be: "
            "--expected RELEASE"
        )
    return values


def verify(
    target: str,
    *,
    known: str | None = None,
    api: str | None = None,
    model: str | None = None,
    revision: str | None = None,
    tolerance: float | None = None,
) -> dict[str, Any]:
    """Ask `target` the requests of a release, and compare.

    Args:
        target: Pipeline folder, release folder or Hub id, whose code is executed; or the address of a server.
        known: Where `expected.json` is; default, with the target.
        api: Of a server, see `endpoints`; default, `systemone`.
        model: As the server calls it; default, the name of `known`.
        revision: Of the repo `target`; where that is a server, of the repo `known`.
        tolerance: Largest difference in log-odds that is right; default by the precision of what is expected.

    Returns:
        `target`, `difference`, `tolerance`, `right`, `said`, and `rows`: log-odds expected and given.

    Raises:
        HubError, ReleaseError: If the target cannot be asked, or there is nothing to compare it with.
        UsageError: If an option would do nothing.
    """
    is_server = target.startswith(("http://", "https://"))
    shown = address(target) if is_server else target
    if is_server and not known:
        raise HubError(f"What {shown} should answer is not known: name the release that it serves, --expected RELEASE.")
    source = known or target
    if not is_server and (useless := [name for name, value in (("--api", api), ("--model", model)) if value]):
        raise UsageError(f"{' and '.join(useless)}: for the address of a server, and {target} is none. Leave it out.")
    if revision and Path(source if is_server else target).exists():
        raise UsageError(f"--revision is of a repo, and {source if is_server else target} lies here. Leave it out.")
    api = api or "systemone"
    wanted = read(source, revision if is_server or not known else None)
    allowed = tolerance_of(wanted["made_from"]["dtype"]) if tolerance is None else tolerance
    said: list[str] = []
    if is_server:
        replies = endpoints.ask(api, target, model or source, wanted)
        log_odds, tokens = [reply.log_odds for reply in replies], [reply.tokens for reply in replies]
        temperature = endpoints.temperature_of(api, wanted)
        probabilities = None if temperature is None else Probabilities(temperature)
        diagnosis = diagnose(wanted, log_odds, None, tokens, allowed, probabilities)
        if not diagnosis.right:  # another time: answers that are sampled are others then
            again = [reply.log_odds for reply in endpoints.ask(api, target, model or source, wanted)]
            diagnosis = diagnose(wanted, log_odds, again, tokens, allowed, probabilities)
    else:
        log_odds, diagnosis, said = _of_pipeline(target, wanted, revision, allowed)
    return {
        "target": shown,
        "difference": diagnosis.difference,
        "tolerance": allowed,
        "right": diagnosis.right and not said,
        "said": said if diagnosis.right and said else [*diagnosis.said, *said],
        "rows": [
            {"expected": request["log_odds"], "given": [round(value, 4) for value in values]}
            for request, values in zip(wanted["requests"], log_odds, strict=True)
        ],
    }


def _of_pipeline(
    target: str, wanted: Mapping[str, Any], revision: str | None, tolerance: float
) -> tuple[list[list[float]], Diagnosis, list[str]]:
    """Answers of a folder or repo, what they say, and what differs beside the log-odds."""
    pipeline = pipeline_of(target)
    if Path(pipeline).is_dir():
        pipeline = str(Path(pipeline).resolve())  # it is loaded from another folder
    requests = [entry["request"] for entry in wanted["requests"]]
    summaries = [entry["summary"] for entry in wanted["requests"]]
    questions: dict[str, Any] = {"compared": requests}
    if any(summary is not None for summary in summaries):
        questions["summarised"] = requests
    if catalogue := wanted.get("catalogue"):
        questions["chosen"] = catalogue["request"]
    output = answers(pipeline, questions, f"{target} cannot be loaded", {"revision": revision} if revision else None)
    diagnosis = diagnose(wanted, output["compared"], None, None, tolerance)
    differ = sum(
        summary != other for summary, other in zip(summaries, output.get("summarised", summaries), strict=True)
    )
    decision, template = (optional_file(pipeline, name, {"revision": revision}) for name in DECISION_FILES)
    said = _other_fits(wanted, output["fitted"], decision)
    if template and "decision_template_sha256" in wanted:
        digest = expected.text_digest(Path(template).read_text("utf-8"))
        if digest != wanted["decision_template_sha256"]:
            said.append(
                f"Its {DECISION_FILES[1]} differs from that of the release, so that `transformers serve` gives the model other prompts."
            )
    if catalogue and (problem := expected.catalogue_problem(catalogue, output["chosen"])):
        said.append(f"It does not retrieve what the release does: {problem}.")
    if differ:
        said.append(
            f"{differ} of {len(summaries)} summaries that it writes differ from the expected ones: another summariser, other prompts for "
            "it, or, where its weights are in half precision, two words that are about as likely."
        )
    if not diagnosis.right and output["dtype"] != wanted["made_from"]["dtype"]:
        said.append(f"It was loaded in {output['dtype']}, and the answers are those in {wanted['made_from']['dtype']}.")
    return output["compared"], diagnosis, said


def _other_fits(wanted: Mapping[str, Any], fitted: Mapping[str, Any], decision: str | None) -> list[str]:
    """What was fitted for the release, and is other here. Log-odds are the same with it, but not what is made of them.

    Args:
        fitted: As `fresh_process` gives it.
        decision: Path of the settings that `transformers serve` reads, if there are any.
    """
    said = [
        f"Its {name} is {fitted[name]:g}, and that of the release {wanted[name]:g} (`trsr` in config.json): so its probabilities differ."
        for name in ("temperature", "bias")
        if not math.isclose(fitted[name], wanted[name], rel_tol=1e-9, abs_tol=1e-9)
    ]
    served = _served_temperature(Path(decision)) if decision else None
    if served is not None and not math.isclose(served, wanted["temperature"], rel_tol=1e-9):
        said.append(
            f"Its {DECISION_FILES[0]} has the temperature {served:g}, and the release {wanted['temperature']:g}: `transformers serve` "
            "gives other probabilities."
        )
    weight = wanted.get("catalogue", {}).get("weight")
    if None not in (weight, fitted["weight"]) and not math.isclose(fitted["weight"], weight, rel_tol=1e-9):
        said.append(
            f"The first stage of its catalogue has the weight {fitted['weight']:g}, and in the release {weight:g}: what it recommends "
            "is in another order."
        )
    return said


def _served_temperature(decision: Path) -> float | None:
    """The temperature that `transformers serve` divides by; None where its settings state none."""
    values = read_json(decision)
    stated = values.get("temperature") if isinstance(values, dict) else None
    temperature = stated.get("noul") if isinstance(stated, dict) else None
    return temperature if isinstance(temperature, (int, float)) else None
