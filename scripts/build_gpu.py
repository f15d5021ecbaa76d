"""Make runs in wide stacks on one GPU.

    python scripts/build_gpu.py list JOBS --of smollm2=STORE [--of lab=STORE ...] [--processes smollm2=4]
    python scripts/build_gpu.py make JOBS FOLDER [--seconds 480 --questions FOLDER]

``list`` writes which runs of the plans of build_lab.py and build_smollm2.py a store lacks, shared out to
processes, so that they can be made elsewhere. ``make`` starts a process for each share: it trains all of its
runs side by side, as many as its width says, the next one taking the place of one that ended. What is
finished after so many seconds, or once there is a file ``stop`` in the scratch folder, is archived as
FOLDER/SHARE, of the form of meta/BASE. ``add ARCHIVE STORE`` takes such an archive into a store. Static
features are measured where the store is, not on the GPU's machine.

Few processes in wide stacks: a pass of 64 runs takes little longer than one of a single run, but processes
take turns on a GPU. On an H200 one process made a step of 64 runs on SmolLM2 in 0.4 s; with 17 processes
beside each other a step of 40 runs took nearly 4 s.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from tuneahead.build.execute import row_characters
from tuneahead.build.plan import RunPlan, lab_plan, recipe_rounds, runs_of, task_id_of, with_test_seeds
from tuneahead.build.questions import QuestionSpec
from tuneahead.build.smollm2 import smollm2_plan, without_absent
from tuneahead.build.worker import ONE_THREAD, final_benchmarks, record_of, run_chunk, score_settings
from tuneahead.errors import MemoryShortError
from tuneahead.history.archive import restore, write_archive
from tuneahead.history.store import RunStore
from tuneahead.training.models import load_base

META = Path(__file__).parents[1] / "meta"
DATASETS, RECIPES = 883, 6
"""Of the lab's whole plan, of which a base gets the tasks begun and the first ones on further data sets."""
FURTHER = {"lab": 883, "lab-llama": 340, "lab-gemma3": 390, "lab-proxy": 883}
SMOLLM2_DATASETS, SMOLLM2_RECIPES = 200, 3
ROWS_AT_ONCE = {("smollm2", False): 512, ("smollm2", True): 256}
"""Of a process's pass; real questions are longer."""
LAB_ROWS_AT_ONCE = 1536


def plan_of(base: str, questions: str = "") -> list[RunPlan]:
    """Every run that could be made on a base, in the order in which they are made."""
    if base == "smollm2":
        plan = smollm2_plan(SMOLLM2_DATASETS, SMOLLM2_RECIPES, questions)
        return runs_of(without_absent(plan, questions)[0] if questions else plan)
    rounds = recipe_rounds(lab_plan(DATASETS, RECIPES), RECIPES)
    return runs_of(with_test_seeds(rounds) if base == "lab" else rounds)


def shown_name(base: str) -> str:
    """The name that a base's runs bear."""
    return "lab-qwen2" if base == "lab" else base


def missing_of(base: str, stores: dict[str, Path]) -> list[RunPlan]:
    """What a base's store lacks of the tasks begun (the proxy: on the main base too) and of further ones."""
    done = RunStore(stores[base]).done_ids()
    plan = plan_of(base)
    if base in FURTHER:
        begun = done | (RunStore(stores["lab"]).done_ids() if base == "lab-proxy" else set())
        wanted = {task_id_of(run_id) for run_id in begun}
        wanted |= {run.task.task_id for run in plan[: FURTHER[base]]}
        plan = [run for run in plan if run.task.task_id in wanted]
    return [run for run in plan if run.run_id(shown_name(base)) not in done]


def together(base: str, missing: Sequence[RunPlan]) -> list[dict[str, object]]:
    """All runs on generated data in one stack and all on real questions in another, longest rows or not.

    On a large base a step's cost is hardly the rows': the wider, the fewer steps are made.
    """
    found: list[dict[str, object]] = []
    for real in (False, True):
        runs = [run for run in missing if isinstance(run.task.spec, QuestionSpec) == real]
        if runs:
            found.append(_share(base, runs, len(runs)))
    return found


def _share(base: str, runs: Sequence[RunPlan], width: int) -> dict[str, object]:
    # First seeds first, and the longest runs first: the short ones fill the places at the end.
    ordered = sorted(runs, key=lambda run: (run.seed > 0, -(run.recipe.max_steps or 0)))
    return {"base": base, "runs": [run.run_id(shown_name(base)) for run in ordered], "width": width}


def shares(base: str, missing: Sequence[RunPlan], processes: int) -> list[dict[str, object]]:
    """Runs of one batch size and of rows of like length together, equal work for each process."""
    if not missing:
        return []
    groups: dict[tuple[bool, int], list[RunPlan]] = {}
    for run in missing:
        groups.setdefault((isinstance(run.task.spec, QuestionSpec), run.recipe.batch_size), []).append(run)
    given = dict.fromkeys(groups, 1)
    for _ in range(processes - len(groups)):
        given[max(groups, key=lambda kind: sum(map(_work, groups[kind])) / given[kind])] += 1
    found: list[dict[str, object]] = []
    for (real, rows), runs in groups.items():
        if not real:
            runs.sort(key=lambda run: row_characters(run.task.spec))
        parts: list[list[RunPlan]] = [[] for _ in range(given[real, rows])]
        whole, before = sum(map(_work, runs)), 0.0
        for run in runs:
            parts[int(before / whole * len(parts))].append(run)
            before += _work(run)
        most = ROWS_AT_ONCE.get((base, real), LAB_ROWS_AT_ONCE) // rows
        found += [_share(base, part, most) for part in parts]
    return found


def _work(run: RunPlan) -> float:
    # What a step costs beside its rows, per run, is some ten rows' worth.
    return (run.recipe.max_steps or 0) * (10 + run.recipe.batch_size)


def make(jobs: Path, folder: Path, given: argparse.Namespace) -> None:
    """Start the processes, wait, end them and archive what they stored."""
    found = json.loads(jobs.read_text(encoding="utf-8"))
    began = time.monotonic()
    workers: dict[int, subprocess.Popen[bytes]] = {}
    waiting = [n for n, share in enumerate(found) if share["base"] in given.only or not given.only]
    environment = {**os.environ, **ONE_THREAD, "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    while time.monotonic() - began < given.seconds and not (given.scratch / "stop").exists():
        running = sum(worker.poll() is None for worker in workers.values())
        if waiting and running < given.at_once:
            number = waiting.pop(0)
            options = ["--share", str(number), "--questions", given.questions]
            command = [sys.executable, __file__, "work", str(jobs), str(given.scratch), *options]
            log = (given.scratch / f"share-{number}.log").open("wb")
            workers[number] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        elif running:
            time.sleep(1)
        else:
            break
    for number, worker in workers.items():
        if worker.poll():
            print(f"share {number} ended with {worker.returncode}: {given.scratch / f'share-{number}.log'}")
        worker.kill()
        worker.wait()
    with ThreadPoolExecutor(len(workers) or 1) as pool:
        # A process each: compressing takes longest.
        parts = [
            [sys.executable, __file__, "pack", str(given.scratch / f"share-{n}.sqlite"), str(folder / str(n))]
            for n in workers
        ]
        list(pool.map(subprocess.run, parts))
    print(f"{time.monotonic() - began:.0f} s", flush=True)


def work(jobs: Path, scratch: Path, number: int, questions: str) -> None:
    """One process: its share of the runs, all in one stack; each is stored as it ends."""
    from tuneahead.training.scoring import score_benchmark

    share = json.loads(jobs.read_text(encoding="utf-8"))[number]
    name = share["base"]
    folder = META / "bases" / name
    base = load_base(str(folder) if folder.is_dir() else name)
    planned = {run.run_id(base.name): run for run in plan_of(name, questions)}
    runs = [planned[run_id] for run_id in share["runs"] if run_id in planned]
    store = RunStore(scratch / f"share-{number}.sqlite")
    scores = {b.name: score_benchmark(base, b).score_pp for b in final_benchmarks(base)}
    print(f"{base.name} {base.fingerprint} on {base.device} in {base.dtype}, {len(runs)} runs", flush=True)
    torch.set_num_threads(1)
    began, steps = time.monotonic(), 0

    def count(made: int) -> None:
        nonlocal steps
        steps += made
        if steps // 2000 > (steps - made) // 2000:
            held = torch.cuda.max_memory_reserved() / 2**30 if base.device == "cuda" else 0.0
            print(f"{steps} steps in {time.monotonic() - began:.0f} s, {held:.1f} GiB", flush=True)

    settings = score_settings() if name == "lab-proxy" else None
    width = share["width"]
    while left := [run for run in runs if run.run_id(base.name) not in store.done_ids()]:
        try:
            for run, result in run_chunk(base, left, width, count, settings=settings):
                store.add(record_of(base, run, result, scores))
        except MemoryShortError as error:
            # Other processes' needs come and go: what did not fit is tried once more in a narrower stack.
            print(f"{len(left)} runs left: {error}", flush=True)
            width //= 2
            if not width:
                raise
        # Outside the handler, whose traceback would keep the stack in memory.
        torch.cuda.empty_cache()
    print(f"{len(store)} runs in {time.monotonic() - began:.0f} s", flush=True)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("list", "make", "work", "pack", "add"))
    parser.add_argument("jobs", type=Path)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--of", action="append", default=[], metavar="BASE=STORE")
    parser.add_argument("--processes", action="append", default=[], metavar="BASE=N")
    parser.add_argument("--together", action="store_true", help="all in stacks as wide as memory allows")
    parser.add_argument("--only", action="append", default=[], metavar="BASE")
    parser.add_argument("--share", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=2, help="processes at a time")
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--questions", default="")
    parser.add_argument("--scratch", type=Path, help="folder of stores and logs (default: a new one)")
    given = parser.parse_args()
    given.scratch = given.scratch or Path(tempfile.mkdtemp())
    if given.what == "list":
        processes = {name: int(count) for name, count in (pair.split("=") for pair in given.processes)}
        stores = {name: Path(path) for name, path in (pair.split("=", 1) for pair in given.of)}
        found = []
        for name in stores:
            missing = missing_of(name, stores)
            found += (
                together(name, missing) if given.together else shares(name, missing, processes.get(name, 1))
            )
        given.jobs.write_text(json.dumps(found), encoding="utf-8")
        for share in found:
            print(share["base"], len(share["runs"]), "runs,", share["width"], "at once")  # type: ignore[arg-type]
    elif given.what == "make":
        make(given.jobs, given.folder, given)
    elif given.what == "work":
        work(given.jobs, given.folder, given.share, given.questions)
    elif given.what == "pack":
        store = RunStore(given.jobs)
        if len(store):
            print(f"{write_archive(store, given.folder)} runs in {given.folder}", flush=True)
    else:
        store = RunStore(given.folder)
        print(f"{restore(given.jobs, store)} runs added, {len(store)} in the store")


if __name__ == "__main__":
    main()
