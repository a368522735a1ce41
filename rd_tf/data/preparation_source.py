"""What a preparation tells of itself: the manifest's "source", the printed summary, the last error."""

from typing import Any


def filters_of(
    *,
    time_unit: str,
    duplicates: str,
    min_user_items: int,
    min_item_users: int,
    skip_bad_rows: bool,
    rows_read: int,
    skipped: dict[str, int],
    first_skipped: str,
    duplicates_dropped: int,
    k_core_rounds: int,
    k_core_rows_dropped: int,
) -> dict[str, Any]:
    """What the manifest's "source" holds of reading and filtering.

    Args:
        time_unit: what a timestamp counts, in words.
        duplicates: the flag.
        min_user_items: the flag.
        min_item_users: the flag.
        skip_bad_rows: the flag.
        rows_read: rows that can be used and others.
        skipped: from a reason to the number of rows left out.
        first_skipped: where the first of them stands; empty if there is none.
        duplicates_dropped: rows.
        k_core_rounds: passes in which something was dropped.
        k_core_rows_dropped: rows.
    """
    skipped_rows: dict[str, Any] = {"count": sum(skipped.values()), "reasons": skipped}
    if first_skipped:
        skipped_rows["first"] = first_skipped
    return {
        "time_unit": time_unit,
        "duplicates": duplicates,
        "min_user_items": min_user_items,
        "min_item_users": min_item_users,
        "skip_bad_rows": skip_bad_rows,
        "rows_read": rows_read,
        "skipped_rows": skipped_rows,
        "duplicates_dropped": duplicates_dropped,
        "k_core_rounds": k_core_rounds,
        "k_core_rows_dropped": k_core_rows_dropped,
    }


def nothing_left(source: dict[str, Any]) -> str:
    """What to say where no row remains."""
    read, skipped, dropped = source["rows_read"], source["skipped_rows"]["count"], source["k_core_rows_dropped"]
    if read == skipped:
        return f"--input: no row can be used ({read} read, {skipped} of them bad); give files that hold check-ins"
    return (
        f"nothing remains: --min_user_items={source['min_user_items']} and --min_item_users={source['min_item_users']}"
        f" drop all {dropped} rows; lower them"
    )


def summary(manifest: dict[str, Any], dataset: str) -> str:
    """What a preparation prints in the end."""
    source = manifest["source"]
    skipped = source["skipped_rows"]
    lines = [f"rows read           {source['rows_read']:,}", f"bad rows skipped    {skipped['count']:,}"]
    lines += [f"  {reason}: {count:,}" for reason, count in skipped["reasons"].items()]
    if "first" in skipped:
        lines.append(f"  the first: {skipped['first']}")
    lines += [
        f"duplicates dropped  {source['duplicates_dropped']:,} ({source['duplicates']})",
        f"k-core              {source['k_core_rounds']} rounds, {source['k_core_rows_dropped']:,} rows dropped",
        f"users               {manifest['users']:,}",
        f"items               {manifest['items']:,}",
        f"interactions        {manifest['interactions']:,}",
        f"fingerprint         {manifest['fingerprint'][:16]}",
        f"dataset             {dataset}",
    ]
    return "\n".join(lines)
