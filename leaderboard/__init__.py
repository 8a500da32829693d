"""The leaderboard: scores that anyone can replay. Rooms, in the order of a submission:

- `submission`: a run as a bundle, read warily and checked without an engine; begin with `submission.bundle`
- `verification`: a bundle's actions executed again in the environments; begin with `verification.verify`
- `store`: entries and results in SQLite or PostgreSQL; begin with `store.store`
- `boards`: who is ranked against whom; begin with `boards.view`
- `web`: pages, API and a folder of files; begin with `web.app`
"""
