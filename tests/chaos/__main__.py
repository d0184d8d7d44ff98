"""`python -m tests.chaos [FAULT …] [--seeds N]`: inject faults into a real system and judge it."""

import argparse
import asyncio
import logging
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.chaos.broker import Services
from tests.chaos.faults import CAUGHT_BY, FAULTS, NOT_INJECTED, ONE_KILL, SHOWN_BY, SMOKE, Fault
from tests.chaos.report import line, write_report
from tests.chaos.results import FOLDER, save
from tests.chaos.run import Round, run_round


def main() -> int:
    """Return 0 where every invariant held, else 1; with a mutation the other way round."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--seeds", type=int, default=1, help="rounds of each fault")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help=f"only {', '.join(SMOKE)}")
    parser.add_argument("--mutation", choices=tuple(CAUGHT_BY), help="break the worker on purpose")
    parser.add_argument("--folder", type=Path, help="where everything is kept")
    parser.add_argument("--save", action="store_true", help=f"add the rounds to those in {FOLDER}")
    arguments = parser.parse_args()
    if arguments.save and arguments.mutation:
        parser.error("--save keeps rounds of the worker as it is, not of one that was made wrong")
    faults = dict(FAULTS)
    names = arguments.faults or (SMOKE if arguments.smoke else tuple(FAULTS))
    if arguments.mutation and not arguments.faults:
        faults["kill"] = ONE_KILL
        names = (SHOWN_BY.get(arguments.mutation, "kill"),)
    for name in names:
        if name in NOT_INJECTED:
            parser.error(f"{name} cannot be injected here: {NOT_INJECTED[name]}")
        if name not in faults:
            parser.error(f"no fault {name}; there are {', '.join(FAULTS)}")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    environment = {"CHAOS_MUTATION": arguments.mutation} if arguments.mutation else {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is stopped, too
    logging.getLogger("aiokafka").setLevel(
        logging.CRITICAL
    )  # it tells of each fault a hundred times
    with Services(folder / "services") as services:
        rounds = asyncio.run(
            _run(
                services,
                folder,
                {n: faults[n] for n in names},
                seeds,
                environment,
                to_save=arguments.save,
            )
        )
    print(f"report: {write_report(rounds, folder)}")
    if arguments.mutation:
        return int(not all(_caught(each, CAUGHT_BY[arguments.mutation]) for each in rounds))
    return int(not all(each.holds for each in rounds))


def _caught(round_: Round, invariant: str) -> bool:
    return round_.verdict is not None and bool(round_.verdict.violations.get(invariant))


async def _run(
    services: Services,
    folder: Path,
    faults: Mapping[str, Fault],
    seeds: range,
    environment: dict[str, str],
    *,
    to_save: bool,
) -> list[Round]:
    rounds = []
    for seed in seeds:
        for name, fault in faults.items():
            done = await run_round(
                name,
                fault,
                seed,
                services,
                folder / f"{name}-{seed}",
                environment=environment,
            )
            rounds.append(done)
            print(line(done), flush=True)
            write_report(rounds, folder)
            if to_save:
                save([done])
    return rounds


if __name__ == "__main__":
    sys.exit(main())
