-- What makes damage provable, and what was lost to it known.

-- Of the line, begun with the epoch's id (agent/checksum.py): a record proves by itself what it is, wherever in
-- a damaged file it is found. Null in records of agents that had none.
alter table records add column checksum integer;

-- How many of the sealed records have been forgotten. So sealed_to = forgotten + rows of batches + rows lost, and a
-- file in which that isn't so has lost something.
alter table epochs add column forgotten integer not null default 0;
update epochs
set forgotten = sealed_to - (
    select coalesce(sum(last_seq - first_seq + 1), 0) from batches where batches.epoch_number = epochs.number
);

-- Runs that were in a damaged file and could not be read. Epochs numbered below 1 are salvaged ones: no intake adds
-- to them.
create table lost (
    number integer primary key,
    epoch text not null,
    first_seq integer not null,
    last_seq integer not null,
    heard_at text
) strict;

-- Folders that hold a spool moved aside, and what became of it.
create table salvages (
    folder text primary key,
    finished_at text,
    rows_salvaged integer,
    rows_lost integer
) strict, without rowid;
