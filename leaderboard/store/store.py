"""The store of entries. Invariant: an entry is stored completely (its bundle, its results, its state) or not at all, and once;
its episodes never change, only its state does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from cotbench.envs.groups import overall_groups
from cotbench.errors import DuplicateEntryError, SubmissionError, UnknownNameError
from cotbench.leaderboard.store.board import Board, boards_of
from cotbench.leaderboard.store.copies import add_copies, overlaps_of
from cotbench.leaderboard.store.database import Database
from cotbench.leaderboard.store.entry import Candidate, Entry, State, results_of
from cotbench.leaderboard.store.rows import candidate_of, entries_of, require_own_spelling
from cotbench.leaderboard.store.schema import bundles, changes, copies, entries, results, storable_text
from cotbench.leaderboard.store.tokens import TokenRow, TokenTable
from cotbench.leaderboard.submission.bundle import Bundle, repack, unpack
from cotbench.leaderboard.submission.checks import check
from cotbench.leaderboard.submission.details import Details
from cotbench.leaderboard.submission.model_facts import model_facts
from cotbench.leaderboard.submission.sequences import mode_notes, sequences_of
from cotbench.leaderboard.verification.difference import Difference
from cotbench.leaderboard.verification.expert_share import ExpertShare
from cotbench.leaderboard.verification.reproduction import Reproduction
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.runs.summary import summarize

ID_DIGITS = 12
_HEAVY = ("summary", "difference", "settled_with", "notes")
_NEAR = 200
"""Ids among which near matches of an unknown one are sought."""


@dataclass(slots=True, eq=False)
class Store:
    """A leaderboard's database.

    Attributes:
        views: a cache of computed boards, each with the value of `changes()` that it was computed at.
    """

    database: Database
    views: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, where: str | Path) -> Self:
        """Open a leaderboard, new or not: a file (SQLite) or a URL (PostgreSQL).

        Raises:
            StoreError: it cannot be opened.
        """
        return cls(Database(where))

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def add(self, bundle: Bundle, unranked: tuple[str, ...], data: bytes) -> tuple[Entry, bool]:
        """Store a submission that was checked. When this returns, it is on the disk.

        Args:
            bundle: the submission.
            unranked: why it has no rank.
            data: the bundle's bytes.

        Returns:
            The entry, and whether it is new: the same submission is there once, however often it is sent.

        Raises:
            DuplicateEntryError: the same episodes are there under another name.
            SubmissionError: its team looks like another one.
        """
        manifest = bundle.manifest
        summary = summarize(bundle.episodes, manifest, bundle.price)
        sequences = sequences_of(bundle.episodes)
        row = {
            "id": bundle.digest[:ID_DIGITS],
            "digest": bundle.digest,
            **bundle.details.model_dump(),
            "submitted": _now(),
            "state": "pending",
            "unranked": json.dumps(unranked),
            "notes": json.dumps(mode_notes(sequences, bundle.episodes)),
            "env": manifest.config.env,
            "scheme": manifest.config.scheme,
            "split": manifest.config.split,
            "mode": manifest.config.mode,
            "agent": manifest.config.agent,
            "tasks": len(manifest.task_list),
            "fingerprint": manifest.elicitation_fingerprint if manifest.uses_elicitation else "",
            "summary": summary.model_dump_json(),
        }
        model = model_facts(manifest.config.agent, manifest.agent)
        reached = results_of(manifest.task_list, bundle.episodes, summary, model)
        try:
            with self.database.writing() as connection:
                _count(connection)  # First: whoever writes holds this row, so no two entries miss each other.
                require_own_spelling(connection, bundle.details.team)
                inserted = connection.execute(entries.insert().values(row))
                number = inserted.inserted_primary_key[0] if inserted.inserted_primary_key is not None else None
                rows = [
                    {
                        "number": number,
                        "mode": mode,
                        "result": one.model_dump_json(),
                        "sequences": " ".join(sorted(sequences.get(mode, ()))),
                    }
                    for mode, one in reached.items()
                ]
                connection.execute(results.insert(), rows)
                connection.execute(bundles.insert().values(number=number, data=data))
                add_copies(connection, int(number or 0), sequences)
        except IntegrityError:
            return self._there_already(bundle), False
        return self.entry(row["id"]), True

    def _there_already(self, bundle: Bundle) -> Entry:
        with self.database.reading() as connection:
            found = connection.execute(sql.select(entries).where(entries.c.digest == bundle.digest)).mappings().first()
            entry = entries_of(connection, [found])[0] if found is not None else None
        if entry is None:
            raise SubmissionError(
                f"the id {bundle.digest[:ID_DIGITS]} belongs to another entry: play the run with another seed"
            )
        if entry.details != bundle.details:
            raise DuplicateEntryError(entry.id, entry.details.name)
        return entry

    def entry(self, id: str) -> Entry:
        """Return an entry.

        Raises:
            UnknownNameError: there is none of that id.
        """
        with self.database.reading() as connection:
            return entries_of(connection, [self._row(connection, id)])[0]

    def _row(self, connection: sql.Connection, id: str) -> sql.RowMapping:
        found = connection.execute(sql.select(entries).where(entries.c.id == storable_text(id))).mappings().first()
        if found is None:
            newest = sql.select(entries.c.id).order_by(entries.c.number.desc()).limit(_NEAR)
            raise UnknownNameError("entry", id[:100], connection.execute(newest).scalars())
        return found

    def bundle(self, id: str) -> bytes:
        """Return an entry's bundle, as it was stored.

        Raises:
            UnknownNameError: there is no entry of that id.
        """
        with self.database.reading() as connection:
            number = self._row(connection, id)["number"]
            data: bytes = connection.execute(sql.select(bundles.c.data).where(bundles.c.number == number)).scalar_one()
        return bytes(data)

    def entries(self, state: State | None = None, limit: int | None = None, offset: int = 0) -> list[Entry]:
        """Return the entries, newest first.

        Args:
            state: of the entries; None: all.
            limit, offset: how many, after how many newer ones.
        """
        chosen = sql.select(entries).order_by(entries.c.number.desc()).limit(limit).offset(offset)
        if state is not None:
            chosen = chosen.where(entries.c.state == state)
        with self.database.reading() as connection:
            return entries_of(connection, connection.execute(chosen).mappings().all())

    def count(self, state: State | None = None) -> int:
        """Return how many entries there are, of a state or of all."""
        counted = sql.select(sql.func.count()).select_from(entries)
        if state is not None:
            counted = counted.where(entries.c.state == state)
        with self.database.reading() as connection:
            return int(connection.execute(counted).scalar_one())

    def settle(
        self,
        id: str,
        difference: Difference | None,
        *,
        with_versions: Mapping[str, str],
        expert: Sequence[ExpertShare] = (),
    ) -> Entry:
        """Store the outcome of a replay: `replayed` where there is no difference, else `rejected`.

        Args:
            id: the entry's.
            difference: the first one that the replay found.
            with_versions: the versions of packages and data that it was replayed with.
            expert: how much of it is the expert's.

        Raises:
            UnknownNameError: there is no entry of that id.
        """
        return self._update(
            id,
            state="replayed" if difference is None else "rejected",
            difference=difference.model_dump_json() if difference is not None else None,
            unchecked=None,
            settled=_now(),
            settled_with=json.dumps(dict(with_versions), sort_keys=True),
            expert=json.dumps([one.model_dump(mode="json") for one in expert]),
        )

    def give_up(self, id: str, why: str) -> Entry:
        """Store that a replay was not finished: the entry is `unchecked`, whatever it was before.

        Args:
            id: the entry's.
            why: in words: "it took longer than ...".

        Raises:
            UnknownNameError: there is no entry of that id.
        """
        return self._update(
            id, state="unchecked", difference=None, unchecked=why, settled=_now(), settled_with=None, expert=None
        )

    def reproduce(self, id: str, reproduction: Reproduction) -> Entry:
        """Store the outcome of a rerun; the newest one counts.

        Raises:
            UnknownNameError: there is no entry of that id.
        """
        return self._update(id, reproduction=reproduction.model_dump_json())

    def _update(self, id: str, **values: Any) -> Entry:
        with self.database.writing() as connection:
            number = self._row(connection, id)["number"]
            connection.execute(entries.update().where(entries.c.number == number).values(values))
            _count(connection)
        return self.entry(id)

    def remove(self, id: str) -> None:
        """Delete an entry with all that belongs to it.

        Raises:
            UnknownNameError: there is no entry of that id.
        """
        with self.database.writing() as connection:
            number = self._row(connection, id)["number"]
            connection.execute(copies.delete().where(copies.c.earlier == number))
            for table in (copies, results, bundles, entries):
                connection.execute(table.delete().where(table.c.number == number))
            _count(connection)

    def changes(self) -> int:
        """Return a number that grows with every change of an entry."""
        with self.database.reading() as connection:
            return int(connection.execute(sql.select(changes.c.count)).scalar_one())

    def boards(self) -> list[Board]:
        """Return the boards that have an entry, overall ones first."""
        columns = (entries.c.env, entries.c.scheme, entries.c.split, entries.c.mode)
        with self.database.reading() as connection:
            rows = connection.execute(sql.select(*columns).distinct()).all()
        single = {
            board
            for env, scheme, split, mode in rows
            for board in boards_of(env, scheme, split)
            if mode in ("both", board.mode)
        }
        splits = {(board.scheme, board.split, board.mode) for board in single}
        overall = [
            Board(name, *split)
            for name, envs in overall_groups().items()
            for split in splits
            if all(Board(env, *split) in single for env in envs)
        ]
        return [*sorted(overall, key=_order), *sorted(single, key=_order)]

    def candidates(self, env: str, scheme: str, split: str, mode: Mode) -> list[Candidate]:
        """Return the entries of a split and mode in every state, oldest first."""
        env, scheme, split = map(storable_text, (env, scheme, split))
        of_split = (entries.c.env == env, entries.c.scheme == scheme, entries.c.split == split)
        chosen = (
            sql.select(*(column for column in entries.c if column.name not in _HEAVY), results.c.result)
            .join_from(entries, results, results.c.number == entries.c.number)
            .where(*of_split, results.c.mode == mode)
            .order_by(entries.c.number)
        )
        with self.database.reading() as connection:
            overlaps = overlaps_of(connection, sql.select(entries.c.number).where(*of_split))
            rows = connection.execute(chosen).mappings()
            return [candidate_of(row, mode, overlaps.get(row["number"], ())) for row in rows]

    def new_token(self, name: str) -> str:
        """Make a token; see `TokenTable.new`."""
        return self._tokens.new(name)

    def tokens(self) -> list[TokenRow]:
        """Return the tokens that were made and not revoked, by name."""
        return self._tokens.rows()

    def revoke(self, name: str) -> None:
        """Delete a token; see `TokenTable.revoke`."""
        self._tokens.revoke(name)

    def knows(self, token: str) -> bool:
        """Return whether a token allows to submit."""
        return self._tokens.accepts(token)

    def has_tokens(self) -> bool:
        """Return whether there is any token."""
        return self._tokens.exist()

    @property
    def _tokens(self) -> TokenTable:
        return TokenTable(self.database)


def accept_submission(store: Store, data: BinaryIO, *, name: str = "", team: str = "", link: str = "") -> tuple[Entry, bool]:
    """Read, check and store a bundle; the command line and the web page submit through this function.

    Args:
        data: the bundle, open for reading from its beginning.
        name, team, link: replace the bundle's own where they are not empty.

    Returns:
        The entry, on the disk, and whether it is new.

    Raises:
        SubmissionError: it is refused; nothing of it was stored.
        DuplicateEntryError: the same episodes are there under another name.
    """
    bundle = unpack(data)
    details = bundle.details
    if name or team or link:
        details = Details.checked(name or details.name, team or details.team, link or details.link)
    unranked = check(bundle)
    if details != bundle.details:
        bundle = replace(bundle, details=details)
    # Packed anew: of what was sent, only what was read and checked is stored.
    return store.add(bundle, unranked, repack(bundle))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _count(connection: sql.Connection) -> None:
    connection.execute(changes.update().values(count=changes.c.count + 1))


def _order(board: Board) -> tuple[str, str, str, int]:
    return board.env, board.scheme, board.split, -MODES.index(board.mode)
