"""Point-in-time queries: checks that a day is past and that its history is recorded."""

from datetime import date

from graph.errors import InvalidArgument, NoHistory
from graph.execution.operation import Operation


async def check_day(operation: Operation, argument: str, day: date) -> date:
    """Return today's date in UTC; raise InvalidArgument for a future day, NoHistory if no history is recorded."""
    row = await operation.load_row("past_days", day)
    assert row  # noqa: S101 - the statement returns one row for any day
    today: date = row["today"]
    operation.day = min(operation.day or today, today)
    if day > today:
        raise InvalidArgument(f"{argument}: {day} is yet to come; today is {today}, in UTC.")
    if not row["kept"]:
        raise NoHistory(
            "This database does not keep the history of its groups; `stockgraph init` begins one, unless a subscription"
            " writes them."
        )
    if row["unhidden"]:
        raise NoHistory(
            "Row security hides rows of the groups from this server, and their history has no policy: past days are not"
            " answered until `group_history` and `membership_history` have one."
        )
    return today


def check_since(name: str, since: date | None, day: date) -> None:
    """Raise NoHistory for a day before the first known day of a group."""
    if since and day < since:
        raise NoHistory(f"Of the group {name} nothing is known before {since}.", group=name, since=since.isoformat())
