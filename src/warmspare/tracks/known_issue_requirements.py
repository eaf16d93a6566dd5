"""What known issues predict of Sleep Mode's proofs: a paper for each proof, made of the rows that bear on it."""

from __future__ import annotations

from typing import Final

import msgspec

from warmspare.model.findings import Finding, met, not_applicable, undecided, unmet
from warmspare.model.requirements import Each, Requirement, arises_if, unless
from warmspare.probes.gpu import GpuIdentity
from warmspare.probes.platform import Platform
from warmspare.probes.software import PythonPackages
from warmspare.tracks.issue_conditions import Meant
from warmspare.tracks.known_issues import Issue, Match, all_issues, matching, version_of
from warmspare.tracks.plan_conditions import (
    plan_has_data_parallelism,
    plan_has_level_2,
    plan_has_tensor_parallelism,
    plan_is_of_a_server,
)
from warmspare.trials.engine_plan import EnginePlan

WEIGHING: Final = frozenset(
    {
        "sleep_cycles_hold",
        "requests_survive_sleep",
        "data_parallel_sleeps",
        "tensor_parallel_sleeps",
        "the_level_used_comes_back",
    }
)
"""The proofs that weigh in a verdict: what bears on another one is a note."""
NO_VLLM = "vLLM is not installed in the engine's Python"
ODD_VERSION = "vLLM's version is not understood: {version}"
APPLIES = "known of vLLM {version}: {issues}"
NONE_APPLIES = "no known issue of vLLM {version} speaks against it{may}"
OTHERS = "vLLM {version} has other known issues: {issues}"
NO_OTHERS = "no other known issue of vLLM {version} applies"
MAY: Final = "; some depend on more than is known here: {names}"
WHY: Final = """Paper: what is known to break in this version of vLLM, with these flags, on this {what}.

An issue counts only where its version and all its conditions are known to match. Each has its workaround and source.

Remedy: see-known-issues
Remedy: newer-vllm
{more}Source: warmspare's known_issues.toml, the rows that bear on {proof}.
"""
MORE: Final = {"sleep_cycles_hold": "Remedy: enable-pinning-under-wsl2\n"}
"""Remedies of rows' own."""


@unless(plan_is_of_a_server)
def other_known_issues_do_not_apply(packages: PythonPackages, platform: Platform, plan: EnginePlan) -> Finding:
    """What is known of this version of vLLM beyond what weighs here: level 2, requests in flight, a wake without room.

    Remedy: see-known-issues
    Source: warmspare's known_issues.toml.
    """
    version = version_of(packages.vllm)
    if version is None:
        return _no_version(packages)
    rows = [row for row in all_issues() if row.bears_on not in WEIGHING]
    found = matching(rows, version, meant_by(packages, platform, plan))
    if applying := tuple(match.issue.id for match in found if match.applies):
        return unmet(OTHERS, version=packages.vllm, issues=applying, remedy="see-known-issues")
    return met(NO_OTHERS, version=packages.vllm)


def meant_by(packages: PythonPackages, platform: Platform, plan: EnginePlan) -> Meant:
    """What is known of the engine that is meant; without a word, a model made on the spot and no flags."""
    return Meant(
        flags=plan.flags,
        level=plan.level,
        made=plan.model is None,
        platform=platform.kind,
        rocm=None if packages.torch is None else packages.torch_hip is not None,
        pins=packages.vllm_pins,
    )


def _paper(proof: str) -> Requirement:
    """The paper of one proof."""

    def paper(packages: PythonPackages, platform: Platform, plan: EnginePlan) -> Finding:
        rows = [row for row in all_issues() if row.bears_on == proof and row.when.gpu is None]
        return _judged(rows, packages, meant_by(packages, platform, plan))

    return _named(paper, f"{proof}_by_known_issues", "machine", proof)


def _paper_of_a_gpu(proof: str) -> Requirement:
    """The paper of those rows that ask for a kind of GPU."""

    def paper(packages: PythonPackages, platform: Platform, plan: EnginePlan, identity: Each[GpuIdentity]) -> Finding:
        rows = [row for row in all_issues() if row.bears_on == proof and row.when.gpu is not None]
        meant = msgspec.structs.replace(meant_by(packages, platform, plan), gpus=(identity.name,))
        return _judged(rows, packages, meant)

    return _named(paper, f"{proof}_by_known_issues_of_the_gpu", "kind of GPU", proof)


def _named(paper: Requirement, name: str, what: str, proof: str) -> Requirement:
    paper.__name__ = paper.__qualname__ = name
    paper.__doc__ = WHY.format(what=what, more=MORE.get(proof, ""), proof=proof)
    return paper


def _judged(rows: list[Issue], packages: PythonPackages, meant: Meant) -> Finding:
    version = version_of(packages.vllm)
    if version is None:
        return _no_version(packages)
    matches = matching(rows, version, meant)
    if applying := [match.issue for match in matches if match.applies]:
        issues = tuple(f"{issue.symptom} ({issue.id})" for issue in applying)
        return unmet(APPLIES, version=packages.vllm, issues=issues, remedy=applying[0].what_to_do)
    return met(NONE_APPLIES, version=packages.vllm, may=_may(matches))


def _no_version(packages: PythonPackages) -> Finding:
    """Without vLLM there is nothing to look up, which another requirement says with its remedy."""
    if packages.vllm is None:
        return not_applicable(NO_VLLM)
    return undecided(ODD_VERSION, version=packages.vllm, remedy="see-known-issues")


def _may(matches: tuple[Match, ...]) -> str:
    return MAY.format(names=", ".join(match.issue.id for match in matches)) if matches else ""


sleep_cycles_hold_by_known_issues = unless(plan_is_of_a_server)(_paper("sleep_cycles_hold"))
sleep_cycles_hold_by_known_issues_of_the_gpu = unless(plan_is_of_a_server)(_paper_of_a_gpu("sleep_cycles_hold"))
requests_survive_sleep_by_known_issues = unless(plan_is_of_a_server)(_paper("requests_survive_sleep"))
data_parallel_sleeps_by_known_issues = arises_if(plan_has_data_parallelism)(_paper("data_parallel_sleeps"))
tensor_parallel_sleeps_by_known_issues = arises_if(plan_has_tensor_parallelism)(_paper("tensor_parallel_sleeps"))
the_level_used_comes_back_by_known_issues = arises_if(plan_has_level_2)(_paper("the_level_used_comes_back"))
