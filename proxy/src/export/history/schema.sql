-- What a history file holds: docs/history.md tells what may be asked of it.

-- What calls are told apart by. '' where there is none.
CREATE TABLE series (
  id INTEGER PRIMARY KEY,
  model TEXT NOT NULL,
  provider TEXT NOT NULL,
  region TEXT NOT NULL,
  route TEXT NOT NULL,
  upstream TEXT NOT NULL,
  caller TEXT NOT NULL,
  UNIQUE (model, provider, region, route, upstream, caller)
) STRICT;

-- What the calls of each series came to that ended in this minute (UTC, in minutes since 1970).
CREATE TABLE minutes (
  minute INTEGER NOT NULL,
  series INTEGER NOT NULL REFERENCES series (id),
  calls INTEGER NOT NULL,
  completed INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  truncated INTEGER NOT NULL,
  refused INTEGER NOT NULL,
  abandoned INTEGER NOT NULL,
  errors INTEGER NOT NULL,
  judged INTEGER NOT NULL,
  streams INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  cache_read_tokens INTEGER NOT NULL,
  cache_creation_tokens INTEGER NOT NULL,
  reasoning_tokens INTEGER NOT NULL,
  unpriced INTEGER NOT NULL,
  usage_absent INTEGER NOT NULL,
  saved_calls INTEGER NOT NULL,
  saved_input_tokens INTEGER NOT NULL,
  saved_output_tokens INTEGER NOT NULL,
  jobs INTEGER NOT NULL,
  jobs_good INTEGER NOT NULL,
  cost_usd REAL NOT NULL,
  saved_cost_usd REAL NOT NULL,
  statuses TEXT NOT NULL,
  duration_of_streams BLOB NOT NULL,
  duration_of_others BLOB NOT NULL,
  first_token BLOB NOT NULL,
  PRIMARY KEY (minute, series)
) STRICT, WITHOUT ROWID;

-- Both together, with times that people read.
CREATE VIEW usage AS
SELECT
  minute,
  strftime('%Y-%m-%d %H:%M', minute * 60, 'unixepoch') AS time,
  strftime('%Y-%m-%d %H:00', minute * 60, 'unixepoch') AS hour,
  strftime('%Y-%m-%d', minute * 60, 'unixepoch') AS day,
  strftime('%Y-%m', minute * 60, 'unixepoch') AS month,
  model, provider, region, route, upstream, caller,
  calls, completed, failed, truncated, refused, abandoned, errors, judged, streams,
  input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, reasoning_tokens,
  cost_usd, unpriced, usage_absent,
  saved_calls, saved_input_tokens, saved_output_tokens, saved_cost_usd,
  jobs, jobs_good, statuses, duration_of_streams, duration_of_others, first_token
FROM minutes JOIN series ON series.id = minutes.series;
