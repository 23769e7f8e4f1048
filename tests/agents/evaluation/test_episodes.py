"""Which episodes are judged."""

import pytest

from agents.errors import UserError
from agents.evaluation.episodes import Job, choose_regions, evaluation_seed, list_jobs
from agents.training.validation import environment_seed

REGIONS = {"training": [{"gravity": 5.0}, {"gravity": 6.0}], "extrapolation": [{"gravity": 50.0}]}


def test_jobs_are_regions_times_contexts_times_episodes():
    jobs = list_jobs(REGIONS, 3, seed=7)
    assert [(job.region, job.context_id) for job in jobs] == (
        [("training", 0)] * 3 + [("training", 1)] * 3 + [("extrapolation", 0)] * 3
    )
    assert jobs[4] == Job("training", 1, {"gravity": 6.0}, evaluation_seed(7, "training", 1, 1))
    assert len({job.seed for job in jobs}) == 9
    assert all(2**31 <= job.seed < 2**32 for job in jobs)


def test_seeds_depend_on_nothing_but_their_place():
    few = list_jobs({"extrapolation": REGIONS["extrapolation"]}, 2, seed=7)
    many = list_jobs(REGIONS, 5, seed=7)
    assert [job for job in many if job.region == "extrapolation"][:2] == few
    assert {job.seed for job in few}.isdisjoint(job.seed for job in list_jobs(REGIONS, 2, seed=8))


def test_no_training_or_validation_episode_has_a_judged_seed():
    drawn = [environment_seed(0, stream, n) for stream in ("environment", "validation") for n in range(500)]
    assert max(drawn) < 2**31 <= min(job.seed for job in list_jobs(REGIONS, 50, seed=0))


def test_chosen_regions_keep_their_order():
    assert list(choose_regions(REGIONS, ["extrapolation", "training"], "r")) == ["training", "extrapolation"]
    assert choose_regions(REGIONS, None, "r") == REGIONS


def test_mistakes_are_one_line():
    with pytest.raises(UserError, match=r"unknown region 'interpol': run runs/x has training, extrapolation"):
        choose_regions(REGIONS, ["training", "interpol"], "runs/x")
    with pytest.raises(UserError, match="no region"):
        choose_regions(REGIONS, [], "runs/x")
    with pytest.raises(UserError, match="episodes is 0, but must be at least 1"):
        list_jobs(REGIONS, 0, seed=7)
