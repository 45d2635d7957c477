"""The overview of paid jobs on the command line: `python -m cosmos_predict25.fal jobs`."""

import argparse
import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import CosmosError, InvalidRequestError
from .budget import in_dollars, spent_today
from .journal import Charge, JobState, Journal, Record
from .past_jobs import fetch_past_jobs, past_jobs

PACK = Path(__file__).absolute().parents[2]
DESCRIPTION = "The jobs on fal that you paid for."
EPILOG = (
    "By default, the folders are those of the ComfyUI with this pack, or of the one in the current folder. Give "
    "--comfyui for another one, or --records and --videos for the folders that your own program passed to fal.generate."
)


@dataclass(frozen=True)
class Folders:
    """`records`: of the journal. `videos`: of finished files."""

    records: Path
    videos: Path


def main(arguments: Sequence[str] | None = None) -> str | None:
    """Run the command, and return what went wrong, if anything did."""
    options = parser().parse_args(arguments)
    try:
        folders = folders_of(options)
        options.run(options, Journal(folders.records), folders.videos)
    except CosmosError as error:
        return str(error)
    except KeyboardInterrupt:
        return "Stopped. The jobs continue at fal: run fetch again for their videos."
    return None


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser("cosmos_predict25.fal", description=DESCRIPTION, epilog=EPILOG)
    commands = found.add_subparsers(required=True, metavar="COMMAND")
    jobs = commands.add_parser("jobs", help="list all jobs, and the sums of days and months", epilog=EPILOG)
    fetch = commands.add_parser("fetch", help="fetch the videos of unfinished jobs; sends no new job", epilog=EPILOG)
    forget = commands.add_parser(
        "forget", help="forget a job that is over or lost, so that the same values send a new one", epilog=EPILOG
    )
    forget.add_argument("id", metavar="ID", help="the start of the record's name or of the request id")
    for command, run in ((jobs, list_jobs), (fetch, fetch_jobs), (forget, forget_job)):
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="print JSON")
        command.add_argument("--comfyui", type=Path, help="ComfyUI's folder, with user and output in it")
        command.add_argument("--records", type=Path, help="the folder of the records of jobs")
        command.add_argument("--videos", type=Path, help="the folder of finished videos")
    return found


def folders_of(options: argparse.Namespace) -> Folders:
    """Return the folders to look in. Raises `InvalidRequestError` where there are no records."""
    base = options.comfyui or (PACK.parents[1] if PACK.parent.name == "custom_nodes" else Path.cwd())
    records = options.records or base / "user" / "__cosmos_predict25" / "fal_jobs"
    if not records.is_dir():
        raise InvalidRequestError(f"There is no folder {records}: give --comfyui, or --records and --videos.")
    return Folders(records, options.videos or base / "output" / "cosmos_fal")


def list_jobs(options: argparse.Namespace, journal: Journal, videos: Path) -> None:
    records = journal.records()
    rows = [row for record in records for row in rows_of(record, videos)]
    rows.sort(key=lambda row: row["date"])
    days, months = sums(rows, len("2026-01-31")), sums(rows, len("2026-01"))
    if options.json:
        print(
            json.dumps(
                {"jobs": rows, "days": days, "months": months, "today": round(spent_today(journal), 6)}, indent=1
            )
        )
        return
    for row in rows:
        names = (row["date"], row["endpoint"].split("/", 2)[-1], f"seed {row['seed']}", row["state"])
        print(
            "  ".join((*names, in_dollars(row["price"]), row["request_id"] or "no request id", row["id"], row["file"]))
        )
    for name, totals in (("Day", days), ("Month", months)):
        for period, total in totals.items():
            print(f"{name} {period}: {in_dollars(total)}")
    if not rows:
        print("There are no jobs.")
    if unread := len(list(journal.folder.glob("*.json"))) - len(records):
        print(f"{unread} records in {journal.folder} cannot be read.")


def rows_of(record: Record, videos: Path) -> list[dict[str, Any]]:
    """Return a row for each job of a video; only the last one can have its file."""
    files = sorted(videos.glob(f"cosmos_{record.seed}_{record.fingerprint[:12]}.*"))
    shared = [Charge(record.created, 0, 0, record.request_id)] if record.is_shared else []
    charges, rows = record.all_charges() or shared, []
    for charge in charges:
        is_last = charge is charges[-1] and charge.request_id not in record.past_ids
        state = record.state if is_last or charge.request_id is None else JobState.ENDED
        date = datetime.fromtimestamp(charge.at).isoformat(" ", "seconds")
        rows.append(
            {
                "date": date,
                "endpoint": record.endpoint,
                "seed": record.seed,
                "state": state.value,
                "price": charge.price,
                "request_id": charge.request_id,
                "id": record.fingerprint,
                "file": str(files[0]) if files and is_last else "",
            }
        )
    return rows


def sums(rows: list[dict[str, Any]], length: int) -> dict[str, float]:
    """Return the dollars by the first `length` characters of the date."""
    found: dict[str, float] = defaultdict(float)
    for row in rows:
        found[row["date"][:length]] += row["price"]
    return {period: round(total, 6) for period, total in found.items()}


def fetch_jobs(options: argparse.Namespace, journal: Journal, videos: Path) -> None:
    def announce(text: str) -> None:
        if not options.json:
            print(text, flush=True)

    count = len(past_jobs(journal))
    announce(f"{count} unfinished jobs." if count else "There is no unfinished job.")
    found = asyncio.run(fetch_past_jobs(journal, videos, announce=announce))
    if options.json:
        print(json.dumps([{"file": str(video.path), "seed": video.seed} for video in found], indent=1))


def forget_job(options: argparse.Namespace, journal: Journal, videos: Path) -> None:
    """Let the same values send a new job. What the old one may have cost stays counted."""
    record = record_of(options.id, journal)
    if journal.is_claimed(record.fingerprint):
        raise InvalidRequestError("A run works on this job: stop it, and try again.")
    if record.request_id:
        record.past_ids.append(record.request_id)
    record.request_id = record.status_url = record.response_url = record.cancel_url = None
    record.result = record.refusal = None
    record.state, record.is_adopted, record.is_shared = JobState.ENDED, False, False
    journal.save(record)
    text = f"Forgotten: the same values with seed {record.seed} send a new job, which is a new charge."
    print(json.dumps({"forgotten": record.fingerprint}) if options.json else text)


def record_of(name: str, journal: Journal) -> Record:
    """Return the record whose name or request id begins so. Raises `InvalidRequestError` unless there is just one."""
    found = [
        record
        for record in journal.records()
        if any(each and each.startswith(name) for each in (record.fingerprint, record.request_id, *record.past_ids))
    ]
    if len(found) != 1:
        raise InvalidRequestError(f"{len(found)} jobs have an ID that begins with {name!r}: see the list of jobs.")
    return found[0]
